"""What docs/deployment.md promises, as far as it can be shown without a YARN, a Kubernetes or a Docker."""

import importlib.metadata
import json
import os
import re
import shlex
import subprocess
import time
import urllib.request
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement

from benchmarks.sizing import ENTITIES, row, units
from jobs.cli import app
from tests.flights import make_workspace
from tests.spark_cluster import built_wheel, free_port, plain_environment

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "deployment.md").read_text()
DEPLOY = ROOT / "docs" / "deploy"


def test_the_sizing_table_follows_from_the_units_of_the_page() -> None:
    unit = units(PAGE)
    assert [line for line in PAGE.splitlines() if re.match(r"\| \d", line)] == [row(count, unit) for count in ENTITIES]


def test_a_row_of_the_sizing_table_by_hand() -> None:
    unit = {
        "score_rows_per_core_second": 1000.0,
        "verify_rows_per_core_second": 4000.0,
        "publish_entities_per_second": 100_000.0,
        "redis_bytes_per_entity": 2**30 / 1e6,
        "keep": 1.0,
        "redis_headroom": 0.5,
        "prediction_bytes_per_entity": 2**30 / 1e6,
        "feature_bytes_per_entity": 2**30 / 1e6,
    }
    # 3,600,000 / 3600 = 1000 s: 1 + 1/4 core hours; 3.6 GiB twice, and half as much again.
    assert row(3_600_000, unit) == "| 3,600,000 | 1.25 | 2 | 36 s | 10.8 GiB | 7.2 GiB | 15 |"


def submits() -> list[list[str]]:
    return [line.split()[2:] for line in PAGE.splitlines() if line.startswith("$ spark-submit ")]


def test_every_spark_submit_of_the_page_is_of_options_and_files_that_there_are() -> None:
    known = subprocess.run(
        ["spark-submit", "--help"], env=plain_environment(), capture_output=True, text=True, check=False, timeout=60
    )
    options = set(re.findall(r"(--[a-z-]+)", known.stdout + known.stderr))
    assert len(submits()) == 3
    for words in submits():
        job = next(index for index, word in enumerate(words) if word.startswith("jobs/"))
        assert (ROOT / words[job]).is_file()
        assert {word for word in words[:job] if word.startswith("--")} <= options
        assert words[job + 1 :] == ["--pipeline", "flight_delay", "--date", "2013-07-01"]
        properties = words[words.index("--properties-file") + 1]
        assert (ROOT / properties).is_file()
        settings = [words[index + 1] for index, word in enumerate(words[:job]) if word == "--conf"]
        assert all(re.fullmatch(r"spark\.[\w.]+=\S+", setting) for setting in settings)


def manifests() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DEPLOY / "api.yaml").read_text()))


def test_the_manifests_ask_for_routes_ports_and_options_that_the_api_has() -> None:
    deployment, service, budget, claim = manifests()
    assert [each["kind"] for each in (deployment, service, budget, claim)] == [
        "Deployment", "Service", "PodDisruptionBudget", "PersistentVolumeClaim"
    ]  # fmt: skip
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == service["spec"]["selector"] == labels
    assert budget["spec"]["selector"]["matchLabels"] == labels
    (api,) = deployment["spec"]["template"]["spec"]["containers"]
    port = api["ports"][0]["containerPort"]
    assert port == service["spec"]["ports"][0]["port"]
    paths = {api[probe]["httpGet"]["path"] for probe in ("readinessProbe", "livenessProbe")}
    assert paths <= set(json.loads((ROOT / "tests/golden/openapi.json").read_text())["paths"])
    command = re.search(r"^ENTRYPOINT (.*)$", (DEPLOY / "Dockerfile.api").read_text(), re.M)
    assert command
    words = [*json.loads(command[1]), *api["args"]]
    assert words[:2] == ["almanac", "serve"]
    assert words[words.index("--port") + 1] == str(port)
    assert {word for word in words if word.startswith("--")} <= serve_options()
    spec = deployment["spec"]["template"]["spec"]
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert {mount["name"] for mount in api["volumeMounts"]} <= set(volumes)
    assert volumes["store"]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]


