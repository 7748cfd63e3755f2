"""What the store lets pass, and what it refuses to call a verified run."""

import datetime as dt
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from schemas.errors import InputError, RefusedError
from schemas.report import Verdict
from schemas.run import MANIFEST_FILE, PREDICTIONS, REPORT_FILE

MONDAY, TUESDAY = dt.date(2013, 7, 1), dt.date(2013, 7, 2)
SCORES = {"UA:1": 0.25, "UA:2": 0.5, "UA:3": 0.75}


def _edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("verdict", [Verdict.PASS, Verdict.WARN])
def test_a_run_that_passed_or_warned_is_verified(staging: Any, verdict: Verdict) -> None:
    run = staging.run(MONDAY, SCORES, verdict=verdict)

    assert staging.store.verified(run).run_id == run


def test_a_run_that_failed_is_refused_with_the_checks_that_failed(staging: Any) -> None:
    run = staging.run(MONDAY, SCORES, verdict=Verdict.FAIL)

    with pytest.raises(RefusedError, match=r"verdict FAIL \(coverage\); expected PASS or WARN \[PUBLISH_UNVERIFIED\]"):
        staging.store.verified(run)


def test_a_run_without_a_report_is_refused(staging: Any) -> None:
    run = staging.run(MONDAY, SCORES, verdict=None)

    with pytest.raises(InputError, match=r"report\.json: no such file; expected a verified run.*OUT_NOT_FOUND"):
        staging.store.verified(run)


def test_a_run_that_was_never_staged_is_refused(staging: Any) -> None:
    with pytest.raises(InputError, match=r"manifest\.json: no such file; expected a staged run.*OUT_NOT_FOUND"):
        staging.store.verified("2013-07-01-000000000000")


@pytest.mark.parametrize("file", [MANIFEST_FILE, REPORT_FILE])
@pytest.mark.parametrize("damage", [b"", b"{", b'{"format": 2}', b"\xff"])
def test_a_damaged_manifest_or_report_is_refused(staging: Any, file: str, damage: bytes) -> None:
    run = staging.run(MONDAY, SCORES)
    (staging.store.run_folder(run) / file).write_bytes(damage)

    with pytest.raises(InputError, match=rf"{file}.*\[OUT_FORMAT\]"):
        staging.store.verified(run)


def test_a_verdict_that_was_bettered_by_hand_is_refused(staging: Any) -> None:
    run = staging.run(MONDAY, SCORES, verdict=Verdict.FAIL)
    _edit(staging.store.run_folder(run) / REPORT_FILE, verdict="PASS")

    with pytest.raises(InputError, match=r"does not follow from the checks: FAIL.*OUT_FORMAT"):
        staging.store.verified(run)


def test_a_report_of_other_content_is_refused(staging: Any) -> None:
    run = staging.run(MONDAY, SCORES)
    staging.report(run, Verdict.PASS, content="f" * 64)

    with pytest.raises(RefusedError, match=r"content ffffffffffff….*PUBLISH_UNVERIFIED"):
        staging.store.verified(run)


def test_a_report_of_another_run_is_refused(staging: Any) -> None:
    run, other = staging.run(MONDAY, SCORES), staging.run(TUESDAY, {**SCORES, "UA:4": 1.0})
    shutil.copy(staging.store.run_folder(other) / REPORT_FILE, staging.store.run_folder(run) / REPORT_FILE)

    with pytest.raises(RefusedError, match=rf"report of {other}, files of {run}; expected {run} \[PUBLISH_UNVERIFIED"):
        staging.store.verified(run)


def test_a_run_copied_under_another_name_is_refused(staging: Any) -> None:
    run = staging.run(MONDAY, SCORES)
    shutil.copytree(staging.store.run_folder(run), staging.store.run_folder("2013-07-09-000000000000"))

    with pytest.raises(RefusedError, match=r"expected 2013-07-09-000000000000.*PUBLISH_UNVERIFIED"):
        staging.store.verified("2013-07-09-000000000000")


def test_a_manifest_that_names_other_files_than_those_verified_is_refused(staging: Any) -> None:
    run, other = staging.run(MONDAY, SCORES), staging.run(TUESDAY, {**SCORES, "UA:4": 1.0})
    files = json.loads((staging.store.run_folder(other) / MANIFEST_FILE).read_text())["files"]
    _edit(staging.store.run_folder(run) / MANIFEST_FILE, files=files)

    with pytest.raises(RefusedError, match="PUBLISH_UNVERIFIED"):
        staging.store.verified(run)


