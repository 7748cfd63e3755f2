"""What is asked of a run by hand, by assets and by other pipelines, and each way to ask it wrongly."""

import datetime as dt
import json
import shutil
from pathlib import Path
from typing import Any

import jinja2
import pytest

from schemas.asking import logical_date, parameter_problem, parameters_argument
from schemas.binding import given_as_json
from schemas.declared import DeclaredPipeline, load_pipeline
from schemas.dependencies import dependency_problems, read_pipelines
from schemas.errors import DeclarationError
from schemas.settings import Settings
from tests.dags.conftest import DAGS, dag_shape
from tests.e2e.conftest import run_program
from tests.flights import rewrite

PARAMS = {"date": None, "dry_run": False, "override_checks": [], "override_reason": None}

BAD_PARAMETERS = {
    "a misspelt one": (["dry-run"], {}, "parameter 'dry-run': unknown; did you mean 'dry_run'?; expected one of"),
    "one that nobody has": (["region"], {}, "parameter 'region': unknown; expected one of date, dry_run"),
    "checks without a reason": ([], {"override_checks": ["a"]}, "override_checks and override_reason: one without"),
    "a reason without checks": ([], {"override_reason": "sure"}, "override_checks and override_reason: one without"),
    "a blank reason": ([], {"override_checks": ["a"], "override_reason": " "}, "one without the other"),
}


@pytest.mark.parametrize("name", BAD_PARAMETERS)
def test_parameters_that_a_run_cannot_have_are_told(name: str) -> None:
    given, values, told = BAD_PARAMETERS[name]

    assert told in str(parameter_problem(given, PARAMS | values))


def test_parameters_that_go_together_are_no_problem() -> None:
    both = PARAMS | {"override_checks": ["slices"], "override_reason": "a strike"}

    assert parameter_problem([*PARAMS], both) is None


def test_the_value_of_a_pipelines_own_parameter_reaches_a_job_as_it_was_given() -> None:
    (template,) = parameters_argument(["region", "factor", "left_out"])
    nasty = {"region": "E'U \" }} {% <x>\\", "factor": 1.5, "left_out": None}

    argument = jinja2.Environment().from_string(template).render(params=nasty)  # noqa: S701  # no page

    assert given_as_json(argument.removeprefix("--parameters=")) == {"region": nasty["region"], "factor": 1.5}


@pytest.mark.airflow
def test_a_pipelines_own_parameters_are_in_its_form_and_go_to_every_stage_that_plans(
    airflow: dict[str, str],
    tmp_path: Path,
) -> None:
    shutil.copytree(DAGS, tmp_path / "dags")
    own = "\nparameters:\n  region: {allowed: [EU, US]}\n  day: {type: date, default: 2013-07-01}\nfeatures:\n"
    rewrite(tmp_path / "dags/flight_delay/pipeline.yaml", ("\nfeatures:\n", own))

    found = dag_shape(airflow | {"ALMANAC_PIPELINES": str(tmp_path / "dags")}, tmp_path / "dags")

    assert found["errors"] == {}
    dag: Any = found["dag"]
    assert {"date", "dry_run", "region", "day"} <= {*dag["params"]}
    for stage in ("score", "verify"):
        assert dag["tasks"][stage]["arguments"][-1] == parameters_argument(["region", "day"])[0]
    assert "`region` (one of EU, US)" in str(found["doc"])


@pytest.mark.parametrize(
    ("asked", "updates", "date"),
    [
        ("2013-07-05", [{"date": "2013-07-01"}], "2013-07-05"),
        (None, [{"date": "2013-07-01"}, {"date": "2013-07-03"}, {"rows": 7}], "2013-07-03"),
        (None, [{"rows": 7}], "2013-07-02"),
    ],
)
def test_a_run_is_of_the_date_that_is_asked_for_or_that_assets_name_or_when_it_was_due(
    asked: str | None, updates: list[dict[str, object]], date: str
) -> None:
    due = dt.datetime(2013, 7, 2, 1, tzinfo=dt.timezone(dt.timedelta(hours=1)))

    assert logical_date(asked, updates, due) == date


def declared(folder: Path, **changes: str) -> Settings:
    """Pipelines of these names, each with a line of its own at the end of its declaration."""
    for name, line in changes.items():
        shutil.copytree(DAGS / "flight_delay", folder / name)
        path = folder / name / "pipeline.yaml"
        rewrite(path, ("pipeline: flight_delay", f"pipeline: {name}"))
        path.write_text(path.read_text().partition("\nairflow:")[0] + line + "\n")  # instead of the demo's own
    return Settings(pipelines=folder, store=folder / "store")


