"""Refuse pools that Airflow does not have: `python jobs/airflow_pools.py`, where its database can be asked.

Airflow lets a task whose pool is not there wait for ever, tells nobody, and keeps a task from asking for itself.
"""

import difflib
import json
import os
import shutil
import subprocess
from collections.abc import Collection, Mapping

from jobs.arguments import exit_with
from schemas.declared import PIPELINE_FILE, DeclaredPipeline
from schemas.dependencies import read_pipelines
from schemas.errors import DeclarationError, Problem, UnavailableError
from schemas.settings import Settings

_ALWAYS = "default_pool"  # Airflow makes it by itself, and keeps it


def main() -> None:
    check_pools(os.environ)


def check_pools(environ: Mapping[str, str]) -> None:
    """Return where each pool that a pipeline names is there; Airflow is asked only if one is named.

    Raises:
        DeclarationError: some are not; or Airflow is not installed.
        UnavailableError: Airflow does not say.
    """
    found = read_pipelines(Settings.from_environment(environ))
    named = {name: one.pipeline.airflow.pool for name, one in found.items() if isinstance(one, DeclaredPipeline)}
    own = {name: pool for name, pool in named.items() if pool != _ALWAYS}
    if own and (problems := pool_problems(own, known_pools(environ))):
        raise DeclarationError(*problems)


def pool_problems(named: Mapping[str, str], known: Collection[str]) -> list[Problem]:
    """What is wrong with the pools that pipelines name.

    >>> print(*pool_problems({"churn": "nihgt", "flight_delay": "night"}, ["default_pool", "night"]))
    churn/pipeline.yaml: airflow.pool: Airflow has no 'nihgt'; did you mean 'night'?; expected one of default_pool, \
night; or make it: airflow pools set nihgt SLOTS WHY [CFG_POOL]
    """
    problems = []
    for name, pool in named.items():
        if pool not in known:
            near = difflib.get_close_matches(pool, known, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            expected = f"one of {', '.join(sorted(known))}; or make it: airflow pools set {pool} SLOTS WHY"
            where = f"{name}/{PIPELINE_FILE}: airflow.pool"
            problems.append(Problem("CFG_POOL", where, f"Airflow has no '{pool}'{hint}", expected))
    return problems


def known_pools(environ: Mapping[str, str]) -> list[str]:
    """The names of Airflow's pools, by its own command.

    Raises:
        DeclarationError: it is not installed.
        UnavailableError: it does not say.
    """
    require_airflow(environ)
    command = ["airflow", "pools", "list", "--output", "json"]
    ended = subprocess.run(command, env=dict(environ), capture_output=True, text=True, check=False)
    if ended.returncode:
        reason = (ended.stderr.strip() or ended.stdout.strip()).rpartition("\n")[2]
        raise UnavailableError(
            Problem("ENV_AIRFLOW", " ".join(command), reason[:300], "the pools of Airflow's database")
        )
    return [pool["pool"] for pool in json.loads(ended.stdout[ended.stdout.index("[") :])]


def require_airflow(environ: Mapping[str, str]) -> None:
    """Return where there is an `airflow`.

    Raises:
        DeclarationError: there is none.
    """
    if shutil.which("airflow", path=environ.get("PATH")) is None:
        raise DeclarationError(Problem("ENV_AIRFLOW", "PATH", "no airflow", "the extra almanac[airflow]"))


if __name__ == "__main__":
    exit_with(main)
