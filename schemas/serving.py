"""What a declaration says to the readers of its table."""

from schemas.head import Serving
from schemas.pipeline import Pipeline

_HOUR_SECONDS = 3600


def serving_of(pipeline: Pipeline) -> Serving:
    """How readers answer beyond the rows: key, segments with a prior, default outputs, limits of age."""
    fallback, freshness = pipeline.fallback, pipeline.freshness
    return Serving(
        key=tuple(pipeline.entity.key),
        segments=tuple(tuple(segment) for segment in fallback.segments),
        default=fallback.default,
        stale_after_seconds=_seconds(freshness.stale_after_hours),
        drop_after_seconds=_seconds(freshness.drop_after_hours),
    )


def _seconds(hours: float | None) -> int | None:
    return None if hours is None else max(1, round(hours * _HOUR_SECONDS))
