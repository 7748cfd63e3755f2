"""A Great Expectations data source whose metrics come from a profile where it knows them, from Spark where not."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeGuard

from great_expectations.core.batch import BatchMarkers
from great_expectations.datasource.fluent.interfaces import DataAsset
from great_expectations.datasource.fluent.spark_datasource import DataFrameAsset, SparkDatasource
from great_expectations.exceptions.exceptions import MetricResolutionError
from great_expectations.execution_engine.sparkdf_batch_data import SparkDFBatchData
from great_expectations.execution_engine.sparkdf_execution_engine import SparkDFExecutionEngine
from great_expectations.validator.metric_configuration import MetricConfiguration
from great_expectations.validator.validation_graph import ValidationGraph

from validation.known import Known

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_COUNT, _VALUES = ".unexpected_count", ".unexpected_values"
# They need names of columns to index by, which Almanac never gives: Great Expectations' own are None as well.
_NEVER = (".unexpected_index_list", ".unexpected_index_query")


@dataclass(eq=False)
class Table:
    """What a suite judges.

    Attributes:
        open: The rows; called once, and only if something has to be computed from them.
        known: What needs no rows, if anything is known.
        private: Columns of which no value is to leave Spark as an example.
        wanted: Names of the metrics that the suite's expectations ask for; others are computed only for these.
    """

    open: "Callable[[], DataFrame]"
    known: Known | None = None
    private: frozenset[str] = frozenset()
    wanted: set[str] = field(default_factory=set)

    @cached_property
    def frame(self) -> "DataFrame":
        return self.open()


class _Rows(SparkDFBatchData):
    """A batch whose frame is opened when it is first needed."""

    def __init__(self, engine: SparkDFExecutionEngine, table: Table) -> None:
        super().__init__(engine, None)
        self.table = table

    @property
    def dataframe(self) -> "DataFrame":
        return self.table.frame


class _Session:
    """The Spark session, asked for only by what needs one."""

    def __getattr__(self, name: str) -> Any:
        from pyspark.sql import SparkSession

        return getattr(SparkSession.builder.getOrCreate(), name)


class KnownEngine(SparkDFExecutionEngine):
    """Spark's engine, which looks first at what is known of the table.

    Great Expectations asks for everything that a metric rests on before it asks for the metric. Here that has to wait
    (`_LATER`) until a metric is wanted that nobody knows; so a suite that a profile answers never opens the frame.
    """

    def __init__(self, **_: Any) -> None:
        super().__init__(persist=False, spark=_Session())
        self._values: dict[Any, Any] = {}
        self._errors: dict[Any, MetricResolutionError] = {}

    def get_batch_data_and_markers(self, batch_spec: Any) -> tuple[SparkDFBatchData, BatchMarkers]:
        table = batch_spec.batch_data
        batch_spec.batch_data = "SparkDataFrame"
        return _Rows(self, table), BatchMarkers({"ge_load_time": _AT_NEED})

    def resolve_metrics(
        self,
        metrics_to_resolve: Iterable[MetricConfiguration],
        metrics: dict[Any, Any] | None = None,  # noqa: ARG002  # the engine keeps them itself
        runtime_configuration: dict[str, Any] | None = None,
    ) -> dict[Any, Any]:
        """The values of metrics by their ids.

        Raises:
            MetricResolutionError: one could not be computed. The others are kept for when they are asked for again.
        """
        asked = list(metrics_to_resolve)
        wanted = [metric for metric in asked if metric.metric_name in self._table.wanted]
        open_ = [metric for metric in wanted if not self._know(metric)]
        # Examples last: where the count is 0 there are none to look for.
        examples = [metric for metric in open_ if metric.metric_name.endswith(_VALUES)]
        self._compute([self._count_of(metric) for metric in examples], runtime_configuration)
        self._compute([metric for metric in open_ if not self._know(metric)], runtime_configuration)
        failed = [metric for metric in wanted if metric.id in self._errors]
        if failed:
            error = self._errors[failed[0].id]
            same = tuple(metric for metric in failed if self._errors[metric.id] is error)
            raise MetricResolutionError(message=str(error), failed_metrics=same) from error
        return {metric.id: self._values.get(metric.id, _LATER) for metric in asked}

    @property
    def _table(self) -> Table:
        rows = self.batch_manager.active_batch_data
        if not isinstance(rows, _Rows):
            raise TypeError("no table was given to judge")
        return rows.table

    def _know(self, metric: MetricConfiguration) -> bool:
        """Whether it has a value or an error; one that is known to the table gets its value here."""
        if metric.id in self._values or metric.id in self._errors:
            return True
        table, name, domain = self._table, metric.metric_name, metric.metric_domain_kwargs
        if name.endswith(_NEVER):
            self._values[metric.id] = None
            return True
        if name.endswith(_VALUES) and (
            _columns(domain) & table.private or self._values.get(self._count_of(metric).id) == 0
        ):
            self._values[metric.id] = []
            return True
        found = table.known.answer(name, domain, metric.metric_value_kwargs) if table.known else None
        if found:
            self._values[metric.id] = found.value
        return found is not None

    def _count_of(self, metric: MetricConfiguration) -> MetricConfiguration:
        options = {key: value for key, value in metric.metric_value_kwargs.items() if key != "result_format"}
        count = MetricConfiguration(
            metric_name=metric.metric_name.removesuffix(_VALUES) + _COUNT,
            metric_domain_kwargs=metric.metric_domain_kwargs,
            metric_value_kwargs=options,
        )
        ValidationGraph(self).build_metric_dependency_graph(count)  # which tells it what it rests on
        return count

    def _compute(self, metrics: list[MetricConfiguration], runtime_configuration: dict[str, Any] | None) -> None:
        """Compute these and all that they rest on from the data, each once, as many at a time as can be."""
        left: dict[Any, MetricConfiguration] = {}
        for metric in metrics:
            self._gather(metric, left)
        while left:
            self._fail_dependents(left)
            ready = [one for one in left.values() if all(on.id in self._values for on in _rests_on(one))]
            if not ready:
                return
            try:
                self._values |= super().resolve_metrics(ready, self._values, runtime_configuration)
            except MetricResolutionError as err:
                self._errors |= {metric.id: err for metric in err.failed_metrics}
            left = {id_: one for id_, one in left.items() if id_ not in self._values and id_ not in self._errors}

    def _gather(self, metric: MetricConfiguration, left: dict[Any, MetricConfiguration]) -> None:
        if metric.id in left or metric.id in self._values or metric.id in self._errors:
            return
        for dependency in _rests_on(metric):
            self._gather(dependency, left)
        left[metric.id] = metric

    def _fail_dependents(self, left: dict[Any, MetricConfiguration]) -> None:
        for id_, metric in list(left.items()):  # what a metric rests on comes before it
            causes = [self._errors[on.id] for on in _rests_on(metric) if on.id in self._errors]
            if causes:
                self._errors[id_] = causes[0]
                del left[id_]


class KnownAsset(DataFrameAsset):  # type: ignore[type-arg]  # generic at run time only by its own kind
    """A table that is given as `Table` where Great Expectations expects a data frame."""

    # Great Expectations finds a kind of asset, and of source, by its type.
    type: Literal["known"] = "known"  # type: ignore[assignment]

    @staticmethod
    def is_spark_data_frame(df: Any) -> TypeGuard[Table]:  # type: ignore[override]  # which is what it is for
        return isinstance(df, Table)


class KnownDatasource(SparkDatasource):
    """A source of such tables."""

    asset_types: ClassVar[list[type[DataAsset[Any, Any]]]] = [KnownAsset]
    execution_engine_override: ClassVar[type[KnownEngine]] = KnownEngine

    type: Literal["known_spark"] = "known_spark"  # type: ignore[assignment]
    assets: list[KnownAsset] = []  # type: ignore[assignment]  # noqa: RUF012  # pydantic copies it

    def test_connection(self, test_assets: bool = True) -> None:
        """Nothing: there may be no Spark yet, and no need of it."""

    def add_table(self, name: str) -> KnownAsset:
        asset: KnownAsset = self._add_asset(KnownAsset(name=name))
        return asset


_LATER = object()
_AT_NEED = "when needed"


def _columns(domain: dict[str, Any]) -> set[str]:
    named = {domain.get(key) for key in ("column", "column_A", "column_B")}
    return {name for name in (*named, *(domain.get("column_list") or ())) if name}


def _rests_on(metric: MetricConfiguration) -> list[MetricConfiguration]:
    return list((metric.metric_dependencies or {}).values())
