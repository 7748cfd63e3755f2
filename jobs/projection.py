"""Whether features.sql only picks columns of one Parquet source: such rows need no Spark on their way to the model."""

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.pandas.types import from_arrow_type, to_arrow_type

from jobs.snapshot import Snapshot, SourceSnapshot
from schemas.declared import DeclaredPipeline

_NUMBERS = (pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.float32(), pa.float64(), pa.bool_())
_TEXTS = (pa.string(), pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.bool_(), pa.date32())


class _NotPlainError(Exception):
    """Why the rows have to go through Spark."""


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
    """

    columns: tuple[Picked, ...]
    files: tuple[tuple[Path, dt.date | None], ...]
    partition: str | None

    @property
    def schema(self) -> pa.Schema:
        return pa.schema([pa.field(one.name, one.kind) for one in self.columns])


def find_projection(
    spark: SparkSession, declared: DeclaredPipeline, snapshot: Snapshot, features: DataFrame
) -> Projection | str:
    """The projection that the features are; or why they are none.

    Spark's own optimised plan is asked, so that what its SQL means is left to Spark: a projection is what it has
    turned into columns of one relation, as they are or cast where Arrow's cast gives the same, and at most a condition
    on the partition.
    """
    try:
        return _projection(spark, declared, snapshot, features)
    except _NotPlainError as why:
        return str(why)


def _projection(spark: SparkSession, declared: DeclaredPipeline, snapshot: Snapshot, features: DataFrame) -> Projection:
    pipeline = declared.pipeline
    if pipeline.rules:
        raise _NotPlainError("rules are Spark's SQL")
    if pipeline.models.routes or pipeline.models.challengers:
        raise _NotPlainError("routes and challengers are dealt out by Spark")
    if len(pipeline.sources) > 1:
        raise _NotPlainError("there are several sources")
    (name, source), *_ = pipeline.sources.items()
    if source.format != "parquet" or source.corrections:
        raise _NotPlainError(f"source {name} is {'corrected by its own rows' if source.corrections else 'CSV'}")
    read = snapshot.sources[name]
    plan = features._jdf.queryExecution().optimizedPlan()
    picked: dict[str, str] | None = None
    if _kind(plan) == "Project":
        picked, plan = dict(map(_picked, _items(plan.projectList()))), plan.child()
    files: tuple[tuple[Path, dt.date | None], ...] = tuple((file, None) for file in read.files)
    if source.partition_by:
        files = tuple((file, _day(file, source.partition_by)) for file in read.files)
    if _kind(plan) == "Filter":
        files, plan = _chosen(spark, plan.condition(), files, source.partition_by), plan.child()
    if _kind(plan) != "LogicalRelation":
        raise _NotPlainError(f"features.sql is more than a projection: {_kind(plan)}")
    names = picked if picked is not None else {field.name: field.name for field in features.schema}
    columns = tuple(
        _column(field.name, names[field.name], to_arrow_type(field.dataType), read, source.partition_by)
        for field in features.schema
    )
    return Projection(columns, files, source.partition_by)


def _kind(node: Any) -> str:
    """The name of a class of Spark's, as it is in Scala."""
    return str(node.getClass().getSimpleName())


def _items(sequence: Any) -> Iterator[Any]:
    return (sequence.apply(index) for index in range(sequence.size()))


def _picked(expression: Any) -> tuple[str, str]:
    """The name of a projected column, and of the source's column that it is."""
    name, inner = str(expression.name()), expression
    if _kind(inner) == "Alias":
        inner = inner.child()
    if _kind(inner) == "Cast":
        inner = inner.child()
    if _kind(inner) != "AttributeReference":
        raise _NotPlainError(f"{name} is computed: {_kind(inner)}")
    return name, str(inner.name())


def _column(name: str, source: str, kind: pa.DataType, read: SourceSnapshot, partition: str | None) -> Picked:
    found = pa.date32() if source == partition else read.schema.field(source).type
    is_same = found.equals(kind) and from_arrow_type(found) is not None
    is_cast = (kind == pa.float64() and found in _NUMBERS) or (kind == pa.string() and found in _TEXTS)
    if not (is_cast or (is_same and kind in (*_NUMBERS, *_TEXTS))):
        raise _NotPlainError(f"{name} is {kind} of a column of {found}")
    return Picked(name, source, kind)


def _day(file: Path, partition: str) -> dt.date:
    return dt.date.fromisoformat(file.parent.name.removeprefix(f"{partition}="))


def _chosen(
    spark: SparkSession, condition: Any, files: tuple[tuple[Path, dt.date | None], ...], partition: str | None
) -> tuple[tuple[Path, dt.date | None], ...]:
    """The files that a condition on their partition leaves; Spark itself is asked which."""
    references = list(_items(condition.references().toSeq()))
    if partition is None or {str(each.name()) for each in references} != {partition}:
        raise _NotPlainError("features.sql has a condition on its rows")
    table = ".".join(map(str, _items(references[0].qualifier()))) or "source"
    days = sorted({day for _, day in files if day})
    values = ", ".join(f"(DATE'{day.isoformat()}')" for day in days)
    listed = spark.sql(f"SELECT * FROM VALUES {values} AS `{table}`(`{partition}`)")  # noqa: S608  # dates only
    kept = {row[0] for row in listed.where(condition.sql()).collect()}
    return tuple((file, day) for file, day in files if day in kept)
