"""A contest is ended: who is served by whom then, in the table and in later runs, whatever was killed on the way."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc
import pytest

from jobs.deciding import Decided, abort, promote
from jobs.publishing import publisher
from jobs.stages import check_inputs
from lookup.embedded import free_port
from lookup.erasing import erase
from lookup.publisher import Publisher
from lookup.store import Store
from lookup.table import RedisTable
from schemas.declared import load_pipeline
from schemas.errors import AlmanacError, BlockedError, DeclarationError, InputError, RefusedError, UnavailableError
from schemas.report import Verdict
from schemas.run import FEATURES, PREDICTIONS, PRIORS, QUARANTINE, SHADOW, RunManifest
from schemas.settings import Settings
from tests.flights import rewrite
from tests.jobs.runs import DATE, NEXT, PIPELINE, WEEK, almanac, declare, live_run, look_up, rows

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark

CANARY = "challengers: [{name: canary, mode: canary, share: 0.3, rounds: 5}]"
SHADOWED = "challengers: [{name: fewer, mode: shadow, rounds: 5}]"
WHY = "it is late for everybody"

End = Callable[..., Decided]


@pytest.fixture
def ended(settings: Settings, spark: "SparkSession") -> End:
    """Abort in the pipeline of the test."""
    return partial(abort, settings, PIPELINE, reason=WHY, spark=lambda: spark)


def live_manifest(settings: Settings) -> RunManifest:
    run_id = live_run(settings)
    assert run_id
    return Store(settings.store, PIPELINE).manifest(run_id)


@contextmanager
def served(settings: Settings) -> Iterator[Callable[[str], dict[str, Any]]]:
    """The read API in a process of its own, and what it answers for an entity."""
    port = free_port()
    ours = {"PIPELINES": settings.pipelines, "STORE": settings.store, "REDIS_URL": settings.redis_url}
    environ = {**os.environ, **{f"ALMANAC_{name}": str(value) for name, value in ours.items()}}
    command = [sys.executable, "-m", "jobs", "serve", "--port", str(port)]

    def ask(path: str) -> dict[str, Any]:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as page:  # ours
            return json.loads(page.read() or b"{}")  # type: ignore[no-any-return]

    with subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            for _ in range(300):
                with suppress(OSError):
                    ask("/readyz")
                    break
                time.sleep(0.1)
            yield lambda entity: ask(f"/v1/{PIPELINE}/{entity}")
        finally:
            server.terminate()


def test_after_an_abort_every_entity_reads_what_the_champion_says_and_no_later_run_deals_to_the_challenger(
    settings: Settings, spark: "SparkSession", ended: End
) -> None:
    declare(settings, spark, CANARY)
    before = almanac(settings).manifest
    ids = rows(settings, before, PREDICTIONS).column("entity_id").to_pylist()
    assert before.counts.variants["canary"] > 0

    its = rows(settings, before, SHADOW).column("entity_id")[0].as_py()
    with served(settings) as api_says:
        assert api_says(its)["variant"] == "canary"
        done = ended("canary")
        assert api_says(its)["variant"] == "champion"

    manifest = live_manifest(settings)
    assert (done.is_new, done.run_id, manifest.amends) == (True, manifest.run_id, before.run_id)
    assert {answer.variant for answer in look_up(settings, *ids)} == {"champion"}
    answers = {answer.id: answer.outputs["score"] for answer in look_up(settings, *ids)}
    alone = almanac(settings).manifest  # of the same date, scored anew, and by the decision without the challenger
    assert alone.amends is None
    assert alone.run_id not in (before.run_id, manifest.run_id)
    truth = rows(settings, alone, PREDICTIONS)
    assert answers == dict(zip(truth.column("entity_id").to_pylist(), truth.column("score").to_pylist(), strict=True))
    assert manifest.content == alone.content  # to the byte what would have been scored without it
    for part in (PREDICTIONS, FEATURES, PRIORS, SHADOW):
        kept = [[file.sha256 for file in run.files_in(part)] for run in (manifest, alone)]
        assert kept[0] == kept[1], part
    assert manifest.counts == alone.counts
    assert manifest.models == {"champion": alone.models["champion"]}
    (kept_decision,) = Store(settings.store, PIPELINE).decisions.entries()
    assert (kept_decision.kind, kept_decision.challenger, kept_decision.reason) == ("abort", "canary", WHY)
    assert kept_decision.bundle == before.models["canary"]
    again = almanac(settings, NEXT)
    assert [*again.manifest.models] == ["champion"]
    assert again.report.verdict is Verdict.PASS
    assert again.report.decisions == (str(kept_decision),)
    assert WHY in (Store(settings.store, PIPELINE).run_folder(again.manifest.run_id) / "report.html").read_text()


def test_another_declaration_of_the_challenger_is_a_new_contest(
    settings: Settings, spark: "SparkSession", ended: End
) -> None:
    declare(settings, spark, CANARY)
    planned = check_inputs(settings, PIPELINE, DATE).run_id
    ended("canary")
    aborted = check_inputs(settings, PIPELINE, DATE)
    rewrite(settings.pipelines / PIPELINE / "pipeline.yaml", ("share: 0.3", "share: 0.3, salt: again"))

    anew = check_inputs(settings, PIPELINE, DATE)

    assert len({planned, aborted.run_id, anew.run_id}) == 3
    assert [variant for variant, _ in aborted.lineup] == ["champion"]
    assert [variant for variant, _ in anew.lineup] == ["champion", "canary"]


def test_an_abort_twice_is_recorded_and_published_once(settings: Settings, spark: "SparkSession", ended: End) -> None:
    declare(settings, spark, CANARY)
    almanac(settings)
    first = ended("canary")
    releases = Store(settings.store, PIPELINE).releases()

    second = ended("canary")

    assert (second.decision, second.is_new, second.published) == (first.decision, False, None)
    assert Store(settings.store, PIPELINE).releases() == releases


@pytest.mark.parametrize(
    "step", ["jobs.deciding.stage_run", "jobs.deciding.verify_amended", "jobs.deciding.gate", "publish", "record_live"]
)
def test_an_abort_that_was_killed_leaves_the_canary_or_the_champion_and_the_next_one_ends_it(
    settings: Settings, spark: "SparkSession", ended: End, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    declare(settings, spark, CANARY)
    before = almanac(settings).manifest

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if step == "publish":
            patch.setattr(Publisher, "publish", killed)
        elif step == "record_live":
            patch.setattr(Store, "record_live", killed)
        else:
            patch.setattr(step, killed)
        with pytest.raises(KeyboardInterrupt):
            ended("canary")
    if step != "record_live":  # behind the flip: readers have the champion already
        assert live_run(settings) == before.run_id

    done = ended("canary")

    assert not done.is_new
    assert live_manifest(settings).amends == before.run_id
    assert {answer.variant for answer in look_up(settings, *all_ids(settings, before))} == {"champion"}
    assert len(Store(settings.store, PIPELINE).releases()) == 2


def all_ids(settings: Settings, manifest: RunManifest) -> list[str]:
    found: list[str] = rows(settings, manifest, PREDICTIONS).column("entity_id").to_pylist()
    return found


def test_an_abort_while_redis_is_away_is_recorded_and_ends_once_it_is_back(
    settings: Settings, spark: "SparkSession", ended: End
) -> None:
    declare(settings, spark, CANARY)
    before = almanac(settings).manifest
    away = replace(settings, redis_url="redis://127.0.0.1:1/0")

    with pytest.raises(UnavailableError):
        abort(away, PIPELINE, "canary", reason=WHY, spark=lambda: spark)

    assert [one.kind for one in Store(settings.store, PIPELINE).decisions.entries()] == ["abort"]
    assert live_run(settings) == before.run_id
    assert ended("canary").run_id == live_run(settings)


def test_a_run_that_was_scored_before_the_abort_is_not_published_after_it(
    settings: Settings, spark: "SparkSession", ended: End
) -> None:
    declare(settings, spark, CANARY)
    before = almanac(settings).manifest
    ended("canary")

    with pytest.raises(RefusedError, match=r"serves canary: canary aborted by .*CONTEST_ABORTED"):
        publisher(settings, load_pipeline(settings, PIPELINE)).publish(before.run_id)
    assert live_manifest(settings).amends == before.run_id


def test_an_abort_can_be_rolled_back_and_made_again(settings: Settings, spark: "SparkSession", ended: End) -> None:
    declare(settings, spark, CANARY)
    before = almanac(settings).manifest
    done = ended("canary")
    publisher(settings, load_pipeline(settings, PIPELINE)).roll_back(reason="it was good after all")
    assert live_run(settings) == before.run_id

    ended("canary")

    assert live_run(settings) == done.run_id


def test_the_abort_of_a_shadow_changes_nothing_that_is_served(
    settings: Settings, spark: "SparkSession", ended: End
) -> None:
    declare(settings, spark, SHADOWED)
    before = almanac(settings).manifest

    done = ended("fewer")

    assert (done.is_new, done.run_id, live_run(settings)) == (True, None, before.run_id)
    assert [variant for variant, _ in check_inputs(settings, PIPELINE, DATE).lineup] == ["champion"]


def test_an_abort_before_the_first_release_holds_for_it(settings: Settings, spark: "SparkSession", ended: End) -> None:
    declare(settings, spark, CANARY)

    done = ended("canary")

    assert (done.is_new, done.run_id) == (True, None)
    assert almanac(settings).manifest.counts.variants == {}


def test_what_cannot_be_decided_is_one_clear_error_and_records_nothing(
    settings: Settings, spark: "SparkSession", ended: End
) -> None:
    declare(settings, spark, CANARY)
    promoted = partial(promote, settings, PIPELINE, spark=lambda: spark)
    store = Store(settings.store, PIPELINE)

    def refused(code: str, act: Callable[[], Decided], kind: type[AlmanacError]) -> None:
        with pytest.raises(kind, match=rf"\[{code}\]"):
            act()
        assert store.decisions.entries() == []

    refused("CONTEST_UNKNOWN", lambda: ended("canaries"), DeclarationError)
    refused("CONTEST_UNKNOWN", lambda: promoted("champion", reason=WHY), DeclarationError)
    refused("DECISION_REASON", lambda: ended("canary", reason=" "), DeclarationError)
    refused("CONTEST_LIVE", lambda: promoted("canary", reason=WHY), RefusedError)
    almanac(settings)
    refused("CONTEST_PARTIAL", lambda: promoted("canary", reason=WHY, now=True), RefusedError)
    rewrite(settings.pipelines / PIPELINE / "pipeline.yaml", ("floors: {auc: 0.55}", "floors: {auc: 0.999}"))
    refused("BUNDLE_METRIC", lambda: promoted("canary", reason=WHY), InputError)


def test_a_prediction_that_breaks_a_rule_is_set_aside_and_too_many_of_them_leave_what_is_live(
    settings: Settings, spark: "SparkSession", ended: End
) -> None:
    path = settings.pipelines / PIPELINE / "pipeline.yaml"
    declare(settings, spark, CANARY)
    before = almanac(settings).manifest
    shadow = rows(settings, before, SHADOW)
    second = sorted(shadow.column("score").to_pylist())[-2]
    rule = f"  - {{name: too_sure, on: predictions, check: score < {second!r}}}\n"
    rewrite(path, ("\nrules:\n", f"\nrules:\n{rule}"))
    rewrite(path, ("max_quarantined: 0.01", "max_quarantined: 0.001"))
    with pytest.raises(BlockedError, match="quarantined share"):
        ended("canary")
    assert live_run(settings) == before.run_id
    rewrite(path, ("max_quarantined: 0.001", "max_quarantined: 0.01"))

    done = ended("canary")

    manifest = live_manifest(settings)
    assert manifest.run_id == done.run_id
    aside = rows(settings, manifest, QUARANTINE)
    assert aside.column("reasons").to_pylist() == [["too_sure"]] * 2
    assert manifest.counts.scored == WEEK - 2 == rows(settings, manifest, FEATURES).num_rows
    assert {a.status for a in look_up(settings, *aside.column("entity_id").to_pylist())} <= {
        "prior",
        "unknown",
        "default",
    }


def test_an_erased_entity_stays_erased_through_an_abort(
    settings: Settings, spark: "SparkSession", ended: End, redis_client: object
) -> None:
    declare(settings, spark, CANARY)
    before = almanac(settings).manifest
    entity = rows(settings, before, SHADOW).column("entity_id")[0].as_py()
    erase(Store(settings.store, PIPELINE), RedisTable(redis_client, PIPELINE), entity, by="test")  # type: ignore[arg-type]

    ended("canary")

    manifest = live_manifest(settings)
    assert manifest.counts.scored == WEEK - 1
    assert entity not in all_ids(settings, manifest)
    erase(Store(settings.store, PIPELINE), RedisTable(redis_client, PIPELINE), all_ids(settings, manifest)[0], by="t")  # type: ignore[arg-type]
    assert live_manifest(settings).counts.scored == WEEK - 2


def test_a_promoted_shadow_is_champion_of_later_runs_and_at_once_where_that_is_asked_for(
    settings: Settings, spark: "SparkSession", ended: End
) -> None:
    declare(settings, spark, SHADOWED)
    before = almanac(settings).manifest
    shadow = rows(settings, before, SHADOW)
    promoted = partial(promote, settings, PIPELINE, "fewer", reason=WHY, spark=lambda: spark)

    later = promoted()
    assert (later.run_id, live_run(settings)) == (None, before.run_id)
    at_once = promoted(now=True)

    manifest = live_manifest(settings)
    assert (at_once.is_new, at_once.run_id) == (False, manifest.run_id)
    assert manifest.models == {"champion": before.models["fewer"]}
    served = rows(settings, manifest, PREDICTIONS)
    assert served.select(["entity_id", "score"]).equals(shadow.select(["entity_id", "score"]))
    assert pc.unique(served.column("variant")).to_pylist() == ["champion"]
    following = almanac(settings).manifest
    assert following.content == manifest.content
    assert following.models == manifest.models

    ended("fewer")
    assert check_inputs(settings, PIPELINE, DATE).bundle.id == before.models["champion"]


def test_a_promotion_lasts_until_another_champion_is_declared(settings: Settings, spark: "SparkSession") -> None:
    declare(settings, spark, SHADOWED)
    before = almanac(settings).manifest
    promote(settings, PIPELINE, "fewer", reason=WHY, spark=lambda: spark)
    assert check_inputs(settings, PIPELINE, DATE).bundle.id == before.models["fewer"]
    path = settings.pipelines / PIPELINE / "pipeline.yaml"

    rewrite(path, ("bundle: latest", f"bundle: {before.models['fewer']}"))

    plan = check_inputs(settings, PIPELINE, DATE)
    assert plan.declared.decisions == ()
    assert [variant for variant, _ in plan.lineup] == ["champion", "fewer"]


def test_the_commands_tell_what_was_decided(
    settings: Settings, spark: "SparkSession", monkeypatch: pytest.MonkeyPatch
) -> None:
    from typer.testing import CliRunner

    from jobs.cli import app

    declare(settings, spark, CANARY)
    almanac(settings)
    for name, value in (
        ("PIPELINES", settings.pipelines),
        ("STORE", settings.store),
        ("REDIS_URL", settings.redis_url),
    ):
        monkeypatch.setenv(f"ALMANAC_{name}", str(value))

    def run(*words: str) -> object:
        ended = CliRunner().invoke(app, [*words, "--json"], catch_exceptions=False)
        assert ended.exit_code == 0, ended.output
        return json.loads(ended.stdout)

    assert run("decisions", PIPELINE) == []
    assert run("abort", PIPELINE, "canary", "--reason", WHY)["run_id"] == live_run(settings)  # type: ignore[index]
    (one,) = run("decisions", PIPELINE)  # type: ignore[misc]
    assert (one["kind"], one["challenger"], one["holds"], one["reason"]) == ("abort", "canary", True, WHY)
