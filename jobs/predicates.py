"""Spark's predicates on Arrow rows, where the two cannot differ: comparisons of columns with constants, and/or/not."""

import datetime as dt
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import reduce
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F  # noqa: N812  # the name all of Spark's users know it by

_EPOCH = dt.date(1970, 1, 1)
_KINDS = {
    "string": pa.string(),
    "double": pa.float64(),
    "tinyint": pa.int8(),
    "smallint": pa.int16(),
    "int": pa.int32(),
    "bigint": pa.int64(),
    "date": pa.date32(),
}
_COMPARED = {
    "EqualTo": "==",
    "LessThan": "<",
    "LessThanOrEqual": "<=",
    "GreaterThan": ">",
    "GreaterThanOrEqual": ">=",
}
_TURNED = {"==": "==", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_ARROW = {"==": pc.equal, "<": pc.less, "<=": pc.less_equal, ">": pc.greater, ">=": pc.greater_equal}


class NotPlainError(Exception):
    """Why the rows have to go through Spark."""


@dataclass(frozen=True, slots=True)
class Predicate:
    """A node of a predicate.

    Attributes:
        does: `and`, `or`, `not`, `is null`, `in` or a comparison.
        parts: Of the first three.
        column, values: Of the others: the column, and the constants that it is compared with.
    """

    does: str
    parts: tuple["Predicate", ...] = ()
    column: str = ""
    values: tuple[Any, ...] = ()

    def __call__(self, rows: pa.RecordBatch | pa.Table) -> Any:
        """Whether it holds for each row; null where Spark's would be."""
        if self.does in ("and", "or"):
            return reduce(pc.and_kleene if self.does == "and" else pc.or_kleene, (part(rows) for part in self.parts))
        if self.does == "not":
            return pc.invert(self.parts[0](rows))
        column = rows.column(self.column)
        if self.does == "is null":
            return pc.is_null(column)
        if isinstance(column, pa.Array) and pa.types.is_dictionary(column.type):
            return self._compared(column.dictionary).take(column.indices)
        return self._compared(column)

    def _compared(self, column: Any) -> Any:
        if self.does == "in" and pa.types.is_floating(column.type):  # by value: there are two zeros
            return reduce(pc.or_kleene, (pc.equal(column, pa.scalar(value, column.type)) for value in self.values))
        if self.does == "in":
            found = pc.is_in(column, pa.array(self.values, column.type))
            return pc.if_else(pc.is_valid(column), found, pa.scalar(None, pa.bool_()))
        holds = _ARROW[self.does](column, pa.scalar(self.values[0], column.type))
        if self.does.startswith(">") and pa.types.is_floating(column.type):
            return pc.or_(holds, pc.is_nan(column))  # to Spark, NaN is above all numbers
        return holds


def arrow_predicate(rows: DataFrame, sql: str) -> Predicate:
    """The predicate, as Spark's analysis understands it over the columns of `rows`.

    Raises:
        NotPlainError: Arrow could give another answer.
    """
    plan = rows.select(F.expr(sql).alias("holds"))._jdf.queryExecution().analyzed()
    return _predicate(next(items(plan.projectList())).child())


def kind_of(node: Any) -> str:
    """The name of a class of Spark's, as it is in Scala."""
    return str(node.getClass().getSimpleName())


def items(sequence: Any) -> Iterator[Any]:
    """What a sequence of Scala's holds."""
    return (sequence.apply(index) for index in range(sequence.size()))


def _predicate(node: Any) -> Predicate:
    kind = kind_of(node)
    if kind in ("And", "Or"):
        return Predicate(kind.lower(), (_predicate(node.left()), _predicate(node.right())))
    if kind == "Not":
        return Predicate("not", (_predicate(node.child()),))
    if kind in ("IsNull", "IsNotNull"):
        is_null = Predicate("is null", column=_column(node.child())[0])
        return is_null if kind == "IsNull" else Predicate("not", (is_null,))
    if kind == "In":
        column, wanted = _column(node.value())
        return Predicate("in", column=column, values=tuple(_constant(one, wanted) for one in items(node.list())))
    if kind not in _COMPARED:
        raise NotPlainError(f"{kind} in a predicate")
    does, left, right = _COMPARED[kind], node.left(), node.right()
    if left.foldable():
        does, left, right = _TURNED[does], right, left
    column, wanted = _column(left)
    return Predicate(does, column=column, values=(_constant(right, wanted),))


def _column(node: Any) -> tuple[str, str]:
    """The name of a column and of its type."""
    kind = str(node.dataType().simpleString())
    if kind_of(node) != "AttributeReference" or kind not in _KINDS:
        raise NotPlainError(f"{node.sql()} in a predicate")
    return str(node.name()), kind


_READ: dict[str, Callable[[Any], Any]] = {
    "string": lambda value: str(value.toString()),
    "date": lambda value: _EPOCH + dt.timedelta(value),
}


def _constant(node: Any, kind: str) -> Any:
    """The value of an expression without columns, of that type."""
    if not node.foldable() or str(node.dataType().simpleString()) != kind:
        raise NotPlainError(f"{node.sql()} in a predicate")
    value = node.eval(None)
    if value is None or value != value:  # NULL, NaN
        raise NotPlainError(f"{node.sql()} in a predicate")
    return _READ[kind](value) if kind in _READ else value
