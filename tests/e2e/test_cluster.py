"""A Spark standalone cluster whose workers have nothing of ours but what is sent along with a job."""

import inspect
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

import jobs.tasks
import tests.arms
from jobs.shortcut import SCRATCH
from jobs.stages import check_inputs, score
from lookup.store import Store
from schemas.run import PREDICTIONS, RunManifest, Way
from schemas.settings import Settings
from tests.arms import ENTITIES, SHARE
from tests.conftest import ROOT
from tests.jobs import people
from tests.jobs.runs import DATE, PIPELINE
from tests.spark_cluster import (
    Cluster,
    built_wheel,
    kill_executor_that_writes,
    plain_environment,
    python_without_us,
    spark_cluster,
)

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = [pytest.mark.spark, pytest.mark.e2e]

_SCORE = ("--pipeline", PIPELINE, "--date", str(DATE))
# Scores, then asks each executor where the code came from, and who is dealt to a challenger there.
_SCORE_AND_ASK = """
import json, sys
from jobs.arguments import exit_with
from jobs.score import main

def origin(_):
    import jobs, lookup.writer, schemas
    return jobs.__file__, lookup.writer.__file__, schemas.__file__

def work():
    main()
    from pyspark.sql import SparkSession
    session = SparkSession.builder.getOrCreate()
    print("ORIGINS", json.dumps(session.sparkContext.parallelize(range(4), 4).map(origin).distinct().collect()))
    print("ARMS", json.dumps([arms(session, partitions) for partitions in (2, 7)]))

exit_with(work)
"""
# Scores in files of few rows: what is read on one worker is scored on the other.
_FEW_ROWS = 90
_SCORE_IN_PARTS = f"""
import jobs.tasks
from jobs.arguments import exit_with
from jobs.score import main

jobs.tasks.ROWS_PER_FILE = {_FEW_ROWS}
exit_with(main)
"""


class Submitted(NamedTuple):
    """What a job needs: the cluster, the code as it is sent, and a Python that has neither."""

    cluster: Cluster
    package: Path
    python: Path
    environ: dict[str, str]

    def command(self, job: Path, *arguments: str, package: Path | None = None, conf: tuple[str, ...] = ()) -> list[str]:
        options = ["--master", self.cluster.url, "--properties-file", str(ROOT / "spark-conf/standalone.properties")]
        settings = (
            "spark.executor.memory=512m",
            "spark.driver.memory=512m",
            "spark.ui.enabled=false",
            "spark.sql.shuffle.partitions=2",
            *conf,
        )
        options += [word for setting in settings for word in ("--conf", setting)]
        return ["spark-submit", *options, "--py-files", str(package or self.package), str(job), *arguments]


@pytest.fixture(scope="module")
def submitted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Submitted]:
    folder = tmp_path_factory.mktemp("cluster")
    wheel = built_wheel(folder)
    package = Path(shutil.copy(wheel, folder / "almanac.zip"))
    python = python_without_us(folder / "python")
    environ = plain_environment() | {"PYSPARK_PYTHON": str(python), "ALMANAC_LOG_FORMAT": "json"}
    with spark_cluster(folder, workers=2) as cluster:
        yield Submitted(cluster, package, python, environ)


@pytest.fixture(scope="module")
def expected(trained_workspace: Path, spark: "SparkSession", tmp_path_factory: pytest.TempPathFactory) -> RunManifest:
    """The run as one machine makes it."""
    root = tmp_path_factory.mktemp("one-machine") / "team"
    shutil.copytree(trained_workspace, root)
    plan = check_inputs(Settings(pipelines=root / "dags", store=root / "store"), PIPELINE, DATE)
    return score(plan, lambda: spark.newSession())


@pytest.fixture(scope="module")
def trained_people(spark: "SparkSession", tmp_path_factory: pytest.TempPathFactory) -> Path:
    return people.trained(tmp_path_factory.mktemp("people"), spark.newSession())


