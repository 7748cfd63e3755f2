"""The pipeline of made-up accounts that is scored, and verified: 24 numbers and 6 words a row."""

import datetime as dt
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

NAME, KEY = "accounts", "account"
TRAINED_ON, SCORED_FOR = dt.date(2013, 7, 1), dt.date(2013, 7, 2)
TRAINING_ROWS = 50_000
NUMBERS = [f"n{index:02}" for index in range(24)]
WORDS = [f"c{index}" for index in range(6)]
SEED = 20130701


class _PlainDumper(yaml.SafeDumper):
    """Writes what the declaration's reader takes."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002  # no value may be an alias, whatever it is
        return True


def write_yaml(path: Path, document: Any) -> None:
    """A file that a declaration's reader takes."""
    path.write_text(yaml.dump(document, Dumper=_PlainDumper))


def pipeline(data: Path, *, key_type: str, description: str) -> dict[str, Any]:
    """The declaration, of rows under `data` with a folder a day."""
    columns = {KEY: key_type, **dict.fromkeys(NUMBERS, "float64"), **dict.fromkeys(WORDS, "string")}
    source = {"path": str(data), "partition_by": "date", "days": 1, "columns": columns, "forbidden": ["bought"]}
    return {
        "pipeline": NAME,
        "description": description,
        "owner": "benchmarks",
        "schedule": "@daily",
        "start": TRAINED_ON,
        "entity": {"source": "accounts", "key": [KEY]},
        "sources": {"accounts": source},
        "features": {"sql": "features.sql", "numeric": NUMBERS, "categorical": WORDS},
        "models": {"champion": {"bundle": "latest"}},
        "training": {
            "label": "bought = 1",
            "objective": "binary",
            "start": TRAINED_ON,
            "end": TRAINED_ON,
            "split": {"holdout_share": 0.2},
            "rounds": 200,
            "params": {"num_leaves": 31, "learning_rate": 0.1},
        },
    }


def features_sql(columns: Sequence[str]) -> str:
    """The query of these columns for a day."""
    return f"SELECT {KEY}, {', '.join(columns)} FROM accounts WHERE date = :ds\n"  # noqa: S608  # names of our own
