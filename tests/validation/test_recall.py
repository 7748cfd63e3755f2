"""What a funnel loses, by an audit of what it rejected."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.models import Funnel, RecallLevels
from schemas.report import FunnelMeasure, Verdict
from validation.recall import check_recall, recall_interval


def funnel(levels: RecallLevels | None) -> Funnel:
    return Funnel(budget=10, audit=0.1, positive_at=0.5, min_recall=levels)


def measure(positives: int, rejected: int, audited: int, found: int) -> FunnelMeasure:
    interval = recall_interval(positives, rejected, audited, found, 0.95)
    counts = {"survivors": 100, "rejected": rejected, "audited": audited, "positives": positives}
    return FunnelMeasure(name="cheap", **counts, audited_positives=found, recall=interval)


@pytest.mark.parametrize("lost_rate", [0.0, 0.0005, 0.01, 0.2])
def test_the_interval_covers_the_true_recall_in_most_of_a_hundred_audits(lost_rate: float) -> None:
    rejected, positives = 20_000, 300
    draw = np.random.default_rng(7)
    is_lost = draw.random(rejected) < lost_rate
    truth = positives / (positives + is_lost.sum())

    covered = 0
    for seed in range(100):
        audit = np.random.default_rng(seed).random(rejected) < 0.05
        found = recall_interval(positives, rejected, int(audit.sum()), int((audit & is_lost).sum()), 0.95)
        covered += found.low <= truth <= found.high

    assert covered >= 90


@given(st.integers(0, 500), st.integers(0, 500), st.data())
def test_an_interval_holds_its_value_and_what_is_certain(positives: int, rejected: int, data: st.DataObject) -> None:
    audited = data.draw(st.integers(0, rejected))
    found = data.draw(st.integers(0, audited))

    recall = recall_interval(positives, rejected, audited, found, 0.95)

    assert 0 <= recall.low <= recall.value <= recall.high <= 1
    for lost in (found, rejected - audited + found):  # the least and the most that the audit leaves possible
        at = positives / (positives + lost) if lost else 1.0
        assert recall.low <= at or at <= recall.high
    if audited == rejected:
        truth = positives / (positives + found) if found else 1.0
        assert recall.low == recall.value == recall.high == truth


@pytest.mark.parametrize(("found", "verdict"), [(0, Verdict.PASS), (2, Verdict.WARN), (30, Verdict.FAIL)])
def test_the_lower_end_is_held_against_the_levels(found: int, verdict: Verdict) -> None:
    levels = RecallLevels(warn=0.95, fail=0.8)

    result = check_recall(funnel(levels), measure(1000, 5000, 500, found))

    assert (result.family, result.verdict) == ("funnel", verdict)
    assert result.expected == "at least 95.0%, 80.0% or it stops, by the lower end"


def test_an_audit_that_drew_nobody_proves_nothing() -> None:
    levels = RecallLevels(warn=0.9, fail=0.5)

    assert check_recall(funnel(levels), measure(50, 900, 0, 0)).verdict is Verdict.FAIL
    assert check_recall(funnel(None), measure(50, 900, 0, 0)).verdict is Verdict.PASS


def test_a_funnel_that_rejects_nobody_loses_nothing() -> None:
    recall = recall_interval(50, 0, 0, 0, 0.95)

    assert (recall.low, recall.value, recall.high) == (1, 1, 1)
