"""Feast's side, run by its own Python: `apply` declares the rows of a repository, `write` writes them.

`write` prints the seconds of `write_to_online_store`: the imports and the reading of the file come before.
"""

import sys
import time
from pathlib import Path
from typing import Any

VIEW = "predictions"
ROWS = "rows.parquet"


def main() -> None:
    from feast import FeatureStore  # type: ignore[import-not-found]  # it is in an environment of its own

    action, repository = sys.argv[1], Path(sys.argv[2])
    store = FeatureStore(repo_path=str(repository))
    if action == "apply":
        store.apply(_declared(repository))
    else:
        sys.stdout.write(f"{_write(store, repository)}\n")


def _declared(repository: Path) -> list[Any]:
    from feast import Entity, FeatureView, Field, FileSource
    from feast.types import Float32, String  # type: ignore[import-not-found]
    from feast.value_type import ValueType  # type: ignore[import-not-found]

    entity = Entity(name="entity", join_keys=["entity_id"], value_type=ValueType.STRING)
    route = [Field(name=name, dtype=String) for name in ("model", "variant", "status")]
    source = FileSource(path=str(repository / ROWS), timestamp_field="event_timestamp")
    key = Field(name="entity_id", dtype=String)
    view = FeatureView(
        name=VIEW, entities=[entity], schema=[key, Field(name="score", dtype=Float32), *route], source=source
    )
    return [entity, view]


def _write(store: Any, repository: Path) -> float:
    import pyarrow.parquet as pq

    rows = pq.read_table(repository / ROWS).to_pandas()
    started = time.perf_counter()
    store.write_to_online_store(VIEW, rows)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
