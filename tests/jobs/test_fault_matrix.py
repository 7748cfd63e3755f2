"""The fault matrix: whatever goes wrong with whatever check, nothing that was not verified is served.

One half breaks each check itself (it throws, hangs, finds nothing). The other breaks what all checks look at, once, and
states for each check what it must have said of it.
"""

import datetime as dt
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.checking import Checks
from jobs.publishing import publisher
from jobs.stages import Plan, check_inputs, gate, score
from jobs.verification import verify
from lookup.embedded import start, stop
from lookup.store import Store
from lookup.writer import write_rows
from schemas.content import canonical_json, sha256_text, write_atomically
from schemas.errors import AlmanacError, InputError, Problem
from schemas.report import CheckResult, Report, Verdict
from schemas.run import MANIFEST_FILE, PREDICTIONS, RunManifest
from schemas.settings import Settings
from tests.flights import rewrite
from tests.jobs.runs import NEXT, PIPELINE, almanac, change_rows, column, flights_file, live_run

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark

MORE_CHECKS = "  slices:\n    columns: [origin, carrier]\n"
CHURN = "  churn: {max_removed: 0.9}\n  calibration: {after_days: 1, error: {warn: 0.5, fail: 0.9}, min_rows: 20}\n"

# Every check that a run makes: its name in `Checks`, and the results that it may give (a prefix each).
CHECKS: dict[str, str] = {
    "inputs unchanged": "inputs unchanged",
    "sources": "source ",
    "predictions are finite": "predictions are finite",
    "every entity accounted for": "every entity accounted for",
    "enough entities": "enough entities|entity count",
    "quarantined share": "quarantined share",
    "bundle reproduces its holdout": "bundle ",
    "expectations": "inputs: |predictions: ",
    "drift against the live release": "drift of scores against the live|drift of features against the live",
    "drift against the training data": "drift of scores against the training|drift of features against the training",
    "slices": "slices by ",
    "churn": "entities added|entities removed|entities changed",
    "calibration": "calibration",
    "absolute floors of a first release": "absolute floors",
}


@dataclass(frozen=True)
class Outcome:
    """What became of a run: where it stopped, and what each check had said."""

    error: AlmanacError
    live_before: str | None
    live_after: str | None
    report: Report | None
    results: dict[str, list[CheckResult]] = field(default_factory=dict)


@pytest.fixture(scope="module")
def place(
    trained_workspace: Path, tmp_path_factory: pytest.TempPathFactory, spark: "SparkSession"
) -> Iterator[Settings]:
    """A pipeline with every kind of check, one release live, in a place and a Redis of the module's own."""
    root = tmp_path_factory.mktemp("matrix") / "team"
    shutil.copytree(trained_workspace, root)
    url = start(root / "redis-store")
    settings = Settings(pipelines=root / "dags", store=root / "store", redis_url=url)
    rewrite(settings.pipelines / PIPELINE / "pipeline.yaml", (MORE_CHECKS, CHURN + MORE_CHECKS))
    almanac(settings)
    yield settings
    stop(root / "redis-store")


@pytest.fixture(scope="module")
def staged(place: Settings, spark: "SparkSession") -> tuple[Plan, RunManifest]:
    """The next day, scored and not verified yet."""
    plan = check_inputs(place, PIPELINE, NEXT)
    return plan, score(plan, lambda: spark)


# --- each check itself broken -----------------------------------------------------------------------------------------


def _throws() -> None:
    raise KeyError("score")


def _throws_on_purpose() -> None:
    raise InputError(Problem("OUT_FORMAT", "profile.json", "nothing", "a profile"))


def _hangs(never: Event) -> None:
    never.wait(120)


BROKEN: dict[str, tuple[Callable[[Event], Any], str]] = {
    "throws": (lambda _: _throws(), "KeyError: 'score'"),
    "throws one of ours": (lambda _: _throws_on_purpose(), "profile.json: nothing; expected a profile [OUT_FORMAT]"),
    "hangs past its limit": (_hangs, "TooSlowError: no answer within 0.2 s"),
    "returns None": (lambda _: None, "the check returned nothing"),
    "returns no results": (lambda _: [], "the check returned nothing"),
    "returns something else": (lambda _: [True], "TypeError: the check returned bool, not a result"),
}


