"""Made-up accounts to score: a plain projection of one Parquet source."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.accounts import (
    KEY,
    NAME,
    NUMBERS,
    SCORED_FOR,
    SEED,
    TRAINED_ON,
    TRAINING_ROWS,
    WORDS,
    features_sql,
    pipeline,
    write_yaml,
)
from schemas.settings import Settings

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

VALUES = [f"value {index}" for index in range(40)]
ROUTE = "north"
_FILE_ROWS = 500_000
_EXPECTATIONS = f"""inputs:
- {{type: expect_column_values_to_not_be_null, kwargs: {{column: {KEY}}}}}
predictions:
- {{type: expect_column_values_to_not_be_null, kwargs: {{column: score}}}}
"""


def declare(
    root: Path, rows: int, *, routed: bool = False, reused: bool = False, leaves: int | None = None
) -> Settings:
    """Write the pipeline and its rows: a day to train on, a day to score."""
    folder = root / "dags" / NAME
    folder.mkdir(parents=True)
    for date, count in {TRAINED_ON: min(rows, TRAINING_ROWS), SCORED_FOR: rows}.items():
        _write(root / "data" / f"date={date}", count)
    (folder / "features.sql").write_text(features_sql([*NUMBERS, *WORDS]))
    declared = _pipeline(root / "data", routed=routed)
    if reused:
        declared["models"]["reuse"] = {}
    if leaves:
        declared["training"]["params"]["num_leaves"] = leaves
    write_yaml(folder / "pipeline.yaml", declared)
    (folder / "expectations.yaml").write_text(_EXPECTATIONS)
    return Settings(pipelines=root / "dags", store=root / "store")


def alone(root: Path, routed: Settings, variant: str, bundle: str) -> Settings:
    """The rows of one variant of a routed pipeline, as a pipeline with that model alone."""
    north = pa.array(VALUES[::2])
    before, folder = routed.pipelines.parent, root / "dags" / NAME
    shutil.copytree(routed.pipelines / NAME, folder)
    shutil.copytree(routed.store, root / "store")
    for path in sorted((before / "data").glob("date=*/*.parquet")):
        table = pq.read_table(path, partitioning=None)
        is_north = pc.is_in(table[WORDS[0]], value_set=north)
        (root / path.relative_to(before)).parent.mkdir(parents=True, exist_ok=True)
        kept = table.filter(is_north if variant == ROUTE else pc.invert(is_north))
        pq.write_table(kept, root / path.relative_to(before), compression="zstd")
    declared = _pipeline(root / "data", routed=False) | {"models": {"champion": {"bundle": bundle}}}
    write_yaml(folder / "pipeline.yaml", declared)
    return Settings(pipelines=root / "dags", store=root / "store")


def change(root: Path, share: float) -> None:
    """Draw every number anew of a share of the rows that are scored, which are spread over all of them."""
    rng = np.random.default_rng(SEED + 1)
    for path in sorted(source(root).iterdir()):
        table = pq.read_table(path, partitioning=None)
        is_changed = rng.random(table.num_rows) < share
        for index, name in enumerate(NUMBERS):
            fresh = pa.array(rng.normal(index, 3, int(is_changed.sum())))
            column = pc.replace_with_mask(table[name].combine_chunks(), pa.array(is_changed), fresh)
            table = table.set_column(table.schema.get_field_index(name), name, column)
        pq.write_table(table, path, compression="zstd")


def source(root: Path) -> Path:
    """The folder of the day that is scored."""
    return root / "data" / f"date={SCORED_FOR}"


def _write(folder: Path, rows: int) -> None:
    """Of the numbers, a twentieth is missing."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(SEED)
    for part, first in enumerate(range(0, rows, _FILE_ROWS)):
        count = min(_FILE_ROWS, rows - first)
        numbers = {name: rng.normal(index, 3, count) for index, name in enumerate(NUMBERS)}
        codes = {name: rng.integers(0, len(VALUES), count) for name in WORDS}
        late = (_lift(numbers, codes) + rng.normal(0, 3, count) > 0).astype(np.int64)
        holes = {name: pa.array(values, mask=rng.random(count) < 0.05) for name, values in numbers.items()}
        words = {name: pa.array(VALUES).take(pa.array(codes[name])) for name in WORDS}
        ids = pa.array([f"account-{number:09}" for number in range(first, first + count)])
        table = pa.table({KEY: ids, **holes, **words, "bought": late})
        pq.write_table(table, folder / f"{part:03}.parquet", compression="zstd")


def _lift(numbers: Mapping[str, Floats], codes: Mapping[str, Ints]) -> Floats:
    """What the label follows from: all features, so that the trees look at all of them as those of real tables do."""
    waves = sum((np.sin(values + at) for at, values in enumerate(numbers.values())), np.zeros(1))
    steps = sum((((values * 7 + at) % 11 - 5) / 3 for at, values in enumerate(codes.values())), np.zeros(1))
    return waves + steps


def _pipeline(data: Path, *, routed: bool) -> dict[str, Any]:
    declared = pipeline(data, key_type="string", description="Made-up accounts that are scored.")
    if routed:
        where = f"{WORDS[0]} IN ({', '.join(map(repr, VALUES[::2]))})"
        declared["models"]["routes"] = [{"name": ROUTE, "where": where}]
    return declared
