"""The verification report as one HTML page that needs no network: what was decided, and why."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import jinja2
import numpy as np
from markupsafe import Markup

from schemas.report import (
    CalibrationMeasure,
    DriftMeasure,
    Override,
    Report,
    SliceMeasure,
    Verdict,
)
from schemas.run import RunManifest, SourceFile
from validation import sketch
from validation.meaning import meaning
from validation.profile import NumericProfile, Profile

BINS = 25
MAX_GROUPS = 12
_TICKS = 5
_LARGE, _TOO_LARGE = 1e4, 1e15  # between them, a number is written out
_FIGURES = ("mean", "smallest", "10 % below", "median", "90 % below", "largest")
_NONE = "\N{EN DASH}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """Share of the rows in one bin of a distribution, now and in the live release."""

    low: float
    high: float
    now: float
    live: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """One output, drawn and in figures."""

    output: str
    bars: tuple[Bar, ...]
    ticks: tuple[float, ...]
    figures: tuple[tuple[str, float | None, float | None], ...]

    @property
    def peak(self) -> float:
        return max(max(bar.now, bar.live or 0) for bar in self.bars)

    @property
    def has_live(self) -> bool:
        return self.bars[0].live is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """The groups of one column or pair: those that moved most first, a small group's move counting for less."""

    name: str
    groups: tuple[SliceMeasure, ...]
    more: int

    @property
    def has_rates(self) -> bool:
        return any(group.positive_rate for group in self.groups)

    @property
    def reach(self) -> float:
        """Where the page's axis ends."""
        return max(max(group.mean.high, group.live_mean or 0) for group in self.groups) or 1.0

    @property
    def start(self) -> float:
        return min(0.0, *(group.mean.low for group in self.groups))