@pytest.mark.parametrize("fault", BROKEN)
@pytest.mark.parametrize("name", [name for name in CHECKS if not name.startswith("absolute")])
def test_a_check_that_breaks_stops_the_run_whatever_the_others_say(
    place: Settings,
    staged: tuple[Plan, RunManifest],
    monkeypatch: pytest.MonkeyPatch,
    spark: "SparkSession",
    name: str,
    fault: str,
) -> None:
    plan, manifest = staged
    attempt, observed = BROKEN[fault]
    never, before = Event(), live_run(place)
    declared = Checks(plan, manifest, plan.store.manifest(str(before)), lambda: spark)._all()
    assert name in [check for check, _, _ in declared]

    def every(_: Checks) -> list[Any]:
        def sound(check: str, family: Any) -> CheckResult:
            return CheckResult(name=check, family=family, verdict=Verdict.PASS, observed="o", expected="e")

        return [
            (check, family, partial(attempt, never) if check == name else partial(sound, check, family))
            for check, family, _ in declared
        ]

    monkeypatch.setattr(Checks, "_all", every)
    checks = plan.declared.pipeline.checks.model_copy(update={"limit_seconds": 0.2})
    pipeline = plan.declared.pipeline.model_copy(update={"checks": checks})
    plan = replace(plan, declared=replace(plan.declared, pipeline=pipeline))

    report = verify(plan, manifest, lambda: spark)
    never.set()

    (failed,) = report.failures
    assert (failed.name, failed.evaluated, failed.observed) == (name, False, observed)
    assert (report.verdict, [check.verdict for check in report.checks].count(Verdict.PASS)) == (
        Verdict.FAIL,
        len(declared) - 1,
    )
    _is_not_served(place, plan, report, before)


def _is_not_served(place: Settings, plan: Plan, report: Report, before: str | None) -> None:
    with pytest.raises(AlmanacError, match=r"\[BLOCKED\]") as caught:
        gate(report)
    assert caught.value.exit_code == 3
    with pytest.raises(AlmanacError, match=r"\[PUBLISH_UNVERIFIED\]") as caught:
        publisher(place, plan.declared).publish(report.run_id)
    assert caught.value.exit_code == 2
    assert live_run(place) == before


# --- what all checks look at, broken ----------------------------------------------------------------------------------


def _change_staged(plan: Plan, manifest: RunManifest, change: Callable[[pa.Table], pa.Table]) -> None:
    """Change the staged predictions as a wrong scorer would have: the manifest agrees with the files."""
    folder, files = plan.store.run_folder(manifest.run_id), []
    for file in manifest.files:
        if file.path.startswith(f"{PREDICTIONS}/"):
            table = change(pq.read_table(folder / file.path))
            name = Path(file.path).name
            file = write_rows(folder / PREDICTIONS, name, table.schema, table.to_batches())
        files.append(file)
    content = [file.sha256 for file in files if file.path.startswith(f"{PREDICTIONS}/")]
    update = {"files": tuple(files), "content": sha256_text(canonical_json(content))}
    changed = manifest.model_copy(update=update)
    write_atomically(folder / MANIFEST_FILE, changed.model_dump_json(indent=2) + "\n")


def _score_column(table: pa.Table, values: Callable[[pa.ChunkedArray], Any]) -> pa.Table:
    index = table.schema.get_field_index("score")
    return table.set_column(index, table.schema.field(index), values(table.column("score")))


def _nan_scores(settings: Settings, plan: Plan, manifest: RunManifest) -> None:
    _change_staged(plan, manifest, lambda table: _score_column(table, lambda c: pa.array([float("nan")] * len(c))))


