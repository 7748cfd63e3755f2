"""Suites run by Great Expectations' checkpoints, and the pages of its Data Docs, without values that are private."""

import logging
from collections.abc import Collection, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, Literal

from great_expectations.checkpoint.actions import ActionContext, UpdateDataDocsAction, ValidationAction
from great_expectations.checkpoint.checkpoint import Checkpoint, CheckpointResult
from great_expectations.core.expectation_suite import ExpectationSuite
from great_expectations.core.expectation_validation_result import ExpectationValidationResult
from great_expectations.core.run_identifier import RunIdentifier
from great_expectations.core.validation_definition import ValidationDefinition
from great_expectations.data_context.data_context.context_factory import get_context
from great_expectations.data_context.types.base import ProgressBarsConfig

from schemas.expectations import Expectation
from validation.gx_engine import KnownDatasource, Table
from validation.gx_suite import INDEX, build

EXAMPLES = 5
_RESULT_FORMAT = {"result_format": "SUMMARY", "partial_unexpected_count": EXAMPLES}
_SITE = "data_docs"
WITHHELD = "an error that is withheld, because it may tell a private value"
# What a result says of a column without a value of it.
_COUNTS = {
    "element_count",
    "missing_count",
    "missing_percent",
    "unexpected_count",
    "unexpected_percent",
    "unexpected_percent_nonmissing",
    "unexpected_percent_total",
}
_COUNTING = {
    "expect_column_proportion_of_non_null_values_to_be_between",
    "expect_column_proportion_of_unique_values_to_be_between",
    "expect_column_top_value_share_to_be_at_most",
    "expect_column_unique_value_count_to_be_between",
}


@dataclass(frozen=True)
class Suite:
    """Expectations as declared, and what they judge."""

    expectations: Sequence[Expectation]
    table: Table


class PrivateDataDocs(UpdateDataDocsAction):
    """Great Expectations' own action, on results that have been rid of private values."""

    type: Literal["private_data_docs"] = "private_data_docs"  # type: ignore[assignment]  # found by its type
    private: list[str]

    def run(self, checkpoint_result: CheckpointResult, action_context: ActionContext | None = None) -> dict[Any, Any]:
        store = self._data_context.validation_results_store
        for key, result in checkpoint_result.run_results.items():
            shown = deepcopy(result)
            for one in shown.results:
                _prepare(one, shows_values(one, self.private))
            store.set(key, shown)  # the pages are built from the store
        return dict(super().run(checkpoint_result, action_context))


def run_checkpoints(
    suites: Mapping[str, Suite], *, run_name: str, private: Collection[str], site: Path | None
) -> dict[str, dict[int, ExpectationValidationResult]]:
    """The result of each expectation, by suite and by its place there.

    Args:
        suites: By name; each is a checkpoint of its own.
        run_name: What Data Docs call this evaluation.
        private: Columns whose values are not shown in Data Docs.
        site: Where Data Docs are written, as Great Expectations makes them; None: nowhere.
    """
    # A context of its own for every call: a shared one mixes up the tables of two threads without a word.
    # It sets this logger to INFO by itself, to tell of its temporary folders.
    logging.getLogger("great_expectations.data_context.types.base").setLevel(logging.WARNING)
    context = get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False, metric_calculations=False)
    actions: list[ValidationAction] = []
    if site:
        backend = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(site.resolve())}
        index = {"class_name": "DefaultSiteIndexBuilder"}
        context.add_data_docs_site(
            _SITE, {"class_name": "SiteBuilder", "store_backend": backend, "site_index_builder": index}
        )
        actions = [PrivateDataDocs(name=_SITE, site_names=[_SITE], private=sorted(private))]
    return {name: _run(context, name, suite, run_name, actions) for name, suite in suites.items()}


def shows_values(result: ExpectationValidationResult, private: Collection[str]) -> bool:
    """Whether what a result says may be shown: it is of no private column, or a count or share, and of no query."""
    declared = result.expectation_config
    if declared is None:
        return False
    kind, kwargs = declared.type, declared.kwargs
    columns = {kwargs.get(key) for key in ("column", "column_A", "column_B")} | set(kwargs.get("column_list") or ())
    return kind in _COUNTING or (not columns & set(private) and "query" not in kind)


def _run(
    context: Any, name: str, suite: Suite, run_name: str, actions: list[ValidationAction]
) -> dict[int, ExpectationValidationResult]:
    source: KnownDatasource = context.data_sources.add_known_spark(name)
    batch = source.add_table(name).add_batch_definition_whole_dataframe("all")
    built = [build(expectation, index) for index, expectation in enumerate(suite.expectations)]
    table, engine = suite.table, source.get_execution_engine()
    for one in built:
        needs = one.get_validation_dependencies(engine, {"result_format": _RESULT_FORMAT})
        table.wanted.update(metric.metric_name for metric in needs.get_metric_configurations())
    definition = ValidationDefinition(
        name=name, data=batch, suite=context.suites.add(ExpectationSuite(name=name, expectations=built))
    )
    checkpoint = context.checkpoints.add(
        Checkpoint(
            name=name,
            validation_definitions=[context.validation_definitions.add(definition)],
            actions=actions,
            result_format=_RESULT_FORMAT,
        )
    )
    answer = checkpoint.run(batch_parameters={"dataframe": table}, run_id=RunIdentifier(run_name=run_name))
    results = [result for suite_result in answer.run_results.values() for result in suite_result.results]
    return {result.expectation_config.meta[INDEX]: result for result in results if result.expectation_config}


def _prepare(result: ExpectationValidationResult, shown: bool) -> None:
    """Take out of a result what may not be shown, markup, and the traces of errors, which nobody reads there."""
    if not shown:
        kept = _COUNTS if "element_count" in result.result else set()
        result.result = {key: value for key, value in result.result.items() if key in kept}
        if not kept:
            result.result["observed_value"] = "withheld"
    elif "unexpected_count" in result.result and "unexpected_percent" not in result.result:
        # Of distinct values; Great Expectations cannot show its own result.
        result.result = {"observed_value": result.result.get("partial_unexpected_list")}
    result.result = _escaped(result.result)
    if isinstance(seen := result.result.get("observed_value"), list):
        # As text, not as Python writes a list: what an erasure looks for is the value itself.
        result.result["observed_value"] = ", ".join(map(str, seen))
    raised = raised_message(result)
    if raised is not None:
        told = raised if shown else WITHHELD
        result.exception_info = {"raised_exception": True, "exception_message": told, "exception_traceback": ""}


def _escaped(value: Any) -> Any:
    """The same with markup as text: Great Expectations writes values of the data into its pages as they are."""
    if isinstance(value, str):
        return escape(value)
    if isinstance(value, Mapping):
        return {key: _escaped(each) for key, each in value.items()}
    return [_escaped(each) for each in value] if isinstance(value, list | tuple | set) else value


def raised_message(result: ExpectationValidationResult) -> str | None:
    """The first line of what was raised instead of an answer."""
    info = result.exception_info or {}
    # Either one flat record, or one for each metric that failed.
    raised = [each for each in (info, *info.values()) if isinstance(each, Mapping) and each.get("raised_exception")]
    return str(raised[0]["exception_message"]).strip().partition("\n")[0] if raised else None
