"""Expectations that Great Expectations lacks, registered with it; each is answered by a profile or by Spark."""

from typing import Any, ClassVar

from great_expectations.compatibility import pydantic
from great_expectations.core.metric_domain_types import MetricDomainTypes
from great_expectations.execution_engine.sparkdf_execution_engine import SparkDFExecutionEngine
from great_expectations.expectations.expectation import ColumnAggregateExpectation, ColumnMapExpectation
from great_expectations.expectations.metrics.column_aggregate_metric_provider import ColumnAggregateMetricProvider
from great_expectations.expectations.metrics.map_metric_provider.column_condition_partial import (
    column_condition_partial,
)
from great_expectations.expectations.metrics.map_metric_provider.column_map_metric_provider import (
    ColumnMapMetricProvider,
)
from great_expectations.expectations.metrics.metric_provider import metric_value
from great_expectations.render.components import LegacyRendererType, RenderedStringTemplateContent
from great_expectations.render.renderer.renderer import renderer
from pyspark.sql import functions as F  # noqa: N812  # the name that Spark's users know
from pyspark.sql import types

_METADATA = {"maturity": "production", "tags": ["almanac"]}


class ColumnValuesFinite(ColumnMapMetricProvider):
    """Whether each value is a number that is neither NaN nor infinite."""

    condition_metric_name = "column_values.finite"

    @column_condition_partial(engine=SparkDFExecutionEngine)
    def _spark(cls, column: Any, **kwargs: Any) -> Any:  # noqa: N805  # Great Expectations makes it a class method
        kind = kwargs["_table"].schema[kwargs["_accessor_domain_kwargs"]["column"]].dataType
        if not isinstance(kind, types.NumericType):
            raise TypeError(f"a column of {kind.simpleString()} has no finite values: it is not of numbers")
        number = column.cast("double")
        return ~F.isnan(number) & (F.abs(number) != F.lit(float("inf")))


class ColumnTopValueShare(ColumnAggregateMetricProvider):
    """Share of the most frequent value among those that are not null."""

    metric_name = "column.top_value_share"

    @metric_value(engine=SparkDFExecutionEngine)
    def _spark(
        cls,  # noqa: N805  # Great Expectations makes it a class method
        execution_engine: SparkDFExecutionEngine,
        metric_domain_kwargs: dict[str, Any],
        **_: Any,
    ) -> float | None:
        frame, _, accessor = execution_engine.get_compute_domain(metric_domain_kwargs, MetricDomainTypes.COLUMN)
        column = F.col(accessor["column"])
        counted = frame.where(column.isNotNull()).groupBy(column).count()
        most, rows = counted.agg(F.max("count"), F.sum("count")).first()
        return None if not rows else float(most / rows)


class ExpectColumnValuesToBeFinite(ColumnMapExpectation):
    """Expect the numbers of a column to be neither NaN nor infinite; nulls pass."""

    map_metric: ClassVar[str] = "column_values.finite"
    library_metadata: ClassVar[dict[str, Any]] = _METADATA

    @classmethod
    @renderer(renderer_type=LegacyRendererType.PRESCRIPTIVE)
    def _prescriptive_renderer(  # type: ignore[override]  # it is called by names, and takes more than it needs
        cls, configuration: Any = None, **_: Any
    ) -> list[RenderedStringTemplateContent]:
        share = configuration.kwargs.get("mostly", 1)
        often = "" if share == 1 else f", in at least {share:.6g} of the rows that are not null"
        return [_sentence(f"values must be neither NaN nor infinite{often}.")]


class ExpectColumnTopValueShareToBeAtMost(ColumnAggregateExpectation):
    """Expect the most frequent value to be at most this share of those that are not null."""

    max_value: float = pydantic.Field(ge=0, le=1)

    metric_dependencies = ("column.top_value_share",)
    success_keys = ("max_value",)
    library_metadata: ClassVar[dict[str, Any]] = _METADATA

    def _validate(
        self,
        metrics: dict[str, Any],
        runtime_configuration: dict[str, Any] | None = None,  # noqa: ARG002  # Great Expectations' signature
        execution_engine: Any = None,  # noqa: ARG002
    ) -> dict[str, Any]:
        share: float | None = metrics["column.top_value_share"]
        return {"success": share is not None and share <= self.max_value, "result": {"observed_value": share}}

    @classmethod
    @renderer(renderer_type=LegacyRendererType.PRESCRIPTIVE)
    def _prescriptive_renderer(  # type: ignore[override]  # it is called by names, and takes more than it needs
        cls, configuration: Any = None, **_: Any
    ) -> list[RenderedStringTemplateContent]:
        return [_sentence(f"no value may have more than {configuration.kwargs['max_value']:.6g} of the rows.")]


def _sentence(text: str) -> RenderedStringTemplateContent:
    template: dict[str, Any] = {"template": text, "params": {}}
    return RenderedStringTemplateContent(content_block_type="string_template", string_template=template)
