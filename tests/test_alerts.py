"""The alerts are about metrics that there are, and the runbook has an entry for each."""

import datetime as dt
import re
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from lookup.metrics import Metrics
from schemas.head import ColumnSpec, Head
from tests.test_docs import ROOT, rows_of

RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((ROOT / "docs" / "alerts.yaml").read_text())["groups"] for rule in group["rules"]
]
_COLUMNS = (
    ColumnSpec(name="score", type="float64"),
    *(ColumnSpec(name=name, type="enum", values=("a",)) for name in ("model", "variant", "status")),
)
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text()


def documented_of_runs() -> dict[str, set[str]]:
    """Metrics of runs and their labels, as docs/operations.md lists them; `tests/jobs/test_watching.py` holds it."""
    rows = [row for row in rows_of("operations.md") if row[0].startswith("`almanac_")]
    return {row[0].strip("`"): {"pipeline", *re.findall(r"`(\w+)`", row[1])} for row in rows}


def documented_of_the_api() -> dict[str, set[str]]:
    names = [re.fullmatch(r"`(\w+)(?:\{([\w,]*)\})?`", row[0]) for row in rows_of("api.md")]
    return {name[1]: set((name[2] or "").split(",")) - {""} for name in names if name and name[1].startswith("almanac")}


def test_the_page_lists_the_metrics_that_the_api_tells() -> None:
    metrics = Metrics()
    metrics.begin()
    metrics.end("/v1", 200, 0.1)
    metrics.lookups("t", "unknown")
    metrics.flagged("t", "STORE_DOWN", 1)
    head = Head(
        table="t", release=1, date="2013-07-01", version=1, token=1, buckets=1, entities=1,
        columns=_COLUMNS, run_id="run", scored_at="2013-07-01T00:00:00Z",
    )  # fmt: skip
    page = metrics.page({"t": head}, dt.datetime(2013, 7, 2, tzinfo=dt.UTC), {"t": False}).decode()
    told = {
        sample.name.removesuffix("_bucket"): set(sample.labels) - {"le"}
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if not sample.name.endswith(("_created", "_sum", "_count"))
    }
    assert told == documented_of_the_api()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["alert"]))
def test_an_alert_asks_for_metrics_and_labels_that_there_are(rule: dict[str, Any]) -> None:
    known = documented_of_the_api() | documented_of_runs()
    used = re.findall(r"\b(almanac_\w+)(?:\{([^}]*)\})?", rule["expr"])
    assert used
    for name, matchers in used:
        labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers))
        assert labels <= known[name.removesuffix("_bucket")] | {"le"}, name
    shown = set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"])))
    assert shown <= set().union(*(known[name.removesuffix("_bucket")] for name, _ in used))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["alert"]))
def test_an_alert_has_its_entry_in_the_runbook(rule: dict[str, Any]) -> None:
    assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert rule["annotations"]["runbook"] == f"docs/runbook.md#{rule['alert'].lower()}"
    _, _, entry = RUNBOOK.partition(f"\n### {rule['alert']}\n")
    entry = entry.partition("\n### ")[0]
    assert all(f"**{part}:**" in entry.replace("**do:**", "**Do:**") for part in ("Means", "Look", "Do"))


def test_the_runbook_has_no_entry_without_an_alert() -> None:
    assert sorted(re.findall(r"^### (\w+)$", RUNBOOK, re.M)) == sorted(rule["alert"] for rule in RULES)