@cache
def _template() -> jinja2.Template:
    """Compiled once: a backfill writes hundreds of pages."""
    text = files("validation").joinpath("report.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(number=_number, percent=_percent, size=_size, breakable=_breakable)
    return environment.from_string(text)


def render_page(
    report: Report,
    manifest: RunManifest,
    profile: Profile | None,
    live: Profile | None,
    *,
    override: Override | None = None,
) -> str:
    """The page of one run.

    Args:
        report: What was decided.
        manifest: What was run.
        profile: Of the run's predictions; None where it could not be made.
        live: Of the live release's; None where there is none.
        override: Of a blocked run that was let through.
    """
    outputs = manifest.output_names
    return _template().render(
        report=report,
        run=manifest,
        override=override,
        title=_title(report, override),
        summary=_summary(report, override),
        failed=report.failures,
        warned=[check for check in report.checks if check.verdict is Verdict.WARN],
        meaning=meaning,
        distributions=[one for name in outputs if (one := _distribution(name, profile, live))],
        drift=_drift(report.drift),
        most=MAX_GROUPS,
        slices=_slices(report.slices),
        calibration=_calibration(report.calibration),
        sources=_sources(manifest.sources),
    )


def _title(report: Report, override: Override | None) -> str:
    if report.verdict is Verdict.FAIL:
        return "Blocked, then let through" if report.lets_through(override) else "Blocked"
    return "Passed" if report.verdict is Verdict.PASS else "Passed with warnings"


def _summary(report: Report, override: Override | None) -> str:
    total = len(report.checks)
    counts = Counter(check.verdict for check in report.checks)
    if report.verdict is not Verdict.FAIL:
        warned = (
            f"{_checks(counts[Verdict.WARN])} to look at, {total} made"
            if counts[Verdict.WARN]
            else f"All {total} checks passed"
        )
        return f"{warned}; the run may be published."
    if override and report.lets_through(override):
        return f"{counts[Verdict.FAIL]} of {_checks(total)} failed; {override.by} overrode that: {override.reason}"
    left = "the live release was left alone" if report.compared_with else "nothing was published"
    if not total:
        return f"No check was made; {left}."
    if not counts[Verdict.FAIL]:
        return f"A required check gave no result; {left}."
    return f"{counts[Verdict.FAIL]} of {_checks(total)} failed; {left}."


def _checks(count: int) -> str:
    return f"{count} check" if count == 1 else f"{count} checks"


def _distribution(output: str, profile: Profile | None, live: Profile | None) -> Distribution | None:
    now, before = _numbers(profile, output), _numbers(live, output)
    if now is None:
        return None
    sides = [now] if before is None else [now, before]
    edges = _edges(sides)
    # The first and the last bar also hold what lies beyond the axis.
    inner = np.array([-np.inf, *edges[1:-1], np.inf])
    shares = [sketch.counts_between(side.sketch, inner) / side.count for side in sides]
    lived = shares[1].tolist() if before else [None] * BINS
    pairs = zip(edges[:-1], edges[1:], shares[0].tolist(), lived, strict=True)
    return Distribution(
        output=output,
        bars=tuple(Bar(low=low, high=high, now=share, live=other) for low, high, share, other in pairs),
        ticks=tuple(edges[:: BINS // _TICKS]),
        figures=tuple(zip(_FIGURES, _figures(now), _figures(before), strict=True)),
    )


def _numbers(profile: Profile | None, column: str) -> NumericProfile | None:
    found = profile.columns.get(column) if profile else None
    return found if isinstance(found, NumericProfile) and found.count else None


def _figures(side: NumericProfile | None) -> list[float | None]:
    if side is None:
        return [None] * len(_FIGURES)
    return [side.mean, *(_quantile(side, q) for q in (0.0, 0.1, 0.5, 0.9, 1.0))]


def _quantile(side: NumericProfile, q: float) -> float:
    # A sketch may answer up to 1 % beyond the numbers it has seen.
    found = sketch.quantile(side.sketch, q)
    return found if side.min is None or side.max is None else min(max(found, side.min), side.max)


def _edges(sides: Sequence[NumericProfile]) -> list[float]:
    """Evenly spaced round bounds around all but the outermost thousandths; from 0 unless that is far away."""
    low = min(_quantile(side, 0.001) for side in sides)
    high = max(_quantile(side, 0.999) for side in sides)
    low, high = min(low, 0.0) if low < high / 2 else low, max(high, 0.0)
    step = 10.0 ** math.floor(math.log10((high - low or abs(high) or 1.0) / _TICKS))
    while True:
        for factor in (1, 2, 2.5, 5):
            start = math.floor(low / (step * factor)) * step * factor
            end = start + _TICKS * step * factor
            if end >= high:
                return [float(edge) for edge in np.linspace(start, end, BINS + 1)]
        step *= 10


def _drift(measures: Sequence[DriftMeasure]) -> dict[str, list[DriftMeasure]]:
    """Baseline in words -> its columns, scores first, then those that moved most."""
    names = {"live": "against the live release", "training": "against training"}
    found: dict[str, list[DriftMeasure]] = {}
    for one in sorted(measures, key=lambda one: (one.baseline, one.kind != "score", -one.js, one.column)):
        found.setdefault(names[one.baseline], []).append(one)
    return found


def _slices(measures: Sequence[SliceMeasure]) -> list[Slice]:
    groups: dict[tuple[str, ...], list[SliceMeasure]] = {}
    for one in measures:
        groups.setdefault(one.columns, []).append(one)
    found = []
    for columns, every in groups.items():
        every.sort(key=lambda one: (-abs(_moved(one) or 0) * math.sqrt(one.rows), -one.rows, one.values))
        name = " and ".join(columns)
        found.append(Slice(name=name, groups=tuple(every[:MAX_GROUPS]), more=len(every[MAX_GROUPS:])))
    return found


def _moved(one: SliceMeasure) -> float | None:
    return None if one.live_mean is None else one.mean.value - one.live_mean


def _calibration(measures: Sequence[CalibrationMeasure]) -> list[CalibrationMeasure]:
    """All rows first, then the groups that are furthest off."""

    def off(one: CalibrationMeasure) -> float:
        return max(one.observed.low - one.predicted, one.predicted - one.observed.high, 0.0)

    return sorted(measures, key=lambda one: (bool(one.columns), -off(one), -one.rows))[:MAX_GROUPS]


def _sources(read: Sequence[SourceFile]) -> dict[str, list[SourceFile]]:
    return {name: [file for file in read if file.source == name] for name in sorted({file.source for file in read})}


def _number(value: float | None) -> str:
    if value is None:
        return _NONE
    is_large = _LARGE <= abs(value) < _TOO_LARGE
    return f"{value:,}" if isinstance(value, int) else f"{value:,.0f}" if is_large else f"{value:.4g}"


def _percent(share: float) -> str:
    return f"{share:.1%}"


def _breakable(name: str) -> Markup:
    return Markup("_<wbr>").join(name.split("_"))


def _size(size_bytes: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if size_bytes < 1000:
            return f"{size_bytes:.3g} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.3g} TB"
