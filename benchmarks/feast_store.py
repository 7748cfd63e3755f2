"""Feast's side of a comparison, run by Feast's own Python: `apply` or `write` a repository's rows.

`write` prints the seconds of `write_to_online_store`, behind the imports and the reading of the file.
"""

import sys
import time
from datetime import timedelta
from pathlib import Path

import pyarrow.parquet as pq
from feast import Entity, FeatureStore, FeatureView, Field, FileSource
from feast.types import Float32, String
from feast.value_type import ValueType

VIEW = "predictions"
ROWS = "rows.parquet"


def main() -> None:
    action, repository = sys.argv[1], Path(sys.argv[2])
    store = FeatureStore(repo_path=str(repository))
    if action == "apply":
        entity = Entity(name="entity", join_keys=["entity_id"], value_type=ValueType.STRING)
        view = FeatureView(
            name=VIEW,
            entities=[entity],
            ttl=timedelta(0),
            schema=[Field(name="entity_id", dtype=String), Field(name="score", dtype=Float32)]
            + [Field(name=name, dtype=String) for name in ("model", "variant", "status")],
            source=FileSource(path=str(repository / ROWS), timestamp_field="event_timestamp"),
        )
        store.apply([entity, view])
        return
    rows = pq.read_table(repository / ROWS).to_pandas()
    started = time.perf_counter()
    store.write_to_online_store(VIEW, rows)
    sys.stdout.write(f"{time.perf_counter() - started}\n")


if __name__ == "__main__":
    main()
