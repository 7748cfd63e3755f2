"""A figure: what is measured, the bar it is held to, and what was found."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.workplace import Workplace


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """Something to measure.

    Attributes:
        name: Ends in its unit.
        what: What it is, for the page.
        bar: The most it may be; None where nothing is promised.
    """

    name: str
    what: str
    bar: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A figure and its samples; none where it could not be measured, and `note` says why."""

    figure: Figure
    samples: Sequence[float] = ()
    peer: float | None = None
    note: str = ""

    @property
    def ours(self) -> float | None:
        return statistics.median(self.samples) if self.samples else None

    @property
    def met(self) -> bool | None:
        """Whether the bar is met; None where there is no bar, or no measurement."""
        return None if self.ours is None or self.figure.bar is None else self.ours <= self.figure.bar

    def line(self) -> dict[str, Any]:
        """What is printed of it; `sense` says how `ours` must stand to `bar`."""
        return {
            "name": self.figure.name,
            "ours": self.ours,
            "peer": self.peer,
            "ratio": self.ours / self.peer if self.ours is not None and self.peer else None,
            "bar": self.figure.bar,
            "met": self.met,
            "sense": "at most",
        }


class Unmeasurable(Exception):  # noqa: N818  # a fact about this machine, not an error
    """Why this machine cannot show a figure."""


Samples = Mapping[str, Sequence[float]]


@dataclass(frozen=True, slots=True)
class Benchmark:
    """Figures that come of one measurement."""

    measure: Callable[[Workplace], Samples]
    figures: tuple[Figure, ...]