def test_intact_files_have_no_damage(staging: Any) -> None:
    run = staging.run(MONDAY, SCORES)

    assert staging.store.damage(staging.store.manifest(run), PREDICTIONS) == []


def test_damage_names_the_file_that_differs_and_the_one_that_is_missing(staging: Any) -> None:
    run = staging.run(MONDAY, SCORES)
    manifest = staging.store.manifest(run)
    with staging.predictions(run).open("ab") as file:
        file.write(b"x")
    changed = staging.store.damage(manifest, PREDICTIONS)
    staging.predictions(run).unlink()
    missing = staging.store.damage(manifest, PREDICTIONS)

    assert [(problem.code, problem.found[:7]) for problem in changed] == [("OUT_CHECKSUM", "sha256 ")]
    assert [(problem.where, problem.found) for problem in missing] == [(str(staging.predictions(run)), "is missing")]


def test_the_latest_run_is_the_one_that_was_scored_last(staging: Any) -> None:
    late = staging.run(MONDAY, SCORES)
    staging.run(TUESDAY, SCORES)
    _edit(staging.store.run_folder(late) / MANIFEST_FILE, scored_at="2013-07-01T09:00:00Z")

    assert staging.store.latest_run().run_id == late


def test_a_store_without_a_run_has_no_latest_one(staging: Any) -> None:
    with pytest.raises(InputError, match=r"flights: .*no run is staged.*OUT_NOT_FOUND"):
        staging.store.latest_run()


def test_bundles_live_beside_the_runs(staging: Any) -> None:
    assert staging.store.bundles == staging.store.folder / "bundles"


def test_a_run_is_committed_as_one_release_however_often(staging: Any) -> None:
    manifest = staging.store.manifest(staging.run(MONDAY, SCORES))

    first, second = staging.store.commit(manifest), staging.store.commit(manifest)

    assert (first.sequence, first.release) == (1, 1)
    assert second == first


def test_a_commit_that_something_overtook_is_entered_again_under_the_same_number(staging: Any) -> None:
    mine, other = (staging.store.manifest(staging.run(MONDAY, scores)) for scores in (SCORES, {"UA:9": 1.0}))
    staging.store.commit(mine)
    staging.store.record_live(staging.store.commit(other))

    again = staging.store.commit(mine)

    assert (again.sequence, again.release) == (4, 1)
    assert [release.number for release in staging.store.releases()] == [1, 2]


def test_a_commit_that_is_asked_for_anew_is_entered_again_until_it_is_live(staging: Any) -> None:
    manifest = staging.store.manifest(staging.run(MONDAY, SCORES))
    staging.store.commit(manifest)

    again = staging.store.commit(manifest, anew=True)
    staging.store.record_live(again)

    assert (again.sequence, again.token, again.release) == (2, 2, 1)
    assert staging.store.live().token == 2
    assert staging.store.commit(manifest, anew=True) == again


def test_a_release_is_recorded_live_once(staging: Any) -> None:
    commit = staging.store.commit(staging.store.manifest(staging.run(MONDAY, SCORES)))

    staging.store.record_live(commit)
    staging.store.record_live(commit)

    assert [entry.event.value for entry in staging.store.log.entries()] == ["commit", "live"]


def test_a_publication_that_was_overtaken_is_not_recorded_live(staging: Any) -> None:
    mine, other = (staging.store.manifest(staging.run(MONDAY, scores)) for scores in (SCORES, {"UA:9": 1.0}))
    commit = staging.store.commit(mine)
    staging.store.record_live(staging.store.commit(other))

    staging.store.record_live(commit)

    assert staging.store.live().release == 2


@pytest.mark.parametrize(("committed", "listed"), [(0, "none yet"), (2, "2, 1")])
def test_an_unknown_release_is_one_clear_error(staging: Any, committed: int, listed: str) -> None:
    for number in range(committed):
        staging.store.commit(staging.store.manifest(staging.run(MONDAY, {f"UA:{number}": 1.0})))

    with pytest.raises(
        RefusedError, match=rf"flights: release 9: no such release; expected one of {listed} \[RELEASE_"
    ):
        staging.store.release(9)
