"""Which of 100,000 entities a challenger is dealt; sent along with a job too, so it needs nothing else of tests."""

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ENTITIES = 100_000
SHARE = 0.3


def arms(session: "SparkSession", partitions: int) -> tuple[int, str]:
    """How many entities the challenger has, and the digest of their ids."""
    from jobs.dealing import VARIANT, dealt
    from schemas.models import Challenger, Models

    models = Models(challengers=[Challenger(name="new", mode="ab", share=SHARE, salt="autumn")])
    entities = session.range(ENTITIES).selectExpr("concat('UA:', id) AS entity_id").repartition(partitions)
    rows = dealt(entities, models, where="test").where(f"{VARIANT} = 'new'").select("entity_id").collect()
    ids = sorted(row["entity_id"] for row in rows)
    return len(ids), hashlib.sha256("\n".join(ids).encode()).hexdigest()
