"""A figure: what is measured, what it is compared with, the bar it is held to, and what was found."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from benchmarks.workplace import Workplace


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """Something to measure.

    Attributes:
        name: Ends in its unit.
        what: What it is, for the page; of a comparison, also what the peer is.
        bar: What it is held to; None where nothing is promised.
        judged: Whether the bar is for what is ours, or for its ratio to the peer.
        sense: On which side of the bar is good.
        why: Why the bar is missed, where it is known to be.
    """

    name: str
    what: str
    bar: float | None = None
    judged: Literal["ours", "ratio"] = "ours"
    sense: Literal["at most", "at least"] = "at most"
    why: str = ""


@dataclass(frozen=True, slots=True)
class Compared:
    """Samples of ours and of a peer, measured in turns.

    Attributes:
        note: How they were measured, and why a bar may be missed.
    """

    ours: Sequence[float]
    peers: Sequence[float] = ()
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A figure and its samples; none where it could not be measured, and `note` says why."""

    figure: Figure
    samples: Sequence[float] = ()
    peers: Sequence[float] = ()
    note: str = ""

    @property
    def ours(self) -> float | None:
        return statistics.median(self.samples) if self.samples else None

    @property
    def peer(self) -> float | None:
        return statistics.median(self.peers) if self.peers else None

    @property
    def ratio(self) -> float | None:
        """Ours to the peer's."""
        return self.ours / self.peer if self.ours is not None and self.peer else None

    @property
    def judged(self) -> float | None:
        """What the bar is for."""
        return self.ratio if self.figure.judged == "ratio" else self.ours

    @property
    def met(self) -> bool | None:
        """Whether the bar is met; None where there is no bar, or no measurement."""
        if self.judged is None or self.figure.bar is None:
            return None
        return self.judged <= self.figure.bar if self.figure.sense == "at most" else self.judged >= self.figure.bar

    def line(self) -> dict[str, Any]:
        """What is printed of it; `sense` says how the `judged` one of `ours` and `ratio` must stand to `bar`."""
        return {
            "name": self.figure.name,
            "ours": self.ours,
            "peer": self.peer,
            "ratio": self.ratio,
            "bar": self.figure.bar,
            "met": self.met,
            "judged": self.figure.judged,
            "sense": self.figure.sense,
            "note": self.note,
        }


class Unmeasurable(Exception):  # noqa: N818  # a fact about this machine, not an error
    """Why this machine cannot show a figure."""


Samples = Mapping[str, Sequence[float] | Compared]


@dataclass(frozen=True, slots=True)
class Benchmark:
    """Figures that come of one measurement."""

    measure: Callable[[Workplace], Samples]
    figures: tuple[Figure, ...]