def _null_scores(settings: Settings, plan: Plan, manifest: RunManifest) -> None:
    _change_staged(plan, manifest, lambda table: _score_column(table, lambda c: pa.nulls(len(c), pa.float64())))


def _no_rows_staged(settings: Settings, plan: Plan, manifest: RunManifest) -> None:
    _change_staged(plan, manifest, lambda table: table.slice(0, 0))


def _source_changed(settings: Settings, plan: Plan, manifest: RunManifest) -> None:
    distances = column(flights_file(settings, NEXT), "distance")
    change_rows(flights_file(settings, NEXT), {"distance": [int(str(distances[0])) + 1, *distances[1:]]})


def _previous_count_zero(settings: Settings, plan: Plan, manifest: RunManifest) -> None:
    store = Store(settings.store, PIPELINE)
    live = store.live()
    assert live is not None
    before = store.manifest(live.run_id)
    zero = before.counts.model_copy(update={"entities": 0, "scored": 0})
    path = store.run_folder(live.run_id) / MANIFEST_FILE
    write_atomically(path, before.model_copy(update={"counts": zero}).model_dump_json(indent=2) + "\n")


def _baseline_gone(settings: Settings, plan: Plan, manifest: RunManifest) -> None:
    store = Store(settings.store, PIPELINE)
    live = store.live()
    assert live is not None
    (store.run_folder(live.run_id) / "profile.json").unlink()


def _unreadable_holdout(settings: Settings) -> None:
    (bundle,) = Store(settings.store, PIPELINE).bundles.glob("*-*/holdout.parquet")
    bundle.chmod(0o644)
    bundle.write_bytes(bundle.read_bytes()[:-20])


def _suite_missing(settings: Settings) -> None:
    path = settings.pipelines / PIPELINE / "expectations.yaml"
    path.write_text(path.read_text().partition("predictions:")[0])


def _suite_empty(settings: Settings) -> None:
    path = settings.pipelines / PIPELINE / "expectations.yaml"
    path.write_text(path.read_text().partition("predictions:")[0] + "predictions: []\n")


def _zero_rows(settings: Settings) -> None:
    rewrite(settings.pipelines / PIPELINE / "features.sql", ("WHERE date >= :ds", "WHERE false"))


def _all_null(settings: Settings) -> None:
    for day in range(7):
        path = flights_file(settings, NEXT + dt.timedelta(days=day))
        change_rows(path, {"distance": [None] * len(column(path, "distance"))})


def _first_release(settings: Settings) -> None:
    """No release, and no absolute floor."""
    shutil.rmtree(settings.store / PIPELINE / "releases")
    rewrite(settings.pipelines / PIPELINE / "pipeline.yaml", ("entities: {min: 50", "entities: {min: 1"))


BEFORE: dict[str, Callable[[Settings], None]] = {
    "suite missing": _suite_missing,
    "suite empty": _suite_empty,
    "zero rows": _zero_rows,
    "a column all null": _all_null,
    "first release": _first_release,
    "unreadable holdout": _unreadable_holdout,
}
BETWEEN: dict[str, Callable[[Settings, Plan, RunManifest], None]] = {
    "zero rows staged": _no_rows_staged,
    "scores all null": _null_scores,
    "NaN scores": _nan_scores,
    "previous count 0": _previous_count_zero,
    "baseline gone": _baseline_gone,
    "source changed mid-run": _source_changed,
}
# Faults that are refused before there is a report: the code, and the exit code.
REFUSED = {
    "suite missing": ("CFG_MISSING_KEY", 2),
    "suite empty": ("CFG_RANGE", 2),
    "unreadable holdout": ("BUNDLE_CHECKSUM", 2),
}
# Which checks must have failed; the others have passed or warned, as they see nothing of it.
FAILED = {
    "zero rows": {
        "predictions are finite", "every entity accounted for", "enough entities", "quarantined share",
        "bundle reproduces its holdout", "expectations", "drift against the live release",
        "drift against the training data", "slices", "churn",
    },
    "zero rows staged": {
        "predictions are finite", "every entity accounted for", "expectations", "drift against the live release",
        "drift against the training data", "slices", "churn",
    },
    "a column all null": {"expectations", "drift against the live release", "drift against the training data"},
    "scores all null": {
        "predictions are finite", "expectations", "drift against the live release", "drift against the training data",
        "slices", "churn",
    },
    "NaN scores": {
        "predictions are finite", "expectations", "drift against the live release", "drift against the training data",
        "slices", "churn",
    },
    "previous count 0": {"enough entities"},
    "baseline gone": {"drift against the live release", "slices"},
    "source changed mid-run": {"inputs unchanged"},
    "first release": {"absolute floors of a first release"},
}  # fmt: skip


