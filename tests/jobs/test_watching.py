"""A watched run tells lineage and metrics of every stage, and goes on where nobody hears it."""

import dataclasses
import logging
import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prometheus_client.parser import text_string_to_metric_families

from jobs import watching
from jobs.watching import watched
from schemas.errors import BlockedError
from schemas.settings import Settings
from tests.flights import rewrite
from tests.jobs.runs import DATE, NEXT, PIPELINE, almanac
from tests.receivers import Receiver, receiving
from tests.test_alerts import documented_of_runs

pytest.importorskip("openlineage.client", reason="the extra `watch` is not installed")

Sample = tuple[str, tuple[tuple[str, str], ...]]


@pytest.fixture(autouse=True)
def _no_lineage() -> Iterator[None]:
    """No variable of OpenLineage's before and behind a test; its client sets some itself."""
    before = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("OPENLINEAGE")}
    yield
    for name in [name for name in os.environ if name.startswith("OPENLINEAGE")]:
        del os.environ[name]
    os.environ |= before


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def nowhere(tmp_path: Path) -> Settings:
    """Settings of a stage that does nothing."""
    return Settings(pipelines=tmp_path / "dags", store=tmp_path / "store")


def samples(text: str) -> dict[Sample, float]:
    """Name and labels without the pipeline -> value."""
    return {
        (each.name, tuple(sorted((k, v) for k, v in each.labels.items() if k != "pipeline"))): each.value
        for family in text_string_to_metric_families(text)
        for each in family.samples
    }


def told(folder: Path, stage: str, name: str) -> dict[str, float]:
    """Labels, without pipeline and stage -> value of a metric in a stage's file."""
    found = samples((folder / f"almanac_{PIPELINE}_{stage}.prom").read_text())
    return {
        ",".join(value for label, value in labels if label != "stage"): value
        for (each, labels), value in found.items()
        if each == name
    }


def events(receiver: Receiver) -> list[Any]:
    return [request.json for request in receiver.received if request.path == "/api/v1/lineage"]


def check_shape(event: Any) -> None:
    """What OpenLineage's specification 2-0-2 requires of a run event and its facets."""
    assert {"eventTime", "producer", "schemaURL", "run", "job"} <= event.keys()
    assert event["producer"].startswith("urn:almanac:")
    assert event["schemaURL"] == "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"
    UUID(event["run"]["runId"])
    facets = [event["run"]["facets"], event["job"]["facets"]]
    for dataset in (*event["inputs"], *event["outputs"]):
        assert dataset["namespace"]
        assert dataset["name"]
        facets += [dataset["facets"], dataset.get("inputFacets", {}), dataset.get("outputFacets", {})]
    for facet in (facet for group in facets for facet in group.values()):
        assert facet["_producer"]
        assert facet["_schemaURL"].startswith("https://openlineage.io/spec/")


