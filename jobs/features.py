"""features.sql over a snapshot: the declared sources as views, the features as one typed table."""

import datetime as dt
from functools import reduce

from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as F  # noqa: N812  # the name all of Spark's users know it by
from pyspark.sql import types as T  # noqa: N812
from pyspark.sql.pandas.types import from_arrow_schema

from jobs.snapshot import Snapshot, SourceSnapshot
from schemas.declared import DeclaredPipeline
from schemas.errors import DeclarationError, Problem
from schemas.pipeline import Source
from validation.analysis import analysis_errors
from validation.quarantine import failed, judge_inputs, passed

_NEWEST = "__newest"
_KEY_TYPES = (T.StringType, T.IntegralType, T.DateType)


def read_source(
    spark: SparkSession, declared: DeclaredPipeline, name: str, snapshot: SourceSnapshot, *, superseded: bool = False
) -> DataFrame:
    """All columns of a source's snapshot, each thing once where its rows correct one another.

    Every column of a CSV file is a string.

    Args:
        spark: The session.
        declared: The pipeline.
        name: Of the source.
        snapshot: Of it.
        superseded: The rows that a newer one corrected, in place of the others.

    Raises:
        DeclarationError: the source has no column that `corrections` names.
    """
    source = declared.pipeline.sources[name]
    frame = _files(spark, source, snapshot)
    corrected = declared.pipeline.corrected_by(name)
    if corrected is None:
        return frame.where("false") if superseded else frame
    by, key = corrected
    with analysis_errors(f"{declared.name}/pipeline.yaml: sources.{name}.corrections"):
        # Equal ones stay, all of them: which is right cannot be known. So do rows without a key, which name no thing.
        newest = F.rank().over(Window.partitionBy(*key).orderBy(F.col(by).desc_nulls_last())) == 1
        is_keyless = reduce(Column.__or__, (F.col(column).isNull() for column in key))
        judged = frame.withColumn(_NEWEST, newest | is_keyless)
        return judged.where(~F.col(_NEWEST) if superseded else F.col(_NEWEST)).drop(_NEWEST)


def _files(spark: SparkSession, source: Source, snapshot: SourceSnapshot) -> DataFrame:
    schema = from_arrow_schema(snapshot.schema)
    paths = [str(file) for file in snapshot.files]
    if source.format == "csv":
        options = {"header": "true", "sep": source.delimiter, "multiLine": "true", "escape": '"', "mode": "FAILFAST"}
        return spark.read.schema(schema).options(**options).csv(paths)
    reader = spark.read
    if source.partition_by:
        schema = T.StructType([*schema.fields, T.StructField(source.partition_by, T.DateType())])
        reader = reader.option("basePath", str(snapshot.root))
    return reader.schema(schema).parquet(*paths)


def register_sources(spark: SparkSession, declared: DeclaredPipeline, snapshot: Snapshot) -> DataFrame | None:
    """Make each source a temporary view, without the columns that the features may not see.

    Returns:
        The rows of the entity source that input rules keep from features.sql, with their reasons; None where there is
        no such rule.

    Raises:
        DeclarationError: an input rule is not a predicate over the entity source's columns.
    """
    pipeline, aside = declared.pipeline, None
    rules = [rule for rule in pipeline.rules if rule.on == "inputs"]
    for name, source in pipeline.sources.items():
        view = read_source(spark, declared, name, snapshot.sources[name]).drop(*source.forbidden)
        if rules and name == pipeline.entity.source:
            judged = judge_inputs(view, pipeline.entity.key, rules, where=f"{declared.name}/pipeline.yaml")
            view, aside = passed(judged).select(view.columns), failed(judged)
        view.createOrReplaceTempView(name)
    return aside


def query_features(spark: SparkSession, declared: DeclaredPipeline, date: dt.date) -> DataFrame:
    """The key columns as they are, then numeric features as double and categorical ones as string.

    Raises:
        DeclarationError: Spark cannot run the SQL, or a column is missing or of the wrong type.
    """
    pipeline = declared.pipeline
    where = f"{declared.name}/{pipeline.features.sql}"
    with analysis_errors(where):
        frame = spark.sql(declared.features_sql, args={**declared.values, "ds": date})
    types = {field.name: field.dataType for field in frame.schema.fields}
    missing = [name for name in dict.fromkeys([*pipeline.entity.key, *pipeline.features.columns]) if name not in types]
    problems = [
        Problem("SQL_COLUMN", where, f"column '{name}' is not selected", f"it among {', '.join(types)}")
        for name in missing
    ]
    problems += [
        Problem("SQL_COLUMN_TYPE", f"{where}: {name}", types[name].simpleString(), "a key of string, integer or date")
        for name in pipeline.entity.key
        if name in types and not isinstance(types[name], _KEY_TYPES)
    ]
    problems += [
        Problem("SQL_COLUMN_TYPE", f"{where}: {name}", types[name].simpleString(), "a number or boolean; cast it")
        for name in pipeline.features.numeric
        if name in types and not isinstance(types[name], (T.NumericType, T.BooleanType))
    ]
    if problems:
        raise DeclarationError(*problems)
    return frame.select(*_typed(declared))


def _typed(declared: DeclaredPipeline) -> list[Column]:
    pipeline = declared.pipeline
    types = {
        **dict.fromkeys(pipeline.features.numeric, "double"),
        **dict.fromkeys(pipeline.features.categorical, "string"),
    }
    # A key column that is a feature too keeps the key's type here; the bundle reads it as it needs.
    features = [F.col(name).cast(kind).alias(name) for name, kind in types.items() if name not in pipeline.entity.key]
    return [*(F.col(name) for name in pipeline.entity.key), *features]