BAD_DECLARATIONS = {
    "its own release": ("airflow: {after: [a]}", "a pipeline cannot wait for its own release"),
    "twice the same": ("airflow: {after: [b, b]}", "declared twice: b"),
    "an asset of no source": ("airflow: {assets: {fligths: raw}}", "'fligths' is not declared under sources"),
    "an end before the start": ("airflow: {end_date: 2013-06-30}", "end_date 2013-06-30 is before start 2013-07-01"),
    "negative retries": ("airflow: {retries: -1}", "airflow.retries"),
    "no time at all": ("airflow: {execution_timeout_minutes: 0}", "airflow.execution_timeout_minutes"),
    "a connection's name with a slash": ("airflow: {conn_id: a/b}", "airflow.conn_id"),
    "a misspelt key": ("airflow: {pol: x}", "airflow.pol: unknown key; did you mean 'pool'?"),
}


@pytest.mark.parametrize("name", BAD_DECLARATIONS)
def test_a_schedule_that_cannot_be_is_refused_with_its_place(tmp_path: Path, name: str) -> None:
    line, told = BAD_DECLARATIONS[name]
    settings = declared(tmp_path, a=line)

    with pytest.raises(DeclarationError) as caught:
        load_pipeline(settings, "a")
    assert told in str(caught.value)


def test_what_airflow_does_with_a_pipeline_makes_no_other_run_of_it(tmp_path: Path) -> None:
    settings = declared(tmp_path, a="", b="airflow: {pool: night, retries: 5}")
    rewrite(tmp_path / "b" / "pipeline.yaml", ("pipeline: b", "pipeline: a"))
    (tmp_path / "a").rename(tmp_path / "old")
    before = None
    for folder in ("old", "b"):
        (tmp_path / folder).rename(tmp_path / "a")
        digest = load_pipeline(settings, "a").digest
        assert before in (None, digest)
        before = digest
        (tmp_path / "a").rename(tmp_path / folder)


def test_pipelines_that_wait_for_one_another_in_a_circle_are_all_told_and_the_others_go_on(tmp_path: Path) -> None:
    settings = declared(
        tmp_path,
        a="airflow: {after: [b]}",
        b="airflow: {after: [c]}",
        c="airflow: {after: [a]}",
        d="airflow: {after: [a]}",
    )

    found = read_pipelines(settings)

    told = {str(found[name]).partition(";")[0] for name in "abc"}
    assert told == {"a/pipeline.yaml: airflow.after: a cycle, a -> b -> c -> a"}
    assert isinstance(found["d"], DeclaredPipeline)


def test_a_pipeline_that_waits_for_none_is_told_what_there_is() -> None:
    problems = dependency_problems({"churn": ["flight_delays"], "flight_delay": []})

    assert str(problems["churn"]).startswith(
        "churn/pipeline.yaml: airflow.after: no pipeline 'flight_delays' is declared"
    )
    assert "did you mean 'flight_delay'?" in str(problems["churn"])


def test_two_folders_that_declare_one_name_are_told(tmp_path: Path) -> None:
    settings = declared(tmp_path, a="", b="")
    rewrite(tmp_path / "b" / "pipeline.yaml", ("pipeline: b", "pipeline: a"))

    with pytest.raises(
        DeclarationError, match=r"'a', which another folder declares too; expected the folder's name, 'b'"
    ):
        load_pipeline(settings, "b")


_CONNECT = """
import sys
sys.path.insert(0, sys.argv[1])
import scoring
stage = next(task for task in scoring.almanac_flight_delay.tasks if task.task_id == "score")
try:
    stage._refuse_connection()
except Exception as err:
    print(type(err).__name__ + ": " + str(err))
else:
    print("taken")
"""

CONNECTIONS: dict[str, tuple[dict[str, object] | None, str]] = {
    "none": (
        None,
        "AirflowFailException: connection 'spark_default': not found or not readable; expected one named in",
    ),
    "local": ({"conn_type": "spark", "host": "local[2]"}, "taken"),
    "a cluster": ({"conn_type": "spark", "host": "spark://10.0.0.1", "port": 7077}, "taken"),
    "kubernetes without its package": (
        {"conn_type": "spark", "host": "k8s://https://10.0.0.1:6443"}, "needs the package apache-airflow-provid",
    ),
    "a typing error": (
        {"conn_type": "spark", "host": "local[2"},
        "its master is 'local[2'; expected local[N], spark://",
    ),
    "another product's": ({"conn_type": "spark", "host": "redis://10.0.0.1"}, "its master is 'redis://10.0.0.1'"),
}  # fmt: skip


@pytest.mark.airflow
@pytest.mark.parametrize("name", CONNECTIONS)
def test_a_connection_that_airflow_would_take_for_yarn_is_refused(
    airflow: dict[str, str],
    name: str,
) -> None:
    value, told = CONNECTIONS[name]
    environ = {key: each for key, each in airflow.items() if key != "AIRFLOW_CONN_SPARK_DEFAULT"}
    if value is not None:
        environ["AIRFLOW_CONN_SPARK_DEFAULT"] = json.dumps(value)

    ended = run_program("python", "-c", _CONNECT, str(DAGS), cwd=DAGS.parent, environ=environ)

    assert told in ended.out, ended.err