@pytest.mark.parametrize("name", ["Dockerfile.api", "Dockerfile.spark"])
def test_an_image_gets_the_locked_version_of_each_package_for_its_python(name: str) -> None:
    command = re.search(r"^RUN (sed .*?) /tmp/almanac/requirements.lock", (DEPLOY / name).read_text(), re.M)
    assert command
    told = subprocess.run(
        [*shlex.split(command[1]), str(ROOT / "requirements.lock")], capture_output=True, text=True, check=True
    )
    constraints = [Requirement(line) for line in told.stdout.splitlines()]
    locked = re.findall(r"^[\w.-]+==", (ROOT / "requirements.lock").read_text(), re.M)
    assert len(constraints) == len(locked)
    for python in ("3.11", "3.12"):
        environment = {**default_environment(), "python_version": python, "python_full_version": f"{python}.7"}
        names = [each.name for each in constraints if each.marker is None or each.marker.evaluate(environment)]
        assert sorted(names) == sorted(set(names))


def serve_options() -> set[str]:
    group = typer.main.get_command(app)
    return {option for parameter in group.commands["serve"].params for option in parameter.opts}  # type: ignore[attr-defined]


def test_variables_of_the_deployment_files_are_ones_that_are_read() -> None:
    read = "\n".join(
        path.read_text() for folder in ("schemas", "jobs", "lookup") for path in ROOT.glob(f"{folder}/*.py")
    )
    for file in DEPLOY.iterdir():
        named = set(re.findall(r"\bALMANAC_[A-Z_]+", file.read_text()))
        assert {name for name in named if f'"{name}"' not in read} == set(), file.name
    values = yaml.safe_load((DEPLOY / "airflow-values.yaml").read_text())
    connection = next(each["value"] for each in values["env"] if each["name"] == "AIRFLOW_CONN_SPARK_DEFAULT")
    assert json.loads(connection)["conn_type"] == "spark"


def closure(project: importlib.metadata.Distribution, extra: str) -> set[str]:
    """The distributions that a project needs with an extra, and no other, as they are installed here."""
    wanted: set[str] = set()
    ahead = [(project, extra)]
    while ahead:
        distribution, extra = ahead.pop()
        for text in distribution.requires or ():
            needed = Requirement(text)
            if needed.marker and not needed.marker.evaluate({**default_environment(), "extra": extra}):
                continue
            if needed.name not in wanted:
                wanted.add(needed.name)
                installed = importlib.metadata.distribution(needed.name)
                ahead += [(installed, each) for each in (*needed.extras, "")]
    return wanted


@pytest.fixture(scope="module")
def api_environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment of the wheel and what `almanac[serve]` asks for, taken from this one."""
    folder = tmp_path_factory.mktemp("api")
    wheel = built_wheel(folder)
    venv.create(folder / "env", with_pip=False, symlinks=True)
    packages = next((folder / "env").glob("lib/python*/site-packages"))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    project = importlib.metadata.Distribution.at(next(packages.glob("almanac-*.dist-info")))
    for name in closure(project, "serve"):
        for file in importlib.metadata.files(name) or ():
            top = file.parts[0]
            if top != ".." and not (packages / top).exists():
                (packages / top).symlink_to(Path(str(file.locate())).parents[len(file.parts) - 1] / top)
    return folder / "env"


@pytest.fixture
def served(api_environment: Path, tmp_path: Path, redis_url: str) -> Iterator[tuple[str, Path]]:
    """The API of that environment, in a folder with a declaration and an empty Redis."""
    settings = make_workspace(tmp_path / "team")
    environ = plain_environment() | {
        "PATH": "/usr/bin:/bin",
        "ALMANAC_PIPELINES": str(settings.pipelines),
        "ALMANAC_STORE": str(settings.store),
        "ALMANAC_REDIS_URL": redis_url,
    }
    port = free_port()
    command = [str(api_environment / "bin" / "python"), "-m", "jobs", "serve", "--port", str(port)]
    with (tmp_path / "api.log").open("wb") as log:
        process = subprocess.Popen(command, env=environ, cwd=tmp_path, stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until_up(process, url, tmp_path / "api.log")
        yield url, api_environment
    finally:
        process.terminate()
        process.wait(timeout=20)


def wait_until_up(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    for _ in range(300):
        try:
            get(f"{url}/healthz")
        except OSError:
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        else:
            return
    raise TimeoutError(log.read_text())


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310  # ours
        return bytes(answer.read())


def test_the_api_runs_from_an_environment_with_nothing_but_its_own_packages(served: tuple[str, Path]) -> None:
    url, environment = served
    assert b"almanac_table_up" in get(f"{url}/metrics")
    asked = (
        "import importlib.util as u; print([n for n in ('pyspark', 'airflow', 'lightgbm', 'pandas') if u.find_spec(n)])"
    )
    there = subprocess.run(
        [str(environment / "bin" / "python"), "-c", asked],
        env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert there.stdout == "[]\n"
