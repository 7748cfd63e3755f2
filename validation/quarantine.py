"""Row rules: which rows cannot be scored, and for which reasons each."""

from collections.abc import Sequence
from functools import reduce

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F  # noqa: N812  # the name all of Spark's users know it by

from schemas.checks import Rule
from schemas.keys import MAX_ID_BYTES
from schemas.run import ENTITY_ID, REASONS
from validation.analysis import analysis_errors

COPIES = "__copies"
NULL_KEY = "null_key"
BLANK_KEY = "blank_key"
BAD_KEY = "bad_key"
DUPLICATE_KEY = "duplicate_key"
OTHER_ROW = "other_row_failed"


def entity_id_column(key: Sequence[str]) -> Column:
    r"""The entity id as a Spark column, equal to `schemas.keys.entity_id`; null where any key column is."""
    # Plain replacements: a regular expression takes several times as long, over every row.
    parts = [
        F.replace(F.replace(F.col(name).cast("string"), F.lit("\\"), F.lit("\\\\")), F.lit(":"), F.lit("\\:"))
        for name in key
    ]
    return reduce(lambda left, right: F.concat(left, F.lit(":"), right), parts)


def judge_rows(features: DataFrame, key: Sequence[str], rules: Sequence[Rule], *, where: str) -> DataFrame:
    """The rows with their entity id and the reasons, all of them, why each may not be scored.

    Identical rows collapse into one, which counts them as COPIES. Rows of one key that differ are all set aside:
    which of them is right cannot be known.

    Args:
        features: One row an entity, with the key columns.
        key: The key columns.
        rules: Predicates that a row must meet; a NULL does not meet one.
        where: How errors name the declaration.

    Raises:
        DeclarationError: a rule is not a predicate over these columns.
    """
    once = features.groupBy(*features.columns).agg(F.count(F.lit(1)).alias(COPIES))
    identified = once.withColumn(ENTITY_ID, entity_id_column(key))
    texts = [F.col(name).cast("string") for name in key]
    reasons = [
        _reason(NULL_KEY, reduce(Column.__or__, (text.isNull() for text in texts))),
        _reason(BLANK_KEY, reduce(Column.__or__, (F.trim(text) == "" for text in texts))),
        _reason(BAD_KEY, (F.octet_length(ENTITY_ID) > MAX_ID_BYTES) | F.col(ENTITY_ID).rlike(r"[\x00-\x1f\x7f]")),
        _reason(
            DUPLICATE_KEY, (F.count(F.lit(1)).over(Window.partitionBy(ENTITY_ID)) > 1) & F.col(ENTITY_ID).isNotNull()
        ),
    ]
    return identified.withColumn(REASONS, listed([*reasons, *rule_reasons(identified, rules, where=where)]))


def judge_inputs(source: DataFrame, key: Sequence[str], rules: Sequence[Rule], *, where: str) -> DataFrame:
    """The rows of the entity source with their entity id and the reasons why each may not reach features.sql.

    Where one row of an entity fails, its others leave with it: what is left would be another entity than the list has.

    Raises:
        DeclarationError: a rule is not a predicate over the source's columns.
    """
    identified = source.withColumn(ENTITY_ID, entity_id_column(key))
    judged = identified.withColumn(REASONS, listed(rule_reasons(identified, rules, where=where)))
    others = F.max(F.size(REASONS)).over(Window.partitionBy(ENTITY_ID)) > 0
    leaves = (F.size(REASONS) == 0) & F.col(ENTITY_ID).isNotNull() & others
    return judged.withColumn(REASONS, F.when(leaves, F.array(F.lit(OTHER_ROW))).otherwise(F.col(REASONS)))


def rule_reasons(frame: DataFrame, rules: Sequence[Rule], *, where: str) -> list[Column]:
    """For each rule its name where a row does not meet it, else NULL.

    Raises:
        DeclarationError: a rule is not a predicate over these columns.
    """
    reasons = []
    for rule in rules:
        with analysis_errors(f"{where}: rules.{rule.name}"):
            passed = F.expr(rule.check)
            frame.select(passed.cast("boolean"))
            reasons.append(_reason(rule.name, ~F.coalesce(passed, F.lit(False))))
    return reasons


def listed(reasons: Sequence[Column]) -> Column:
    """The reasons that apply to a row, as one array; empty where none does."""
    return F.array_compact(F.array(*reasons)) if reasons else F.array().cast("array<string>")


def passed(judged: DataFrame) -> DataFrame:
    """The rows without a reason."""
    return judged.where(F.size(REASONS) == 0).drop(REASONS, COPIES)


def failed(judged: DataFrame) -> DataFrame:
    """The rows to set aside, with their reasons."""
    return judged.where(F.size(REASONS) > 0).drop(COPIES)


def _reason(name: str, applies: Column) -> Column:
    return F.when(applies, F.lit(name))
