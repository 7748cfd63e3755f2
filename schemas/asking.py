"""What a person, an asset or the schedule asks of a run: its parameters, and the date that they come to."""

import datetime as dt
import difflib
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from schemas.pipeline import Pipeline

_JSON_TYPES = {"string": "string", "date": "string", "int": "integer", "float": "number", "bool": "boolean"}


def parameter_problem(given: Collection[str], params: Mapping[str, Any]) -> str | None:
    """What is wrong with the parameters of a run by hand; None where its DAG has them all, and they go together.

    Airflow takes any parameter without a word: with a misspelt dry_run it would publish.

    Args:
        given: Names of those that were given.
        params: Those that the DAG has, with their values now.

    >>> parameter_problem(["dry-run"], {"date": None, "dry_run": False})
    "parameter 'dry-run': unknown; did you mean 'dry_run'?; expected one of date, dry_run"
    """
    if unknown := sorted(set(given) - set(params)):
        near = difflib.get_close_matches(unknown[0], params, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        return f"parameter '{unknown[0]}': unknown{hint}; expected one of {', '.join(params)}"
    if bool(params.get("override_checks")) != bool((params.get("override_reason") or "").strip()):
        return "parameters override_checks and override_reason: one without the other; expected both"
    return None


def parameter_forms(pipeline: Pipeline) -> dict[str, dict[str, Any]]:
    """Of each declared parameter what Airflow's form for a run by hand is made of."""
    return {
        name: {
            "default": str(one.default) if isinstance(one.default, dt.date) else one.default,
            "type": ["null", _JSON_TYPES[one.type]],
            "description": one.description or f"Of the pipeline: {one.expected}.",
        }
        for name, one in pipeline.parameters.items()
    }


def parameters_argument(names: Iterable[str]) -> list[str]:
    """The template of a job's argument that passes these parameters on as JSON: each with its type, all in one word.

    >>> parameters_argument(["region"]), parameters_argument([])
    (["--parameters={{ {'region': params.region} | tojson }}"], [])
    """
    given = ", ".join(f"'{name}': params.{name}" for name in names)
    return [f"--parameters={{{{ {{{given}}} | tojson }}}}"] if given else []


def logical_date(asked: str | None, updates: Iterable[Mapping[str, Any]], due: dt.datetime) -> str:
    """The date that a run is of: as asked for, else the latest that updated assets name, else that when it was due.

    Args:
        asked: By hand.
        updates: What each updated asset says of itself; `date` is looked at.
        due: When the run is scheduled, or was triggered.

    >>> logical_date(None, [{"date": "2013-07-01"}, {"rows": 7}], dt.datetime(2013, 7, 2, tzinfo=dt.UTC))
    '2013-07-01'
    """
    told = [str(update["date"]) for update in updates if update.get("date")]
    return asked or max(told, default=due.astimezone(dt.UTC).date().isoformat())