@pytest.fixture
def team(trained_workspace: Path, tmp_path: Path, submitted: Submitted) -> Settings:
    """A folder of its own, which the environment of submitted jobs names."""
    root = tmp_path / "team"
    shutil.copytree(trained_workspace, root)
    submitted.environ.update(ALMANAC_PIPELINES=str(root / "dags"), ALMANAC_STORE=str(root / "store"))
    return Settings(pipelines=root / "dags", store=root / "store")


def run(command: list[str], environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=300)


def test_a_cluster_with_the_code_sent_along_makes_the_bytes_of_one_machine(
    submitted: Submitted, team: Settings, expected: RunManifest, spark: "SparkSession", tmp_path: Path
) -> None:
    job = tmp_path / "score_and_ask.py"
    job.write_text(inspect.getsource(tests.arms) + _SCORE_AND_ASK)
    ended = run(submitted.command(job, *_SCORE), submitted.environ)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    origins = json.loads(ended.stdout.partition("ORIGINS ")[2].partition("\n")[0])
    assert {path.rpartition("almanac.zip/")[2] for paths in origins for path in paths} == {
        "jobs/__init__.py", "lookup/writer.py", "schemas/__init__.py"
    }  # fmt: skip
    assert all("/almanac.zip/" in path and str(ROOT) not in path for paths in origins for path in paths)
    dealt = json.loads(ended.stdout.partition("ARMS ")[2].partition("\n")[0])
    # An entity keeps its arm, whatever the partitions and wherever it is dealt.
    assert dealt == [list(tests.arms.arms(spark, 3))] * 2
    assert abs(dealt[0][0] - ENTITIES * SHARE) < 4 * sqrt(ENTITIES * SHARE * (1 - SHARE))
    made = Store(team.store, PIPELINE).manifest(expected.run_id)
    assert (made.content, made.counts) == (expected.content, expected.counts)
    assert [file.sha256 for file in made.files] == [file.sha256 for file in expected.files]
    said = "".join(path.read_text() for path in submitted.cluster.work.glob("*/*/stderr"))
    lines = [json.loads(line) for line in said.splitlines() if line.startswith('{"time"')]
    assert {(line["logger"], line["run_id"]) for line in lines} >= {("jobs.tasks", expected.run_id)}


