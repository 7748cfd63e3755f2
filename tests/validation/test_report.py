import datetime as dt
from html.parser import HTMLParser
from typing import Any

import pyarrow as pa
import pytest

from schemas.head import ColumnSpec
from schemas.report import (
    CalibrationMeasure,
    CheckResult,
    ContestGroup,
    ContestMeasure,
    ContestOutcome,
    DriftMeasure,
    Interval,
    OutcomeGroup,
    Override,
    Report,
    SliceMeasure,
    Verdict,
)
from schemas.run import CarriedFrom, Counts, Parity, RunManifest, SourceFile, Stage
from validation.profile import Profile, profile_batches
from validation.report import render_page

NOON = dt.datetime(2013, 7, 1, 12, tzinfo=dt.UTC)
VOID = {"meta", "link", "wbr"}


class Page(HTMLParser):
    """The text of a page, its tags, and whether each is closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text, self.tags, self.attributes = "", [], []
        self._open: list[str] = []
        self.feed(html)
        self.text = " ".join(self.text.split())
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.text += f" {data}"


def check(verdict: Verdict = Verdict.PASS, **changed: Any) -> CheckResult:
    values = {"name": "drift of score", "family": "drift", "observed": "PSI 0.02", "expected": "PSI of at most 0.1"}
    return CheckResult(verdict=verdict, **(values | changed))


def report(verdict: Verdict, *checks: CheckResult, compared_with: str | None = "2013-06-30-bbb", **more: Any) -> Report:
    return Report(
        pipeline="flight_delay",
        run_id="2013-07-01-aaa",
        content="c" * 64,
        verified_at=NOON,
        compared_with=compared_with,
        verdict=verdict,
        checks=checks,
        **more,
    )


def manifest(**changed: Any) -> RunManifest:
    values: dict[str, Any] = {
        "pipeline": "flight_delay",
        "run_id": "2013-07-01-aaa",
        "date": dt.date(2013, 7, 1),
        "scored_at": NOON,
        "declaration": "d" * 64,
        "models": {"champion": "bundle-1"},
        "outputs": (ColumnSpec(name="score", type="float64"),),
        "buckets": 102,
        "counts": Counts(entities=6512, scored=6483, quarantined=29, collapsed=3, reasons={"null_key": 20, "late": 9}),
        "content": "c" * 64,
        "files": (),
        "sources": (
            SourceFile(source="flights", path="a.parquet", size_bytes=1500, sha256="e" * 64),
            SourceFile(source="flights", path="b.parquet", size_bytes=500, sha256="f" * 64),
        ),
        "parity": (Parity(model="bundle-1", rows=512, max_abs_difference=0.0, workers=2),),
    }
    return RunManifest(**(values | changed))


def profile(scores: list[float]) -> Profile:
    return profile_batches([pa.RecordBatch.from_pydict({"score": pa.array(scores, pa.float64())})])


def page(of: Report, now: Profile | None = None, live: Profile | None = None, **more: Any) -> Page:
    return Page(render_page(of, more.pop("run", manifest()), now, live, **more))


def test_a_blocked_run_says_so_first_and_why() -> None:
    wrong = check(Verdict.FAIL, observed="PSI 0.76: the mean went from 0.27 to 0.41")

    text = page(report(Verdict.FAIL, check(), wrong)).text

    verdict = text.index("Blocked 1 of 2 checks failed; the live release was left alone.")
    reason = text.index("Predictions or features have drifted")
    assert verdict < reason < text.index("PSI 0.76: the mean went from 0.27 to 0.41") < text.index("All checks")


def test_a_check_that_was_not_computed_is_told_apart_from_bad_data() -> None:
    broken = check(Verdict.FAIL, evaluated=False, observed="KeyError: 'score'")

    text = page(report(Verdict.FAIL, broken)).text

    assert "A check could not be computed What was not checked is not published." in text
    assert "KeyError: 'score' (not evaluated)" in text
    assert "Predictions or features have drifted" not in text


@pytest.mark.parametrize(
    ("of", "words"),
    [
        (report(Verdict.PASS, check(), check()), "Passed All 2 checks passed; the run may be published."),
        (
            report(Verdict.WARN, check(), check(Verdict.WARN)),
            "Passed with warnings 1 check to look at, 2 made; the run may be published.",
        ),
        (report(Verdict.FAIL, compared_with=None), "Blocked No check was made; nothing was published."),
        (report(Verdict.FAIL, check()), "Blocked A required check gave no result; the live release was left alone."),
        (
            report(Verdict.FAIL, check(Verdict.FAIL), compared_with=None),
            "Blocked 1 of 1 check failed; nothing was published.",
        ),
    ],
)
def test_the_verdict_in_words(of: Report, words: str) -> None:
    assert words in page(of).text


def test_the_facts_of_the_run_are_there() -> None:
    stages = (Stage(name="score", seconds=9.25, rows_in=6500, rows_out=6483), Stage(name="verify", seconds=4.5))
    text = page(report(Verdict.PASS, check(), stages=stages, data_docs="data_docs/inputs.html")).text

    for fact in [
        "6,512 known: 6,483 scored, 29 quarantined",
        "null_key 20 late 9",
        "3 identical duplicate rows were kept once.",
        "score 6,500 rows in, 6,483 rows out 9.2 s verify 4.5 s",
        "what Great Expectations saw, in its Data Docs",
        "champion bundle-1",
        "512 held-out rows in 2 workers, largest difference 0",
        "compared with 2013-06-30-bbb",
        "flights 2 files, 2 kB",
        "a.parquet eeeeeeeeeeee",
    ]:
        assert fact in text


def test_it_needs_no_network_and_runs_no_script() -> None:
    html = render_page(report(Verdict.PASS, check()), manifest(), profile([0.1, 0.2]), profile([0.1, 0.3]))

    assert not {"script", "img", "iframe", "object", "embed", "base"} & set(Page(html).tags)
    assert not {"src", "onload", "onclick", "xlink:href"} & set(Page(html).attributes)
    assert "http:" not in html
    assert "https:" not in html
    assert "url(" not in html
    assert "@import" not in html


def test_what_came_from_data_cannot_write_html() -> None:
    evil = "<script>alert(1)</script>"
    failed = check(Verdict.FAIL, name=evil, observed=evil, expected=evil)

    html = render_page(report(Verdict.FAIL, failed, slices=(group(evil),), off={"drift": evil}), manifest(), None, None)

    assert "<script" not in html
    assert html.count("&lt;script&gt;") == 8


def test_the_distribution_is_drawn_against_the_live_one() -> None:
    shown = page(report(Verdict.PASS, check()), profile([0.1, 0.1, 0.1, 0.9]), profile([0.1, 0.9, 0.9, 0.9]))

    assert "0.08 to 0.12: 75.0% now, 25.0% live" in shown.text
    assert "this run 0.3" in shown.text
    assert shown.tags.count("rect") == 2 * 25
    assert shown.tags.count("path") == 1


@pytest.mark.parametrize("scores", [[0.0], [0.3] * 9, [-5.0, 5.0], [1e6] * 3, [-1e-9], [280.0, 300.0], [1e300, -1e300]])
def test_any_numbers_can_be_drawn(scores: list[float]) -> None:
    shown = page(report(Verdict.PASS, check(), compared_with=None), profile(scores))

    assert shown.tags.count("rect") == 2 * 25
    assert "First release: nothing to compare with." in shown.text


@pytest.mark.parametrize("now", [None, Profile(rows=0, columns={}), profile([])])
def test_a_run_without_predictions_still_has_a_page(now: Profile | None) -> None:
    empty = manifest(counts=Counts(entities=0, scored=0, quarantined=0, collapsed=0), sources=(), parity=())

    text = page(report(Verdict.FAIL, check(Verdict.FAIL)), now, run=empty).text

    assert "No output has numbers to draw." in text
    assert "0 known: 0 scored, 0 quarantined" in text
    assert "No file was recorded." in text


def group(*values: str, rows: int = 100, mean: float = 0.5, live: float | None = None, **more: Any) -> SliceMeasure:
    interval = Interval(value=mean, low=mean - 0.05, high=mean + 0.05)
    return SliceMeasure(columns=("origin",), values=values, rows=rows, mean=interval, live_mean=live, **more)


def test_groups_that_moved_most_come_first() -> None:
    groups = (group("EWR", mean=0.5, live=0.3), group("JFK", mean=0.3, live=0.29), group("new", rows=1, mean=1.0))

    text = page(report(Verdict.PASS, check(), slices=groups[::-1])).text

    assert "EWR 100 0.500 0.300 JFK 100 0.300 0.290 new 1 1.000 \N{EN DASH}" in text


def test_many_groups_are_counted_not_listed() -> None:
    groups = tuple(group(f"N{number}", rows=1) for number in range(40))

    assert "and 28 more" in page(report(Verdict.PASS, check(), slices=groups)).text


def test_rates_and_ratios_are_shown_where_they_are_declared() -> None:
    rate, ratio = (Interval(value=value, low=0.1, high=0.9) for value in (0.25, 0.8))

    text = page(report(Verdict.PASS, check(), slices=(group("EWR", positive_rate=rate, selection_ratio=ratio),))).text

    assert "rows mean now live positive ratio" in text
    assert "EWR 100 0.500 \N{EN DASH} 25.0% 0.80" in text


def test_drift_of_every_column_is_there_against_both_baselines() -> None:
    def moved(column: str, kind: Any, baseline: Any, verdict: Verdict) -> DriftMeasure:
        return DriftMeasure(
            column=column, kind=kind, baseline=baseline, psi=0.31, js=0.2, ks=0.15, p_value=0.0001, rows=10,
            baseline_rows=20, mean=4.5, baseline_mean=4.0, verdict=verdict,
        )  # fmt: skip

    measures = (
        moved("temp", "feature", "training", Verdict.WARN),
        moved("temp", "feature", "live", Verdict.PASS),
        moved("score", "score", "live", Verdict.FAIL),
    )

    text = page(report(Verdict.PASS, check(), drift=measures)).text

    assert "score output 0.310 0.200 0.150 < 0.001 4.5 4" in text
    assert text.index("against the live release") < text.index("score output") < text.index("against training")


def test_what_came_of_an_earlier_release_is_told() -> None:
    observed = Interval(value=0.25, low=0.2, high=0.3)
    measured = (
        CalibrationMeasure(columns=("origin",), values=("EWR",), rows=40, predicted=0.5, observed=observed),
        CalibrationMeasure(columns=(), values=(), rows=90, predicted=0.22, observed=observed),
    )

    text = page(report(Verdict.PASS, check(), calibration=measured, calibrated="2013-06-01-ccc")).text

    assert "Predictions of run 2013-06-01-ccc against the outcomes known by now." in text
    assert "all 90 0.220 0.250 0.200 to 0.300 origin: EWR 40 0.500 0.250" in text


def test_what_is_switched_off_stands_at_the_top() -> None:
    text = page(report(Verdict.PASS, check(), off={"drift": "the feed moved to another unit on purpose"})).text

    assert text.index("drift is switched off: the feed moved to another unit on purpose") < text.index("Entities")


def test_an_override_is_told_with_its_reason() -> None:
    made = Override(
        by="ops@night", at=NOON, reason="storm", content="c" * 64, verified_at=NOON, checks=("drift of score",)
    )

    text = page(report(Verdict.FAIL, check(Verdict.FAIL)), override=made).text

    assert "Blocked, then let through 1 of 1 check failed; ops@night overrode that: storm" in text
    assert "Overridden by ops@night at 2013-07-01 12:00 UTC: storm (drift of score)" in text


def test_carried_entities_are_counted_apart() -> None:
    counts = Counts(entities=100, scored=90, carried=6, quarantined=4, withheld=4, collapsed=0, reasons={"late": 10})
    run = manifest(counts=counts, carried_from=CarriedFrom(run_id="2013-06-30-bbb"))

    text = page(report(Verdict.PASS, check()), run=run).text

    assert "100 known: 90 scored, 6 carried over, 4 quarantined" in text
    assert "Carried over from run 2013-06-30-bbb" in text
    assert "4 are answered as unknown, whatever priors there are." in text


@pytest.mark.parametrize(
    ("group", "cells"), [({"auc": 0.75, "log_loss": 0.5}, "0.75 0.75"), ({}, "\N{EN DASH} \N{EN DASH}")]
)
def test_a_challenger_by_what_came_is_told_for_each_group(group: dict[str, float], cells: str) -> None:
    both = {"auc": 0.7, "log_loss": 0.6}
    near = Interval(value=-0.01, low=-0.02, high=0.005)
    known = OutcomeGroup(
        columns=("origin", "haul"), values=("J<K", "long"), rows=120, champion=group, challenger=group, difference=near
    )
    outcome = ContestOutcome(
        name="canary", run_id="2013-06-01-ccc", rows=900, loss="log loss", champion=both, challenger=both,
        difference=near, groups=(known,),
    )  # fmt: skip
    text = page(report(Verdict.PASS, check(), outcomes=(outcome,))).text

    assert "group rows auc, those that serve auc, challenger difference of log loss" in text
    assert f"origin, haul: J<K, long 120 {cells} -0.0100 -0.0200 to 0.0050" in text


def test_a_contest_is_told_for_each_group() -> None:
    small = ContestGroup(column="origin, haul", value="JFK, long", rows=9, champion_mean=0.2, challenger_mean=0.25)
    large = small.model_copy(
        update={"value": "EWR, long", "rows": 91, "rank_correlation": 0.5, "top_decile_overlap": 0.75}
    )
    contest = ContestMeasure(
        name="canary", mode="canary", model="b-1", rows=100, unsound=0, champion_mean=0.2, challenger_mean=0.3,
        mean_change=0.1, rank_correlation=0.9, top_decile_overlap=0.8, groups=(large, small),
    )  # fmt: skip
    text = page(report(Verdict.PASS, check(), contests=(contest,))).text

    dash = "\N{EN DASH}"
    assert (
        "group rows those that serve challenger rank correlation same highest tenth all 100 0.2 0.3 0.9 0.8 "
        f"origin, haul: EWR, long 91 0.2 0.25 0.5 0.75 origin, haul: JFK, long 9 0.2 0.25 {dash} {dash} "
        "A row moves by 0.1 on average."
    ) in text
