"""Predictions of an earlier release against what came of them: over all rows, and in each declared group."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.checks import Calibration
from schemas.report import CalibrationMeasure, CheckResult, Interval
from validation.gate import at_levels, in_words, not_evaluated
from validation.grouping import Grouping
from validation.intervals import mean_interval, share_interval
from validation.moments import GroupMoments, Moments
from validation.sketch import Floats, bins_of

MAX_SHOWN = 50
DECILES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationGroup:
    """Rows whose label is known.

    Attributes:
        columns: What is grouped by; none for all rows.
        values: The group's value of each.
        rows: How many they are.
        predicted: Mean prediction.
        label: Moments of the label.
    """

    columns: tuple[str, ...]
    values: tuple[str, ...]
    rows: int
    predicted: float
    label: Moments


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationProfile:
    """What is known of an earlier release's outcomes.

    Attributes:
        by: What was grouped by.
        groups: Those with a known label: all rows first, then by group-by and values.
        unknown: Rows whose label is null: not known yet.
        unusable: Rows whose label is known, where it or the prediction is no finite number.
        binary: Whether every label is 0 or 1.
        error: Expected calibration error over deciles of the prediction: the mean over all rows of the distance
            between mean prediction and mean label of their decile. None where no label is known.

    Source:
        Naeini, Cooper, Hauskrecht, Obtaining well calibrated probabilities using Bayesian binning, AAAI 2015.
    """

    by: tuple[tuple[str, ...], ...]
    groups: tuple[CalibrationGroup, ...]
    unknown: int
    unusable: int
    binary: bool
    error: float | None

    def of(self, columns: tuple[str, ...]) -> list[CalibrationGroup]:
        """The groups of one group-by; with no columns, all rows as one group."""
        return [group for group in self.groups if group.columns == columns]


def measure_calibration(
    batches: Iterable[pa.RecordBatch | pa.Table],
    by: Sequence[tuple[str, ...]] = (),
    *,
    prediction: str = "prediction",
    label: str = "label",
) -> CalibrationProfile:
    """Predictions and labels, over all rows and in each group, from one scan; memory is bounded by one batch.

    Args:
        batches: Hold prediction, label and the columns that are grouped by; a null label is not known yet.
        by: What to group by: columns, or pairs of them (`Slices.groups`).
        prediction: Name of its column.
        label: Name of its column.

    Raises:
        InputError: a column, or a pair, has more than 1,000 groups.
        ValueError: numbers are too large for a mean.
    """
    meter = _Meter(tuple(by))
    for each in batches:
        for batch in each.to_batches() if isinstance(each, pa.Table) else (each,):
            meter.add(batch, batch.column(prediction), batch.column(label))
    return meter.profile()


def calibration_measures(profile: CalibrationProfile, *, confidence: float = 0.95) -> tuple[CalibrationMeasure, ...]:
    """All rows, then of each group-by at most 50 groups, the largest first; none where no label is known."""
    found = []
    for columns in ((), *profile.by):
        largest = sorted(profile.of(columns), key=lambda group: (-group.rows, group.values))[:MAX_SHOWN]
        found += [_measure(group, _label(group, profile, confidence)) for group in largest]
    return tuple(found)


def check_calibration(
    profile: CalibrationProfile, declared: Calibration, *, run_id: str, confidence: float = 0.95
) -> list[CheckResult]:
    """One result for all rows and one for each group-by, of its group that is furthest off.

    A group is off by the distance of its mean prediction from the interval of its mean label: 0 inside of it.

    Args:
        profile: Of the earlier release.
        declared: Levels, and how many labels a group needs.
        run_id: Of the earlier release.
        confidence: Of the labels' intervals.
    """
    return [_check(columns, profile, declared, run_id, confidence) for columns in ((), *profile.by)]


def _check(
    columns: tuple[str, ...], profile: CalibrationProfile, declared: Calibration, run_id: str, confidence: float
) -> CheckResult:
    name = f"calibration by {' and '.join(columns)}" if columns else "calibration"
    expected = f"means of {declared.min_rows} predictions or more are off by {in_words(declared.error)}"
    groups = profile.of(columns)
    enough = [group for group in groups if group.rows >= declared.min_rows]
    problem = _problem(profile, groups, declared.min_rows, run_id) if profile.unusable or not enough else ""
    if problem:
        return not_evaluated(name, "calibration", observed=problem, expected=expected)
    off = [(_distance(group.predicted, label := _label(group, profile, confidence)), group, label) for group in enough]
    most, worst, label = max(off, key=lambda found: (found[0], found[1].rows, found[1].values))
    observed = (
        f"{', '.join(worst.values) or 'all rows'} of {run_id} is off by {most:.3f}: {worst.rows:,} rows, mean "
        f"prediction {worst.predicted:.3f}, mean label {label.value:.3f} [{label.low:.3f}, {label.high:.3f}]; "
    )
    if columns:
        observed += f"{len(enough)} of {len(groups)} groups judged"
    else:
        observed += f"over deciles {profile.error or 0.0:.3f}; {profile.unknown:,} labels are not known yet"
    verdict = at_levels(most, declared.error)
    return CheckResult(name=name, family="calibration", verdict=verdict, observed=observed, expected=expected)


def _measure(group: CalibrationGroup, label: Interval) -> CalibrationMeasure:
    return CalibrationMeasure(
        columns=group.columns, values=group.values, rows=group.rows, predicted=group.predicted, observed=label
    )


def _problem(profile: CalibrationProfile, groups: Sequence[CalibrationGroup], min_rows: int, run_id: str) -> str:
    if profile.unusable:
        return f"{profile.unusable:,} rows of {run_id} have a prediction or a label that is no finite number"
    known = sum(group.rows for group in groups)
    if not known:
        return f"no label of {run_id} is known"
    return f"no group has {min_rows} rows whose label is known: {run_id} has {known:,}, in {len(groups)} groups"


def _label(group: CalibrationGroup, profile: CalibrationProfile, confidence: float) -> Interval:
    mean, variance = group.label.mean or 0.0, group.label.variance or 0.0
    if profile.binary:
        return share_interval(round(mean * group.rows), group.rows, confidence)
    return mean_interval(mean, variance, group.rows, confidence)


def _distance(value: float, interval: Interval) -> float:
    return max(interval.low - value, value - interval.high, 0.0)


class _Meter:
    """Adds up batches."""

    def __init__(self, by: tuple[tuple[str, ...], ...]) -> None:
        self._by = by
        self._grouping = Grouping(by)
        self._predicted = {columns: GroupMoments() for columns in ((), *by)}
        self._label = {columns: GroupMoments() for columns in ((), *by)}
        self._deciles = _Deciles()
        self._unknown = self._unusable = 0
        self._binary = True

    def add(self, batch: pa.RecordBatch, predictions: pa.Array, labels: pa.Array) -> None:
        known = pc.is_valid(labels).to_numpy(zero_copy_only=False)
        predicted, label = _floats(predictions), _floats(labels)
        usable = known & np.isfinite(predicted) & np.isfinite(label)
        self._unknown += int(len(known) - known.sum())
        self._unusable += int(known.sum() - usable.sum())
        predicted, label = predicted[usable], label[usable]
        self._binary = self._binary and bool(np.isin(label, (0.0, 1.0)).all())
        numbered = {columns: groups[usable] for columns, groups in self._grouping.number(batch).items()}
        for columns, groups in {(): np.zeros(len(label), np.int64), **numbered}.items():
            count = len(self._groups(columns))
            self._predicted[columns].add(groups, predicted, count)
            self._label[columns].add(groups, label, count)
        self._deciles.add(predicted, label)

    def profile(self) -> CalibrationProfile:
        return CalibrationProfile(
            by=self._by,
            groups=tuple(group for columns in ((), *self._by) for group in self._known(columns)),
            unknown=self._unknown,
            unusable=self._unusable,
            binary=self._binary,
            error=self._deciles.error(),
        )

    def _groups(self, columns: tuple[str, ...]) -> list[tuple[str, ...]]:
        return self._grouping.groups(columns) if columns else [()]

    def _known(self, columns: tuple[str, ...]) -> list[CalibrationGroup]:
        found = []
        for number, values in enumerate(self._groups(columns)):
            predicted, label = self._predicted[columns].of(number), self._label[columns].of(number)
            if not label.rows:
                continue
            if predicted.mean is None or label.mean is None or label.variance is None:
                raise ValueError(
                    f"{', '.join(values) or 'all rows'}: numbers are too large for a mean and its interval"
                )
            found.append(
                CalibrationGroup(columns=columns, values=values, rows=label.rows, predicted=predicted.mean, label=label)
            )
        return sorted(found, key=lambda group: group.values)


class _Deciles:
    """Predictions and labels summed in the bins of a sketch, of which deciles are made at the end."""

    def __init__(self) -> None:
        self._bins = np.zeros(0, np.int64)
        self._sums = np.zeros((3, 0))

    def add(self, predicted: Floats, label: Floats) -> None:
        bins, places = np.unique(np.append(self._bins, bins_of(predicted)), return_inverse=True)
        rows = [np.ones(len(label)), predicted, label]
        self._sums = np.array(
            [np.bincount(places, np.append(old, new), len(bins)) for old, new in zip(self._sums, rows, strict=True)]
        )
        self._bins = bins

    def error(self) -> float | None:
        rows, predicted, label = self._sums
        total = rows.sum()
        if not total:
            return None
        # A bin, all of whose predictions are within 2 % of each other, is in the decile of its middle row.
        decile = ((np.cumsum(rows) - rows / 2) * DECILES / total).astype(np.int64)
        off = np.bincount(decile, predicted - label)
        return float(np.abs(off).sum() / total)


def _floats(column: pa.Array) -> Floats:
    values: Floats = pc.cast(column, pa.float64()).to_numpy(zero_copy_only=False)
    return values