@pytest.mark.parametrize(
    ("routes", "challengers", "way"),
    [
        (["word = 'w1'", "born < '1990-01-04' AND NOT f >= 0.5"], [], Way(name="short")),
        ([], ["ab"], Way(name="long", why="challengers are dealt their rows by Spark")),
    ],
    ids=["by the short way", "with arms, by the long way"],
)
def test_a_cluster_goes_the_way_of_one_machine_and_gives_every_row_to_the_same_model(
    routes: list[str],
    challengers: list[str],
    way: Way,
    submitted: Submitted,
    trained_people: Path,
    spark: "SparkSession",
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    models = people.routed(trained_people, routes)
    bundle = (trained_people / people.NAME / "bundles" / "latest.txt").read_text().strip()
    models["challengers"] = [
        {"name": "new", "mode": mode, "bundle": bundle, "share": SHARE, "salt": "autumn"} for mode in challengers
    ]
    alone = people.declare(tmp_path / "team", people.rows(500), models=models)
    there = Settings(pipelines=alone.pipelines, store=tmp_path / "there")
    for settings in (alone, there):
        shutil.copytree(trained_people, settings.store)
    monkeypatch.setattr(jobs.tasks, "ROWS_PER_FILE", _FEW_ROWS)
    expected = score(check_inputs(alone, people.NAME, people.DAY), lambda: spark.newSession())
    job = tmp_path / "score_in_parts.py"
    job.write_text(_SCORE_IN_PARTS)
    environ = {"ALMANAC_PIPELINES": str(there.pipelines), "ALMANAC_STORE": str(there.store)}

    command = submitted.command(job, "--pipeline", people.NAME, "--date", str(people.DAY))
    ended = run(command, submitted.environ | environ)

    assert ended.returncode == 0, ended.stdout + ended.stderr
    made = Store(there.store, people.NAME).manifest(expected.run_id)
    assert made.way == expected.way == way
    assert (made.content, made.counts, made.files) == (expected.content, expected.counts, expected.files)
    assert len(made.files_in(PREDICTIONS)) > 4
    assert {*made.counts.variants} == {
        "champion",
        *(f"r{at}" for at in range(len(routes))),
        *["new"] * len(challengers),
    }
    assert not list((there.store / people.NAME / "runs").glob(f"*/{SCRATCH}"))


def test_an_executor_killed_while_it_scores_costs_a_retry_and_no_byte(
    submitted: Submitted, team: Settings, expected: RunManifest
) -> None:
    command = submitted.command(ROOT / "jobs" / "score.py", *_SCORE)
    with subprocess.Popen(
        command, env=submitted.environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as job:
        staged = f"{PIPELINE}/runs/.staging-*/predictions/.*.parquet-*"  # the name before it is whole
        killed = kill_executor_that_writes(staged, team.store, while_runs=job)
        said, _ = job.communicate(timeout=300)
    assert job.returncode == 0, said
    assert not Path(f"/proc/{killed}").exists()
    made = Store(team.store, PIPELINE).manifest(expected.run_id)
    assert [file.sha256 for file in made.files] == [file.sha256 for file in expected.files]
    assert not list((team.store / PIPELINE / "runs").glob(".staging-*"))
    assert not list((team.store / PIPELINE / "runs").glob("*/*/.*"))  # nor the half that the killed one wrote


def test_workers_without_the_code_are_told_in_one_line(submitted: Submitted, team: Settings, tmp_path: Path) -> None:
    half = tmp_path / "half.zip"
    with zipfile.ZipFile(submitted.package) as whole, zipfile.ZipFile(half, "w") as cut:
        for name in whole.namelist():
            if not name.startswith("lookup/"):
                cut.writestr(name, whole.read(name))
    # The driver has all of it, as where the wheel is installed; only what is sent to the workers lacks a part.
    environ = submitted.environ | {"PYSPARK_DRIVER_PYTHON": sys.executable, "PYTHONPATH": str(ROOT)}
    command = submitted.command(ROOT / "jobs" / "score.py", *_SCORE, package=half, conf=("spark.task.maxFailures=1",))
    ended = run(command, environ)
    assert ended.returncode == 2, ended.stdout + ended.stderr
    told = [json.loads(line)["message"] for line in ended.stdout.splitlines() if line.startswith('{"time"')]
    assert told[-1] == (
        "Spark's Python workers: No module named 'lookup'; expected this code (--py-files almanac.zip) and its "
        "packages on every executor; see docs/deployment.md [SPARK_PYTHON]"
    )


@pytest.mark.parametrize(
    ("conf", "message"),
    [
        (
            ("spark.executor.memory=64g", "spark.almanac.executorWaitSeconds=2"),
            "no executor after 2 s (spark.almanac.executorWaitSeconds); expected a worker with free cores and 64g of "
            "memory [SPARK_NO_EXECUTOR]",
        ),
        (
            ("spark.executor.memory=1m",),
            "Spark: org.apache.spark.SparkIllegalArgumentException: [INVALID_EXECUTOR_MEMORY.CONFIG_MEMORY] "
            "Insufficient executor memory: Executor memory 1048576 must be at least 471859200.; expected a master "
            "that answers, and settings that Spark takes; its log says more [SPARK_START]",
        ),
    ],
)  # fmt: skip
def test_a_cluster_that_gives_no_executor_is_told_in_one_line(
    submitted: Submitted, team: Settings, conf: tuple[str, ...], message: str
) -> None:
    ended = run(submitted.command(ROOT / "jobs" / "score.py", *_SCORE, conf=conf), submitted.environ)
    assert ended.returncode == 1, ended.stdout + ended.stderr
    told = [json.loads(line)["message"] for line in ended.stdout.splitlines() if line.startswith('{"time"')]
    assert told[-1].removeprefix(f"{submitted.cluster.url}: ") == message
