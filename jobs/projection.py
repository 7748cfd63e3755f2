"""Whether features.sql only picks columns of one Parquet source: such rows need no Spark on their way to the model."""

import datetime as dt
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from py4j.protocol import Py4JError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.pandas.types import from_arrow_type, to_arrow_type

from jobs.lineup import route_rules
from jobs.predicates import NotPlainError, Predicate, arrow_predicate, items, kind_of
from jobs.snapshot import Snapshot, SourceSnapshot
from schemas.declared import DeclaredPipeline

_NUMBERS = (pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.float32(), pa.float64(), pa.bool_())
_TEXTS = (pa.string(), pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.bool_(), pa.date32())


@dataclass(frozen=True, slots=True)
class Picked:
    """A column of the features, and the source's column that it is.

    Attributes:
        name: In the features.
        source: In the files, or the name of the partition.
        kind: In the features.
    """

    name: str
    source: str
    kind: pa.DataType


@dataclass(frozen=True, slots=True)
class Projection:
    """The features as columns of files.

    Attributes:
        columns: In their order.
        files: Each with the day of its partition, where the source has partitions.
        partition: Name of the partition column.
        rules: What a row must meet, by name.
        routes: Which rows have a model of their own, by name; the first that holds decides.
    """

    columns: tuple[Picked, ...]
    files: tuple[tuple[Path, dt.date | None], ...]
    partition: str | None
    rules: tuple[tuple[str, Predicate], ...] = ()
    routes: tuple[tuple[str, Predicate], ...] = ()

    @property
    def schema(self) -> pa.Schema:
        return pa.schema([pa.field(one.name, one.kind) for one in self.columns])


def find_projection(
    spark: SparkSession, declared: DeclaredPipeline, snapshot: Snapshot, features: DataFrame
) -> Projection | str:
    """The projection that the features are; or why they are none.

    Spark's own optimised plan is asked, so that what its SQL means is left to Spark: a projection is what it has
    turned into columns of one relation, as they are or cast where Arrow's cast gives the same, and at most a condition
    on the partition. What it cannot analyse at all is left to the long way to tell.
    """
    try:
        return _projection(spark, declared, snapshot, features)
    except (NotPlainError, PySparkException, Py4JError) as why:
        return str(why).splitlines()[0]


def _projection(spark: SparkSession, declared: DeclaredPipeline, snapshot: Snapshot, features: DataFrame) -> Projection:
    pipeline = declared.pipeline
    if others := [rule.name for rule in pipeline.rules if rule.on != "features"]:
        raise NotPlainError(f"rule {others[0]} is not about features")
    if pipeline.models.challengers:
        raise NotPlainError("challengers are dealt their rows by Spark")
    if pipeline.models.funnel:
        raise NotPlainError("a funnel is cut by Spark")
    if pipeline.explain:
        raise NotPlainError("explanations are kept")
    if len(pipeline.sources) > 1:
        raise NotPlainError("there are several sources")
    (name, source), *_ = pipeline.sources.items()
    if source.format != "parquet" or source.corrections:
        raise NotPlainError(f"source {name} is {'corrected by its own rows' if source.corrections else 'CSV'}")
    read = snapshot.sources[name]
    plan = features._jdf.queryExecution().optimizedPlan()
    picked: dict[str, str] | None = None
    if kind_of(plan) == "Project":
        picked, plan = dict(map(_picked, items(plan.projectList()))), plan.child()
    files: tuple[tuple[Path, dt.date | None], ...] = tuple((file, None) for file in read.files)
    if source.partition_by:
        files = tuple((file, _day(file, source.partition_by)) for file in read.files)
    if kind_of(plan) == "Filter":
        files, plan = _chosen(spark, plan.condition(), files, source.partition_by), plan.child()
    if kind_of(plan) != "LogicalRelation":
        raise NotPlainError(f"features.sql is more than a projection: {kind_of(plan)}")
    names = picked if picked is not None else {field.name: field.name for field in features.schema}
    columns = tuple(
        _column(field.name, names[field.name], to_arrow_type(field.dataType), read, source.partition_by)
        for field in features.schema
    )
    rules = [(rule.name, rule.check) for rule in (*pipeline.rules, *route_rules(pipeline.models))]
    routes = [(route.name, route.where) for route in pipeline.models.routes]
    return Projection(columns, files, source.partition_by, _predicates(features, rules), _predicates(features, routes))


def _predicates(features: DataFrame, named: list[tuple[str, str]]) -> tuple[tuple[str, Predicate], ...]:
    return tuple((name, arrow_predicate(features, sql)) for name, sql in named)


def _picked(expression: Any) -> tuple[str, str]:
    """The name of a projected column, and of the source's column that it is."""
    name, inner = str(expression.name()), expression
    if kind_of(inner) == "Alias":
        inner = inner.child()
    if kind_of(inner) == "Cast":
        inner = inner.child()
    if kind_of(inner) != "AttributeReference":
        raise NotPlainError(f"{name} is computed: {kind_of(inner)}")
    return name, str(inner.name())


def _column(name: str, asked: str, kind: pa.DataType, read: SourceSnapshot, partition: str | None) -> Picked:
    # Spark names a column as the query does, which may be in another case.
    known = {one.lower(): one for one in [*read.schema.names, *([partition] if partition else [])]}
    source = known[asked.lower()]
    found = pa.date32() if source == partition else read.schema.field(source).type
    is_same = found.equals(kind) and from_arrow_type(found) is not None
    is_cast = (kind == pa.float64() and found in _NUMBERS) or (kind == pa.string() and found in _TEXTS)
    if not (is_cast or (is_same and kind in (*_NUMBERS, *_TEXTS))):
        raise NotPlainError(f"{name} is {kind} of a column of {found}")
    return Picked(name, source, kind)


def _day(file: Path, partition: str) -> dt.date:
    return dt.date.fromisoformat(file.parent.name.removeprefix(f"{partition}="))


def _chosen(
    spark: SparkSession, condition: Any, files: tuple[tuple[Path, dt.date | None], ...], partition: str | None
) -> tuple[tuple[Path, dt.date | None], ...]:
    """The files that a condition on their partition leaves; Spark itself is asked which."""
    references = list(items(condition.references().toSeq()))
    if partition is None or {str(each.name()).lower() for each in references} != {partition.lower()}:
        raise NotPlainError("features.sql has a condition on its rows")
    table = ".".join(map(str, items(references[0].qualifier()))) or "source"
    days = sorted({day for _, day in files if day})
    values = ", ".join(f"(DATE'{day.isoformat()}')" for day in days)
    listed = spark.sql(f"SELECT * FROM VALUES {values} AS `{table}`(`{partition}`)")  # noqa: S608  # dates only
    kept = {row[0] for row in listed.where(condition.sql()).collect()}
    return tuple((file, day) for file, day in files if day in kept)
