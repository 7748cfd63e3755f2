"""Coverage: every entity of the list is scored once or quarantined, by key; and there are as many as expected."""

from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F  # noqa: N812  # the name all of Spark's users know it by

from schemas.checks import Entities
from schemas.report import CheckResult, Verdict
from schemas.run import CARRIED, ENTITY_ID, SCORED, WITHHELD, Counts, Parity
from validation.profile import NumericProfile, Profile

_KEYLESS = f"coalesce({ENTITY_ID}, '') = ''"
_FLAGS = ("listed", SCORED, CARRIED, WITHHELD, "aside")


def check_coverage(
    listed: DataFrame,
    predictions: DataFrame,
    aside: DataFrame | None,
    counts: Counts,
    *,
    erased: int = 0,
    ids_once: bool = False,
) -> CheckResult:
    """Compare the entity list with what was scored, carried and set aside, key by key.

    Where nothing was set aside and no prediction stands twice, both sides are the same keys if and only if their
    fingerprints are equal, which takes no shuffle. In all other cases each key is looked at.

    Args:
        listed: ENTITY_ID of each row of the entity source, null where a key column is.
        predictions: ENTITY_ID and `status` of each prediction.
        aside: ENTITY_ID of each quarantined row; None where there is none.
        counts: As the manifest tells them.
        erased: Entities of the list that were erased since: they may be lost.
        ids_once: Whether it is proven that no id stands twice among the predictions.
    """
    if ids_once and aside is None and not erased and counts.scored == counts.rows:
        prints = [frame.agg(*_fingerprint()).first() for frame in (listed, predictions)]
        if prints[0] == prints[1] and prints[0] is not None and prints[0]["keys"] == counts.scored > 0:
            return _result(Verdict.PASS, f"all {counts.scored} accounted for")
    frames = [_flagged(listed, "listed"), _flagged_by_status(predictions)]
    if aside is not None:
        frames.append(_flagged(aside, "aside"))
    every = reduce(DataFrame.unionByName, frames)
    keys = every.where(f"NOT ({_KEYLESS})").groupBy(ENTITY_ID).agg(*(F.sum(flag).alias(flag) for flag in _FLAGS))
    served = F.col(SCORED) + F.col(CARRIED)
    row = keys.agg(
        F.count_if(F.col("listed") > 0).alias("listed"),
        F.count_if((F.col("listed") > 0) & (served + F.col("aside") == 0)).alias("lost"),
        F.count_if((F.col("listed") == 0) & (served + F.col(WITHHELD) > 0)).alias("invented"),
        F.count_if(served + F.col(WITHHELD) > 1).alias("doubled"),
        F.count_if((F.col(SCORED) > 0) & (F.col("aside") > 0)).alias("both"),
        F.count_if((F.col(CARRIED) + F.col(WITHHELD) > 0) & (F.col("aside") == 0)).alias("carried without a reason"),
        *(F.sum(flag).alias(flag) for flag in (SCORED, CARRIED, WITHHELD)),
        F.count_if(F.col("aside") > 0).alias("aside"),
    ).first()
    if row is None:
        raise ValueError("Spark returned no row of an aggregate")
    names = ("lost", "invented", "doubled", "both", "carried without a reason")
    wrong = {name: row[name] for name in names if row[name]}
    if wrong.get("lost") == erased:
        wrong.pop("lost", None)
    # Rows without a key cannot be told apart: where there are some, some must have been set aside.
    keyless = listed.where(_KEYLESS).count()
    keyless_aside = aside.where(_KEYLESS).count() if aside is not None else 0
    if keyless and not keyless_aside:
        wrong["without a key lost"] = keyless
    told = (counts.scored, counts.carried, counts.withheld, counts.set_aside)
    found = (row[SCORED] or 0, row[CARRIED] or 0, row[WITHHELD] or 0, row["aside"] + keyless_aside)
    if found != told:
        wrong[f"keys scored, carried, withheld, aside where the manifest has {told}, so"] = found
    observed = ", ".join(f"{count} {name}" for name, count in wrong.items()) or f"all {row['listed']} accounted for"
    verdict = Verdict.FAIL if wrong or row["listed"] == 0 else Verdict.PASS
    return _result(verdict, observed)


