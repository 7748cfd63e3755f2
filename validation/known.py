"""What is known of a table without its rows, as answers to Great Expectations' metrics."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from validation.known_column import Column, Found, Options
from validation.known_rows import rows_metric
from validation.known_values import column_metric
from validation.profile import Profile

_OF_TABLE = {"batch_id"}
_OF_COLUMN = {"batch_id", "column"}


@dataclass(frozen=True)
class Known:
    """A table without its rows.

    Attributes:
        schema: Names and types of all its columns, in order.
        profile: Of the table; a column that it leaves out is for the data to answer.
        unique: Columns that are proven to hold neither a null nor a value twice, whether or not they have a profile.
    """

    schema: pa.Schema
    profile: Profile
    unique: frozenset[str] = frozenset()

    def answer(self, metric: str, domain: Mapping[str, Any], options: Options) -> Found | None:
        """The metric's value as Great Expectations computes it on Spark; None where only the data can tell.

        Counts, extremes and values are the same to the bit, mean and deviation to the rounding of a sum, which on Spark
        depends on its order. Quantiles and medians, of which a profile has estimates, are never answered.

        Args:
            metric: Its name: `column.max`, `column_values.between.unexpected_count`.
            domain: What it is of: `column`. Anything more, such as a `row_condition`, is for the data.
            options: Its own arguments: `min_value`, `value_set`.
        """
        given = {key for key, value in domain.items() if value is not None}
        if given <= _OF_TABLE:
            return self._of_table(metric)
        name = domain.get("column")
        if name is None or not given <= _OF_COLUMN or self.schema.names.count(name) != 1:
            return None
        if name in self.unique and metric in _NONE_UNEXPECTED:
            return Found(_NONE_UNEXPECTED[metric])
        if name not in self.profile.columns:
            return None
        column = Column(self.schema.field(name).type, self.profile.columns[name], self.profile.rows)
        return column_metric(column, metric, options) or rows_metric(column, metric, options)

    def _of_table(self, metric: str) -> Found | None:
        if metric == "table.row_count":
            return Found(self.profile.rows)
        if metric == "table.columns":
            return Found(list(self.schema.names))
        return Found(len(self.schema.names)) if metric == "table.column_count" else None


_NONE_UNEXPECTED: dict[str, Any] = {
    f"column_values.{condition}.{wanted}": value
    for condition in ("unique", "nonnull")
    for wanted, value in (("unexpected_count", 0), ("unexpected_values", []))
}
