"""The seconds of the commands: train, run, run again, look up, roll back; and of the DAG file's import."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from benchmarks.figure import Samples
from benchmarks.workplace import BIN, DATES, PIPELINE, Ended, MeasurementError, Workplace, environment, run_command
from lookup.connect import connect
from lookup.embedded import running_url
from lookup.store import Store
from schemas.run import ENTITY_ID, PREDICTIONS

STAGES = ("check_inputs", "score", "verify", "gate", "publish", "smoke")
_IMPORT_DAG = """
import sys, time
import airflow.sdk
from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator
from importlib.util import module_from_spec, spec_from_file_location
started = time.perf_counter()
spec = spec_from_file_location("scoring", sys.argv[1])
module = module_from_spec(spec)
spec.loader.exec_module(module)
seconds = time.perf_counter() - started
assert module.almanac_flight_delay.task_dict
print(seconds)
"""


def train(place: Workplace) -> Samples:
    return {"train_seconds": [place.trained[1]]}


def run(place: Workplace) -> Samples:
    """Three runs, each in a fresh process with a fresh store."""
    runs = []
    for _ in range(3):
        with place.store() as store:
            runs.append(place.run(DATES[0], store=store))
    by_stage = {f"run_{stage}_seconds": [float(ended.json["seconds"][stage]) for ended in runs] for stage in STAGES}
    outside = [round(ended.seconds - sum(ended.json["seconds"].values()), 3) for ended in runs]
    return {**by_stage, "run_outside_stages_seconds": outside, "run_seconds": [ended.seconds for ended in runs]}


def live(place: Workplace) -> Samples:
    """What is done with two published runs: run again, look up, roll back."""
    with place.store() as store:
        published = [place.run(date, store=store).json for date in DATES]
        flight = _some_flight(store, published[-1]["run_id"])
        again = [place.run(DATES[-1], store=store) for _ in range(3)]
        if any(ended.json["published"]["outcome"] != "already live" for ended in again):
            raise MeasurementError(f"a run of {DATES[-1]} that is live already published something")
        looked_up = [place.almanac("lookup", PIPELINE, flight, "--json", store=store) for _ in range(5)]
        if any(ended.json[0]["status"] != "exact" for ended in looked_up):
            raise MeasurementError(f"{flight} is not in the live release")
        client = connect(str(running_url(store)))
        rollbacks, flips = [], []
        for release in ("1", "2", "1"):
            client.config_resetstat()
            # There and back again: what was left by a rollback is gone to with --force only.
            command = ("rollback", PIPELINE, "--to", release, "--force", "--json")
            rollbacks.append(_rolled_back(place.almanac(*command, store=store)))
            flips.append(_script_seconds(client.info("commandstats")))
        client.close()
    return {
        "rerun_seconds": [ended.seconds for ended in again],
        "lookup_seconds": [ended.seconds for ended in looked_up],
        "rollback_seconds": [ended.seconds for ended in rollbacks],
        "rollback_step_seconds": [float(ended.json["seconds"]["roll_back"]) for ended in rollbacks],
        "rollback_flip_seconds": flips,
    }


def _some_flight(store: Path, run_id: str) -> str:
    return str(pq.read_table(Store(store, PIPELINE).run_folder(run_id) / PREDICTIONS, columns=[ENTITY_ID])[0][0])


def _rolled_back(ended: Ended) -> Ended:
    if ended.json["outcome"] != "live" or ended.json["release"] == ended.json["previous"]:
        raise MeasurementError(f"a rollback changed nothing: {ended.out}")
    return ended


def _script_seconds(stats: dict[str, Any]) -> float:
    """What Redis itself counted for the one script that moves the head, and for loading it."""
    return (
        float(sum(stats[name]["usec"] for name in stats if name.startswith(("cmdstat_eval", "cmdstat_script")))) / 1e6
    )


def dag_import(place: Workplace) -> Samples:
    """Five imports in fresh processes; what Airflow itself imports is there before the clock starts."""
    file = place.team / "dags" / "scoring.py"
    environ = {**environment(), "AIRFLOW_HOME": str(place.folder / "airflow")}
    command: list[str | Path] = [BIN / "python", "-c", _IMPORT_DAG, file]
    samples = [float(run_command(command, cwd=place.team, environ=environ).out.split()[-1]) for _ in range(5)]
    return {"dag_import_seconds": [round(seconds, 4) for seconds in samples]}