@pytest.mark.spark
def test_a_run_tells_lineage_and_metrics_of_every_stage(
    settings: Settings, tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "textfile"
    folder.mkdir()
    monkeypatch.setenv("OPENLINEAGE_URL", receiver.url)
    monkeypatch.setenv("OPENLINEAGE_API_KEY", "key-1")
    settings = dataclasses.replace(settings, metrics_folder=folder, pushgateway=receiver.url)

    run_id = almanac(settings).manifest.run_id

    stages = ["check_inputs", "score", "verify", "gate", "publish", "smoke"]
    heard = events(receiver)
    assert [(event["eventType"], event["job"]["name"]) for event in heard] == [
        (state, f"{PIPELINE}.{stage}") for stage in stages for state in ("START", "COMPLETE")
    ]
    for event in heard:
        check_shape(event)
        assert event["run"]["facets"]["nominalTime"]["nominalStartTime"] == f"{DATE}T00:00:00Z"
    assert len({event["run"]["runId"] for event in heard}) == 6
    assert len({event["run"]["facets"]["parent"]["run"]["runId"] for event in heard}) == 1
    assert {request.headers.get("Authorization") for request in receiver.received[:1]} == {"Bearer key-1"}
    check_datasets(settings, run_id, {event["job"]["name"].partition(".")[2]: event for event in heard})

    assert sorted(path.name for path in folder.iterdir()) == sorted(f"almanac_{PIPELINE}_{s}.prom" for s in stages)
    assert told(folder, "score", "almanac_run_entities") == {
        "scored": 420, "carried": 0, "quarantined": 0, "withheld": 0
    }  # fmt: skip
    assert told(folder, "verify", "almanac_run_verdict") == {"PASS": 1, "WARN": 0, "FAIL": 0}
    assert told(folder, "verify", "almanac_run_checks") == {"PASS": 25, "WARN": 0, "FAIL": 0}
    assert told(folder, "publish", "almanac_release_number") == {"": 1}
    assert told(folder, "publish", "almanac_release_entities") == {"": 420}
    assert told(folder, "publish", "almanac_release_stale_after_seconds") == {"": 36 * 3600}
    pushed = [request for request in receiver.received if request.path.startswith("/metrics/")]
    assert [(request.method, request.path) for request in pushed] == [
        ("POST", f"/metrics/job/almanac/pipeline/{PIPELINE}/stage/{stage}") for stage in stages
    ]
    assert {
        sample.name: set(sample.labels)
        for file in folder.iterdir()
        for family in text_string_to_metric_families(file.read_text())
        for sample in family.samples
    } == documented_of_runs()
    assert samples(pushed[1].body.decode()) == samples((folder / f"almanac_{PIPELINE}_score.prom").read_text())


def check_datasets(settings: Settings, run_id: str, ended: dict[str, Any]) -> None:
    """What the stages read and wrote, as their last events say."""
    store = f"{settings.store}/{PIPELINE}"
    sources = [f"{settings.root}/data/{name}" for name in ("flights", "weather", "planes", "airports")]
    score = ended["score"]
    assert [each["name"] for each in score["inputs"]] == [*sources, f"{store}/bundles"]
    assert score["inputs"][0]["inputFacets"]["inputStatistics"]["fileCount"] == 7
    assert score["job"]["facets"]["sql"]["dialect"] == "spark"
    predictions, features = score["outputs"]
    assert (predictions["name"], features["name"]) == (f"{store}/predictions", f"{store}/features")
    assert predictions["facets"]["version"]["datasetVersion"] == run_id
    assert predictions["outputFacets"]["outputStatistics"]["rowCount"] == 420
    assert [(field["name"], field["type"]) for field in predictions["facets"]["schema"]["fields"]] == [
        ("entity_id", "string"), ("score", "double"), ("model", "string"), ("variant", "string"), ("status", "string")
    ]  # fmt: skip
    verified = ended["verify"]["inputs"][0]
    assert verified["name"] == f"{store}/predictions"
    assertions = verified["inputFacets"]["dataQualityAssertions"]["assertions"]
    assert len(assertions) == 25
    assert all(each["success"] for each in assertions)
    assert verified["inputFacets"]["dataQualityMetrics"]["columnMetrics"]["score"]["nullCount"] == 0
    (table,) = ended["publish"]["outputs"]
    assert (table["namespace"], table["name"]) == (str(settings.redis_url).removesuffix("/0"), PIPELINE)
    assert table["facets"]["version"]["datasetVersion"] == "1"


@pytest.mark.spark
def test_a_blocked_run_fails_at_its_gate_and_leaves_what_was_told_of_the_release(
    settings: Settings, tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = dataclasses.replace(settings, metrics_folder=tmp_path)
    almanac(settings)
    succeeded = told(tmp_path, "gate", "almanac_stage_last_success_timestamp_seconds")
    monkeypatch.setenv("OPENLINEAGE_URL", receiver.url)
    rewrite(settings.pipelines / PIPELINE / "pipeline.yaml", ("min: 50", "min: 100000"))

    with pytest.raises(BlockedError):
        almanac(settings, NEXT)

    last = events(receiver)[-1]
    assert (last["eventType"], last["job"]["name"]) == ("FAIL", f"{PIPELINE}.gate")
    assert "enough entities" in last["run"]["facets"]["errorMessage"]["message"]
    verified = next(event for event in events(receiver) if "dataQualityAssertions" in str(event))
    assertions = verified["inputs"][0]["inputFacets"]["dataQualityAssertions"]["assertions"]
    assert [each["name"] for each in assertions if not each["success"] and each["severity"] == "error"] == [
        "enough entities"
    ]
    assert told(tmp_path, "verify", "almanac_run_verdict") == {"PASS": 0, "WARN": 0, "FAIL": 1}
    assert told(tmp_path, "gate", "almanac_stage_success") == {"": 0}
    assert told(tmp_path, "gate", "almanac_stage_last_success_timestamp_seconds") == succeeded
    assert told(tmp_path, "publish", "almanac_release_number") == {"": 1}


def test_a_damaged_metrics_file_is_written_anew(nowhere: Settings, tmp_path: Path) -> None:
    file = tmp_path / "almanac_p_score.prom"
    file.write_text("almanac_stage_success{ 1\n")
    with watched(dataclasses.replace(nowhere, metrics_folder=tmp_path), "p", "score"):
        pass
    assert samples(file.read_text())[("almanac_stage_success", (("stage", "score"),))] == 1


def test_an_interrupted_stage_is_told_as_aborted(
    nowhere: Settings, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENLINEAGE_URL", receiver.url)
    with pytest.raises(KeyboardInterrupt), watched(nowhere, "p", "score"):
        raise KeyboardInterrupt
    assert [event["eventType"] for event in events(receiver)] == ["START", "ABORT"]


def test_who_asks_for_nothing_loads_nothing(nowhere: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith(("openlineage", "jobs.lineage_datasets"))]:
        monkeypatch.delitem(sys.modules, name)
    with watched(nowhere, "p", "score"):
        pass
    assert not [name for name in sys.modules if name.startswith("openlineage")]


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


_LINEAGE = "; expected it to arrive; the run goes on without [OBSERVE_LINEAGE]"
_METRICS = "; expected it to arrive; the run goes on without [OBSERVE_METRICS]"
# Name of the case -> a setting or variable, its value, what the receiver answers, and the warning; {url}, {port} and
# {tmp} are those of the test.
BROKEN: dict[str, tuple[str, str, int, str]] = {
    "a URL without a scheme": (
        "OPENLINEAGE_URL", "lineage:5000", 200,
        "lineage: ValueError: Need valid url for OpenLineageClient, passed lineage:5000",
    ),
    "a password in what is no URL": (
        "OPENLINEAGE_URL", "//me:secret@", 200,
        "lineage: ValueError: Need valid url for OpenLineageClient, passed //",
    ),
    "nobody listens": ("OPENLINEAGE_URL", "http://127.0.0.1:{port}", 200, "lineage: ConnectionError: HTTPConnection"),
    "a key that is refused": (
        "OPENLINEAGE_URL", "{url}", 401,
        "lineage: HTTPError: 401 Client Error: Unauthorized for url: {url}/api/v1/lineage",
    ),
    "a backend that fails": (
        "OPENLINEAGE_URL", "{url}", 500,
        "lineage: HTTPError: 500 Server Error: Internal Server Error for url: {url}/api/v1/lineage",
    ),
    "no such config": (
        "OPENLINEAGE_CONFIG", "{tmp}/none.yml", 200, "lineage: ValueError: no transport is declared in {tmp}/none.yml"
    ),
    "no such transport": ("OPENLINEAGE_CONFIG", "{tmp}/htpp.yml", 200, "lineage: ImportError: Failed to import htpp"),
    "a config that is no YAML": (
        "OPENLINEAGE_CONFIG", "{tmp}/open.yml", 200, "lineage: ValueError: no transport is declared in {tmp}/open.yml"
    ),
    "an event file in no folder": (
        "OPENLINEAGE_CONFIG", "{tmp}/file.yml", 200,
        "lineage: RuntimeError: Failed to write to log file `/nowhere/x.json`: [Errno 2] No such file or directory:",
    ),
    "no textfile folder": (
        "metrics_folder", "{tmp}/none", 200, "metrics: NotADirectoryError: [Errno 20] no such folder: '{tmp}/none'"
    ),
    "a file for a folder": (
        "metrics_folder", "{tmp}/file.yml", 200,
        "metrics: NotADirectoryError: [Errno 20] no such folder: '{tmp}/file.yml'",
    ),
    "no Pushgateway": (
        "pushgateway", "http://127.0.0.1:{port}", 200,
        "metrics: URLError: <urlopen error [Errno 111] Connection refused>",
    ),
    "a Pushgateway that refuses": ("pushgateway", "{url}", 400, "metrics: HTTPError: HTTP Error 400: Bad Request"),
    "a Pushgateway that is no URL": (
        "pushgateway", "not a url", 200,
        "metrics: InvalidURL: URL can't contain control characters. 'not a url' (found at least ' ')",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_what_does_not_arrive_is_one_warning_and_the_run_goes_on(
    case: str,
    nowhere: Settings,
    tmp_path: Path,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    name, value, receiver.status, warning = BROKEN[case]
    for file, text in (
        ("htpp", "transport: {type: htpp}"),
        ("open", "transport: ["),
        ("file", "transport: {type: file, log_file_path: /nowhere/x.json, append: true}"),
    ):
        (tmp_path / f"{file}.yml").write_text(text)
    places = {"url": receiver.url, "port": closed_port(), "tmp": tmp_path}
    value = value.format(**places)
    if name.isupper():
        monkeypatch.setenv(name, value)
    else:
        nowhere = dataclasses.replace(nowhere, **{name: Path(value) if name == "metrics_folder" else value})

    with watched(nowhere, "p", "score") as watch:
        watch.facts.run_id = "went on"

    (line,) = [record.getMessage() for record in caplog.records if record.name == "jobs.watching"]
    assert line.startswith(warning.format(**places))
    assert line.endswith(_METRICS if warning.startswith("metrics") else _LINEAGE)


@pytest.mark.parametrize(
    ("package", "ask", "warning"),
    [
        ("openlineage", lambda patch, settings: patch.setenv("OPENLINEAGE_URL", "http://127.0.0.1"), _LINEAGE),
        ("prometheus_client", lambda patch, settings: None, _METRICS),
    ],
)
def test_a_library_that_is_not_installed_is_named(
    package: str,
    ask: Callable[[pytest.MonkeyPatch, Settings], None],
    warning: str,
    nowhere: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    ask(monkeypatch, nowhere)
    if package == "prometheus_client":
        nowhere = dataclasses.replace(nowhere, metrics_folder=tmp_path)
    with watched(nowhere, "p", "score"):
        pass
    (line,) = [record.getMessage() for record in caplog.records if record.name == "jobs.watching"]
    assert "ModuleNotFoundError: " in line
    assert package in line
    assert line.endswith(warning)


def test_a_backend_that_hangs_is_left_behind_after_the_limit(
    nowhere: Settings, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(watching, "LIMIT_SECONDS", 0.2)
    receiver.goes_on.clear()
    monkeypatch.setenv("OPENLINEAGE_URL", receiver.url)
    with caplog.at_level(logging.WARNING), watched(nowhere, "p", "score"):
        pass
    assert [record.getMessage() for record in caplog.records if record.name == "jobs.watching"] == [
        f"lineage: no answer after 0.2 s{_LINEAGE}"
    ]