@pytest.fixture(scope="module")
def outcome(
    place: Settings, tmp_path_factory: pytest.TempPathFactory, spark: "SparkSession"
) -> Callable[[str], Outcome]:
    """What becomes of the next day's run under a fault; each is run once, in a copy of the place."""
    known: dict[str, Outcome] = {}

    def run(fault: str) -> Outcome:
        if fault not in known:
            root = tmp_path_factory.mktemp("fault") / "team"
            shutil.copytree(place.root, root, ignore=shutil.ignore_patterns("redis-store"))
            known[fault] = _outcome(Settings(pipelines=root / "dags", store=root / "store"), place, fault, spark)
        return known[fault]

    return run


def _outcome(settings: Settings, place: Settings, fault: str, spark: "SparkSession") -> Outcome:
    store = Store(settings.store, PIPELINE)
    if fault in BEFORE:
        BEFORE[fault](settings)
    live = store.live()
    report = None
    with pytest.raises(AlmanacError) as caught:  # noqa: PT012  # where it stops is what is asked
        plan = check_inputs(settings, PIPELINE, NEXT)
        manifest = score(plan, lambda: spark)
        if fault in BETWEEN:
            BETWEEN[fault](settings, plan, manifest)
        report = verify(plan, store.manifest(plan.run_id), lambda: spark)
        gate(report)
    now = store.live()
    results: dict[str, list[CheckResult]] = {}
    for name, prefixes in CHECKS.items():
        results[name] = [
            check
            for check in (report.checks if report else ())
            if check.name == name or check.name.startswith(tuple(prefixes.split("|")))
        ]
    return Outcome(caught.value, live.run_id if live else None, now.run_id if now else None, report, results)


@pytest.mark.parametrize("fault", [*BEFORE, *BETWEEN])
@pytest.mark.parametrize("name", CHECKS)
def test_what_each_check_says_of_a_fault(outcome: Callable[[str], Outcome], name: str, fault: str) -> None:
    found = outcome(fault)

    assert found.live_after == found.live_before
    if fault in REFUSED:
        code, exit_code = REFUSED[fault]
        assert found.report is None  # no check said anything, and nothing was staged as verified
        assert ({problem.code for problem in found.error.problems}, found.error.exit_code) == ({code}, exit_code)
        return
    assert ({problem.code for problem in found.error.problems}, found.error.exit_code) == ({"BLOCKED"}, 3)
    assert found.report is not None
    verdicts = {check.verdict for check in found.results[name]}
    if (name == "absolute floors of a first release") != (fault == "first release") and not verdicts:
        return  # there is a live release to compare with: the check is not made
    assert verdicts, f"{name} said nothing: {[check.name for check in found.report.checks]}"
    assert (Verdict.FAIL in verdicts) is (name in FAILED[fault]), found.results[name]


def test_no_check_is_missing_from_the_matrix(staged: tuple[Plan, RunManifest], spark: "SparkSession") -> None:
    plan, manifest = staged
    first = {name for name, _, _ in Checks(plan, manifest, None, lambda: spark)._all()}
    assert first == set(CHECKS)


def test_the_state_that_faults_are_planted_in_is_sound(place: Settings, staged: tuple[Plan, RunManifest]) -> None:
    assert live_run(place) is not None
    assert almanac(place, NEXT).report.verdict in (Verdict.PASS, Verdict.WARN)
