"""Which model scores which row: by the declared routes, and by lot for a challenger."""

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F  # noqa: N812  # the name all of Spark's users know it by

from schemas.models import Challenger, Models
from schemas.run import CHAMPION, ENTITY_ID
from validation.analysis import analysis_errors

VARIANT = "__variant"  # who scores a row that is served
OTHER = "__other_"  # and a challenger's or funnel's name: who scores the row too, unserved; NULL where nobody does
_STEPS = 1_000_000


def dealt(rows: DataFrame, models: Models, *, where: str) -> DataFrame:
    """The rows with VARIANT, and a column OTHER of each challenger, where the pipeline has more than a champion.

    Who scores an entity follows from its features and its id alone: neither the run nor its partitioning matters.
    Where there is a funnel, the champion's rows are those that enter it, and its OTHER says which the audit has drawn;
    `jobs.sieve` takes those that it rejects away from the champion, where their cheap score is known.

    Args:
        rows: ENTITY_ID, key and features.
        models: As declared.
        where: How errors name the declaration.

    Raises:
        DeclarationError: a route's `where` is not a predicate over these columns.
    """
    if not models.routes and not models.challengers and not models.funnel:
        return rows
    routed = F.lit(CHAMPION)
    for route in reversed(models.routes):
        holds = holds_in(rows, route.where, f"{where}: models.routes.{route.name}")
        routed = F.when(holds, F.lit(route.name)).otherwise(routed)
    served, others = routed, {}
    if funnel := models.funnel:
        audited = drawn(funnel.audit, f"audit:{funnel.salt or ''}") & (routed == CHAMPION)
        others[OTHER + funnel.name] = F.when(audited, F.lit(CHAMPION))
    for challenger in models.challengers:
        mine, name = _is_dealt(challenger), F.lit(challenger.name)
        if challenger.serves:
            served = F.when(mine, name).otherwise(routed)
        others[OTHER + challenger.name] = F.when(mine, routed if challenger.serves else name)
    return rows.withColumns({VARIANT: served, **others})


def holds_in(rows: DataFrame, predicate: str, where: str) -> Column:
    """Whether it holds for a row; not where it is NULL.

    Raises:
        DeclarationError: it is not a predicate over these columns.
    """
    with analysis_errors(where):
        holds = F.expr(predicate)
        rows.select(holds.cast("boolean"))
    return F.coalesce(holds, F.lit(False))


def _is_dealt(challenger: Challenger) -> Column:
    """Whether the challenger gets the entity."""
    return F.lit(True) if challenger.share is None else drawn(challenger.share, challenger.salt or "")


def drawn(share: float, salt: str) -> Column:
    """Whether the entity is drawn: by XXH64 of salt and id, which every Spark computes alike."""
    draw = F.pmod(F.xxhash64(F.lit(salt), F.col(ENTITY_ID)), F.lit(_STEPS))
    return draw < round(share * _STEPS)
