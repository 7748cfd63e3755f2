"""Where a funnel is cut, so that as many rows survive as are declared: found over all rows, before they are scored."""

import json
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce

import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F  # noqa: N812  # the name all of Spark's users know it by

from jobs.bundles import proven_bundle
from jobs.collecting import collect
from jobs.dealing import OTHER, VARIANT
from jobs.lineup import Lineup
from jobs.predicting import Contender
from jobs.sieve import Cut, Sieve, rank_scores
from schemas.errors import AlmanacError, InputError, Problem
from schemas.models import Funnel
from schemas.run import CHAMPION, ENTITY_ID

logger = logging.getLogger(__name__)

_PROBLEMS = "problems"
_RANKED = pa.schema([(ENTITY_ID, pa.string()), ("score", pa.float64()), (_PROBLEMS, pa.string())])
_RANKED_DDL = f"{ENTITY_ID} string, score double, {_PROBLEMS} string"


def sieve_of(dealt: DataFrame, funnel: Funnel, lineup: Lineup) -> Sieve:
    """The funnel, cut.

    Args:
        dealt: The rows of the run, as `jobs.dealing` deals them.
        funnel: As declared.
        lineup: Its bundle among them.

    Raises:
        InputError: a worker could not trust the bundle or read a feature.
    """
    if funnel.threshold is not None:
        return Sieve(funnel.name, Cut(funnel.threshold))
    names = [name for name in dealt.columns if name == VARIANT or name.startswith(OTHER)]
    stands = [F.col(name).eqNullSafe(CHAMPION) for name in names if name != OTHER + funnel.name]
    # With those that a canary is served to: what it is held against goes through the funnel too.
    bundle = lineup.others[funnel.name]
    read = [feature.name for feature in bundle.manifest.features]
    entering = dealt.where(reduce(Column.__or__, stands)).select(ENTITY_ID, *read)
    task = RankTask(Contender(bundle.id, bundle.folder, bundle.digest))
    scored = entering.mapInArrow(task, _RANKED_DDL)
    ranked = scored.sort(F.desc("score"), F.asc(ENTITY_ID)).persist()
    try:
        cut = _cut(ranked, funnel)
    finally:
        ranked.unpersist()
    logger.info("funnel %s: cut at a cheap score of %r", funnel.name, cut.score)
    return Sieve(funnel.name, cut)


def _cut(ranked: DataFrame, funnel: Funnel) -> Cut:
    """After the last row that survives; it is found where it lies, so that no more than one row is ever collected."""
    part = F.spark_partition_id().alias("part")
    parts = collect(ranked.groupBy(part).agg(F.count("score").alias("rows"), F.max(_PROBLEMS).alias(_PROBLEMS)))
    problems = dict.fromkeys(Problem(*one) for each in parts if each.problems for one in json.loads(each.problems))
    if problems:
        raise InputError(*problems)
    rows = sum(each.rows for each in parts)
    wanted = round(funnel.share * rows) if funnel.share is not None else funnel.budget or 0
    if wanted >= rows:
        return Cut(-math.inf)
    if not wanted:
        return Cut(math.inf, "")
    for each in sorted(parts, key=lambda each: int(each.part)):
        if wanted <= each.rows:
            here = ranked.where(F.spark_partition_id() == each.part)
            (last,) = collect(here.mapInArrow(NthRow(wanted), _RANKED_DDL))
            return Cut(last.score, last.entity_id)
        wanted -= each.rows
    raise AssertionError("fewer rows than were counted")


@dataclass(frozen=True, slots=True)
class RankTask:
    """Answers with the id of each row and what it is ranked by; or with the problems of the bundle."""

    cheap: Contender

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        try:
            for batch in batches:
                bundle, _ = proven_bundle(self.cheap.folder, self.cheap.digest)
                ids, none = batch.column(ENTITY_ID), pa.nulls(batch.num_rows, pa.string())
                scores = pa.array(rank_scores(bundle, batch))
                yield pa.RecordBatch.from_arrays([ids, scores, none], schema=_RANKED)
        except AlmanacError as err:
            told = {ENTITY_ID: None, "score": None, _PROBLEMS: json.dumps(err.problems)}
            yield pa.RecordBatch.from_pylist([told], schema=_RANKED)


@dataclass(frozen=True, slots=True)
class NthRow:
    """Answers with the n-th row of a partition, counted from 1."""

    n: int

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        left = self.n
        for batch in batches:
            if 0 < left <= batch.num_rows:
                yield batch.slice(left - 1, 1)
            left -= batch.num_rows
