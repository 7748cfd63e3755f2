"""Coverage: every entity of the list is scored once or quarantined, by key; and there are as many as expected."""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F  # noqa: N812  # the name all of Spark's users know it by

from schemas.checks import Entities
from schemas.report import CheckResult, Verdict
from schemas.run import ENTITY_ID, Counts, Parity
from validation.profile import NumericProfile, Profile

_KEYLESS = f"coalesce({ENTITY_ID}, '') = ''"
_FLAGS = ("listed", "scored", "aside")


def check_coverage(listed: DataFrame, scored: DataFrame, aside: DataFrame | None) -> CheckResult:
    """Compare the entity list with what was scored and what was set aside, key by key, in one shuffle.

    Args:
        listed: ENTITY_ID of each row of the entity source, null where a key column is.
        scored: ENTITY_ID of each prediction.
        aside: ENTITY_ID of each quarantined row; None where there is none.
    """
    frames = [_flagged(listed, "listed"), _flagged(scored, "scored")]
    if aside is not None:
        frames.append(_flagged(aside, "aside"))
    every = frames[0]
    for frame in frames[1:]:
        every = every.unionByName(frame)
    keys = every.where(f"NOT ({_KEYLESS})").groupBy(ENTITY_ID).agg(*(F.sum(flag).alias(flag) for flag in _FLAGS))
    row = keys.agg(
        F.count_if(F.col("listed") > 0).alias("listed"),
        F.count_if((F.col("listed") > 0) & (F.col("scored") + F.col("aside") == 0)).alias("lost"),
        F.count_if((F.col("listed") == 0) & (F.col("scored") > 0)).alias("invented"),
        F.count_if(F.col("scored") > 1).alias("doubled"),
        F.count_if((F.col("scored") > 0) & (F.col("aside") > 0)).alias("both"),
    ).first()
    if row is None:
        raise ValueError("Spark returned no row of an aggregate")
    wrong = {name: row[name] for name in ("lost", "invented", "doubled", "both") if row[name]}
    # Rows without a key cannot be told apart: where there are some, some must have been set aside.
    keyless = listed.where(_KEYLESS).count()
    if keyless and (aside is None or aside.where(_KEYLESS).isEmpty()):
        wrong["without a key lost"] = keyless
    observed = ", ".join(f"{count} {name}" for name, count in wrong.items()) or f"all {row['listed']} accounted for"
    verdict = Verdict.FAIL if wrong or row["listed"] == 0 else Verdict.PASS
    expected = "each entity of the list scored once or quarantined, and no other"
    return CheckResult(
        name="every entity accounted for", family="coverage", verdict=verdict, observed=observed, expected=expected
    )


def _flagged(frame: DataFrame, flag: str) -> DataFrame:
    return frame.select(ENTITY_ID, *(F.lit(int(name == flag)).alias(name) for name in _FLAGS))


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
    share = counts.quarantined / counts.entities if counts.entities else 1.0
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
            observed=f"largest difference {one.max_abs_difference:g} over {one.rows:,} rows in {one.workers} tasks",
            expected="0 in at least one task",
        )
        for one in parity
    ]
