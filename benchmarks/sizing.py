"""The sizing table of docs/deployment.md, from the units that the page names: `python -m benchmarks.sizing`."""

import math
import re
import sys
from collections.abc import Mapping
from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs" / "deployment.md"
ENTITIES = (10_000_000, 100_000_000, 1_000_000_000)
_UNIT = re.compile(r"^\| `(\w+)` \| ([\d,.]+) \|", re.M)
_ROWS_PER_FILE = 250_000
_GIB = 2**30


def units(page: str) -> dict[str, float]:
    """Name -> value of each row of the page's table of units.

    >>> units("| `entities` | 1,250.5 | made up |")
    {'entities': 1250.5}
    """
    return {name: float(value.replace(",", "")) for name, value in _UNIT.findall(page)}


def row(entities: int, unit: Mapping[str, float]) -> str:
    """One line of the table; docs/deployment.md has the formulas in words."""
    score = entities / unit["score_rows_per_core_second"] / 3600
    verify = entities / unit["verify_rows_per_core_second"] / 3600
    publish = entities / unit["publish_entities_per_second"]
    redis = entities * unit["redis_bytes_per_entity"] * (unit["keep"] + 1) * (1 + unit["redis_headroom"]) / _GIB
    store = entities * (unit["prediction_bytes_per_entity"] + unit["feature_bytes_per_entity"]) / _GIB
    cells = (
        f"{entities:,}",
        f"{score + verify:.2f}",
        f"{math.ceil(score + verify):,}",
        f"{publish:,.0f} s",
        f"{redis:,.1f} GiB",
        f"{store:,.1f} GiB",
        f"{-(-entities // _ROWS_PER_FILE):,}",
    )
    return f"| {' | '.join(cells)} |"


def main() -> None:
    unit = units(PAGE.read_text(encoding="utf-8"))
    sys.stdout.write("\n".join(row(entities, unit) for entities in ENTITIES) + "\n")


if __name__ == "__main__":
    main()
