"""How Airflow runs a pipeline: a part of the declaration that no prediction depends on."""

import datetime as dt
from typing import Annotated

from pydantic import Field

from schemas.strict import Declared, Name

# Airflow's own rule for the ids of connections and pools.
_Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,200}$")]
AssetName = Annotated[str, Field(min_length=1, max_length=1500)]


class Airflow(Declared):
    """What Airflow is told beyond the schedule, in its own words."""

    conn_id: _Id = Field("spark_default", description="The Spark connection that score and verify are submitted to.")
    pool: _Id = Field("default_pool", description="The pool that score and verify take a slot of.")
    retries: int = Field(
        2, ge=0, le=20, description="Of each task, where a retry can help; a verdict is never retried."
    )
    retry_delay_minutes: float = Field(2, ge=0, le=1440, description="Before the first retry; it doubles, up to 30.")
    execution_timeout_minutes: float = Field(240, gt=0, description="A task that takes longer is stopped.")
    deadline_minutes: float | None = Field(
        None, gt=0, description="A run that has not ended so long after it was queued raises an alert."
    )
    end_date: dt.date | None = Field(None, description="The last logical date that is scheduled.")
    assets: dict[Name, AssetName] = Field(
        default={}, description="Source -> the asset of Airflow that is updated with it; when all were, a run begins."
    )
    after: list[Name] = Field([], description="Pipelines whose releases this one waits for, as for assets.")