def _result(verdict: Verdict, observed: str) -> CheckResult:
    expected = "each entity of the list scored, carried or quarantined, once, and no other"
    return CheckResult(
        name="every entity accounted for", family="coverage", verdict=verdict, observed=observed, expected=expected
    )


def _fingerprint() -> list[Column]:
    """Of a set of keys: how many, how many have none, and 124 bits of sums over two hashes of each.

    Sums of 31 bits each cannot overflow below four billion rows; that two different sets agree in all is as likely as
    one in 2**124.
    """
    halves = [half for seed in (1, 2) for half in _halves(F.xxhash64(F.col(ENTITY_ID), F.lit(seed)))]
    sums = [F.sum(half).alias(f"sum{index}") for index, half in enumerate(halves)]
    return [F.count(ENTITY_ID).alias("keys"), F.count_if(F.expr(_KEYLESS)).alias("keyless"), *sums]


def _halves(hashed: Column) -> tuple[Column, Column]:
    return hashed.bitwiseAND(F.lit(2**31 - 1).cast("long")), F.shiftrightunsigned(hashed, 33)


def _flagged(frame: DataFrame, flag: str) -> DataFrame:
    return frame.select(ENTITY_ID, *(F.lit(int(name == flag)).alias(name) for name in _FLAGS))


def _flagged_by_status(predictions: DataFrame) -> DataFrame:
    flags = [(F.col("status") == name).cast("int").alias(name) for name in (SCORED, CARRIED, WITHHELD)]
    return predictions.select(ENTITY_ID, F.lit(0).alias("listed"), *flags, F.lit(0).alias("aside"))


def check_finite(profile: Profile, outputs: tuple[str, ...]) -> CheckResult:
    """Whether each output of each prediction is a finite number."""
    columns = [profile.columns[name] for name in outputs]
    bad = sum(profile.rows - (column.count if isinstance(column, NumericProfile) else 0) for column in columns)
    return CheckResult(
        name="predictions are finite",
        family="coverage",
        verdict=Verdict.PASS if profile.rows and not bad else Verdict.FAIL,
        observed=f"{bad:,} null, NaN or infinite among {profile.rows:,} rows",
        expected="only finite numbers",
    )


def check_entities(counts: Counts, live: Counts | None, declared: Entities) -> list[CheckResult]:
    """Whether there are enough entities, and not too many more or fewer than in the live release."""
    enough = CheckResult(
        name="enough entities",
        family="entities",
        verdict=Verdict.PASS if counts.scored >= declared.min else Verdict.FAIL,
        observed=f"{counts.scored:,} scored",
        expected=f"at least {declared.min:,}",
    )
    if live is None:
        return [enough]
    change = counts.entities / live.entities - 1 if live.entities else float("inf")
    within = CheckResult(
        name="entity count against the live release",
        family="entities",
        verdict=Verdict.PASS if abs(change) <= declared.max_change else Verdict.FAIL,
        observed=f"{counts.entities:,} against {live.entities:,} ({change:+.1%})",
        expected=f"within {declared.max_change:.0%}",
    )
    return [enough, within]


def check_quarantine(counts: Counts, max_share: float) -> CheckResult:
    """Whether few enough entities were set aside."""
    share = counts.set_aside / counts.entities if counts.entities else 1.0
    reasons = ", ".join(
        f"{name} {count:,}" for name, count in sorted(counts.reasons.items(), key=lambda item: -item[1])
    )
    return CheckResult(
        name="quarantined share",
        family="quarantine",
        verdict=Verdict.PASS if share <= max_share else Verdict.FAIL,
        observed=f"{share:.2%} of {counts.entities:,} entities" + (f" ({reasons})" if reasons else ""),
        expected=f"at most {max_share:.2%}",
    )


def check_workers(parity: tuple[Parity, ...]) -> list[CheckResult]:
    """That each bundle reproduced its holdout in each worker, as the workers reported it."""
    return [
        CheckResult(
            name=f"bundle {one.model} reproduces its holdout",
            family="parity",
            verdict=Verdict.PASS
            if one.workers > 0 and one.rows > 0 and one.max_abs_difference == 0.0
            else Verdict.FAIL,
            observed=f"largest difference {one.max_abs_difference:g} over {one.rows:,} rows in {one.workers} tasks"
            + (f"; scored by {'; '.join(one.engines)}" if one.engines else ""),
            expected="0 in at least one task",
        )
        for one in parity
    ]
