import itertools
import math
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from schemas.checks import Churn
from schemas.diff import Diff, Mover, SliceShift
from schemas.errors import InputError
from schemas.keys import bucket_of
from schemas.report import CheckResult, Verdict
from validation import pairing
from validation.diff import check_churn, diff_runs
from validation.rundata import RunFiles

Score = float | None
ORIGINS = ("EWR", "JFK", None)


def origin_of(entity: str) -> str | None:
    return ORIGINS[len(entity) % 3]


def write(
    folder: Path,
    scores: Mapping[str, Score],
    *,
    buckets: int = 1,
    files: int = 1,
    model: str = "m-1",
    status: str = "scored",
    origins: Mapping[str, str | None] | None = None,
) -> RunFiles:
    """The files of a run as scoring lays them out: whole ranges of buckets to a file, ids sorted in each bucket."""
    placed = sorted(scores, key=lambda entity: (bucket_of(entity, buckets), entity.encode()))
    paths: dict[str, list[Path]] = {"predictions": [], "features": []}
    for number in range(files):
        ids = [entity for entity in placed if bucket_of(entity, buckets) * files // buckets == number]
        predictions = {
            "entity_id": pa.array(ids, pa.string()),
            "score": pa.array([scores[entity] for entity in ids], pa.float64(), from_pandas=False),
            "model": pa.array([model] * len(ids), pa.string()),
            "status": pa.array([status] * len(ids), pa.string()),
        }
        found = origins or {entity: origin_of(entity) for entity in ids}
        features = {
            "entity_id": predictions["entity_id"],
            "origin": pa.array([found[entity] for entity in ids], pa.string()),
            "length": pa.array([len(entity) for entity in ids], pa.int64()),
        }
        for part, columns in (("predictions", predictions), ("features", features)):
            path = folder / part / f"part-{number:05}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.table(columns), path)
            paths[part].append(path)
    return RunFiles(tuple(paths["predictions"]), tuple(paths["features"]))


def compared(
    folder: Path, before: Mapping[str, Score], after: Mapping[str, Score], *, top: int = 0, tolerance: float = 0.0
) -> Diff:
    old, new = write(folder / "before", before), write(folder / "after", after)
    return diff_runs(old, new, outputs=["score"], top=top, tolerance=tolerance)


def shifts_of(before: Mapping[str, float], after: Mapping[str, float]) -> list[SliceShift]:
    """What is true of the groups by origin, worked out one entity at a time."""
    shifts = []
    for origin in sorted({origin_of(entity) for entity in (*before, *after)}, key=lambda name: name or "(null)"):
        then, now = ({entity: run[entity] for entity in run if origin_of(entity) == origin} for run in (before, after))
        shifts.append(
            SliceShift(
                columns=("origin",),
                values=(origin or "(null)",),
                rows_before=len(then),
                rows_after=len(now),
                mean_before=sum(then.values()) / len(then) if then else None,
                mean_after=sum(now.values()) / len(now) if now else None,
                added=len(now.keys() - then.keys()),
                removed=len(then.keys() - now.keys()),
            )
        )
    return sorted(shifts, key=lambda shift: shift.values)


# Sums of multiples of 1/64 are exact, so that nothing here needs a tolerance.
SCORES = st.integers(0, 64).map(lambda number: number / 64)
IDS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=6)
LAYOUT = st.fixed_dictionaries({"buckets": st.integers(1, 9), "files": st.integers(1, 3)})


@given(
    planted=st.dictionaries(IDS, st.tuples(SCORES, SCORES, st.sampled_from(["kept", "added", "removed"])), min_size=1),
    before_layout=LAYOUT,
    after_layout=LAYOUT,
    part_rows=st.sampled_from([1, 3, 1000]),
    held_rows=st.sampled_from([0, 5, 1000]),
    top=st.integers(0, 4),
)
@hypothesis_settings(max_examples=60, deadline=None)
def test_what_is_planted_is_found_exactly_whatever_the_layout(
    planted: dict[str, tuple[float, float, str]],
    before_layout: dict[str, int],
    after_layout: dict[str, int],
    part_rows: int,
    held_rows: int,
    top: int,
) -> None:
    before = {entity: old for entity, (old, _, fate) in planted.items() if fate != "added"}
    after = {entity: new for entity, (_, new, fate) in planted.items() if fate != "removed"}
    kept = before.keys() & after.keys()
    moved = sorted((-abs(after[entity] - before[entity]), entity) for entity in kept if after[entity] != before[entity])

    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairing, "_PART_ROWS", part_rows)
        patch.setattr(pairing, "_HELD_ROWS", held_rows)
        old = write(Path(name) / "before", before, **before_layout)
        new = write(Path(name) / "after", after, **after_layout)
        diff = diff_runs(old, new, outputs=["score"], top=top, groups=[("origin",)])

    assert (diff.before, diff.after, diff.kept) == (len(before), len(after), len(kept))
    assert (diff.added, diff.removed) == (len(after.keys() - before.keys()), len(before.keys() - after.keys()))
    assert (diff.changed, diff.unchanged) == (len(moved), len(kept) - len(moved))
    assert diff.movers == tuple(
        Mover(entity_id=entity, before=before[entity], after=after[entity]) for _, entity in moved[:top]
    )
    assert list(diff.slices) == shifts_of(before, after)
    assert sum(map(sum, diff.deciles)) == len(kept)
    assert diff.mean_before == (sum(before[entity] for entity in kept) / len(kept) if kept else None)


def test_many_rows_go_through_files_and_leave_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = np.random.default_rng(7).permutation(30_000)
    before = {f"UA:{number}": number / 30_000 for number in numbers[:-100]}
    after = {f"UA:{number}": number / 30_000 + (number < 50) for number in numbers[100:]}
    old, new = write(tmp_path / "before", before, buckets=400, files=2), write(tmp_path / "after", after, buckets=399)
    held = diff_runs(old, new, outputs=["score"], top=5)

    monkeypatch.setattr(pairing, "_PART_ROWS", 1000)
    monkeypatch.setattr(pairing, "_HELD_ROWS", 7000)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    stored = diff_runs(old, new, outputs=["score"], top=5)

    assert stored.model_copy(update={"rank_correlation": 0}) == held.model_copy(update={"rank_correlation": 0})
    assert stored.rank_correlation == pytest.approx(held.rank_correlation)
    assert (held.added, held.removed, held.kept) == (100, 100, 29_800)
    assert held.changed == sum(int(number.split(":")[1]) < 50 for number in before.keys() & after.keys())
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.parametrize(
    ("before", "after", "tolerance", "changed"),
    [
        (0.25, 0.25, 0.0, 0),
        (0.25, math.nextafter(0.25, 1), 0.0, 1),
        (0.25, 0.5, 0.25, 0),
        (0.25, 0.5, 0.2, 1),
        (0.25, None, 1.0, 1),
        (None, 0.25, 1.0, 1),
        (math.nan, 0.25, 1.0, 1),
        (None, None, 0.0, 0),
        (None, math.nan, 0.0, 0),
        (math.inf, math.inf, 0.0, 0),
        (math.inf, -math.inf, 1.0, 1),
        (math.inf, 0.25, 1.0, 1),
    ],
)
def test_a_prediction_changed_if_it_moved_by_more_than_the_tolerance_or_was_missing_on_one_side(
    tmp_path: Path, before: Score, after: Score, tolerance: float, changed: int
) -> None:
    diff = compared(tmp_path, {"a": before, "b": 1.0}, {"a": after, "b": 1.0}, tolerance=tolerance)

    assert (diff.changed, diff.unchanged, diff.churn) == (changed, 2 - changed, changed / 2)


def test_rows_without_a_finite_score_are_counted_and_are_in_no_tenth(tmp_path: Path) -> None:
    diff = compared(tmp_path, {"a": 0.5, "b": None, "c": math.nan}, {"a": 0.5, "b": 0.5, "c": math.inf}, top=9)

    assert (diff.not_finite, sum(map(sum, diff.deciles)), diff.mean_before, diff.movers) == (3, 1, 0.5, ())


def test_the_tenths_tell_where_each_score_went(tmp_path: Path) -> None:
    before = {f"e{tenth}{number}": tenth / 8 + number / 64 for tenth in range(10) for number in range(2)}
    after = before | {"e00": 9.5, "e91": 0.0}

    diff = compared(tmp_path, before, after)

    assert diff.decile_edges == tuple(tenth / 8 + 1 / 64 for tenth in range(9))
    assert diff.deciles[0] == (1, 0, 0, 0, 0, 0, 0, 0, 0, 1)
    assert diff.deciles[4] == (0, 0, 0, 0, 2, 0, 0, 0, 0, 0)
    assert diff.deciles[9] == (1, 0, 0, 0, 0, 0, 0, 0, 0, 1)
    assert diff.top_decile_overlap == 0.5


def test_the_rank_correlation_is_spearmans_with_ties(tmp_path: Path) -> None:
    draw = np.random.default_rng(7)
    old, new = draw.integers(0, 20, 500) / 20, draw.integers(0, 20, 500) / 20
    ids = [f"e{number}" for number in range(500)]

    diff = compared(tmp_path, dict(zip(ids, old, strict=True)), dict(zip(ids, new, strict=True)))

    assert diff.rank_correlation == pytest.approx(spearmanr(old, new).statistic)


def test_scores_that_are_all_equal_have_no_ranks_and_no_top(tmp_path: Path) -> None:
    diff = compared(tmp_path, {"a": 0.5, "b": 0.5}, {"a": 0.1, "b": 0.2})

    assert (diff.rank_correlation, diff.top_decile_overlap) == (None, None)


def test_two_runs_without_an_entity_in_common_have_nothing_to_rank(tmp_path: Path) -> None:
    diff = compared(tmp_path, {"a": 0.5}, {"b": 0.5}, top=3)

    assert (diff.added, diff.removed, diff.churn) == (1, 1, 2.0)
    assert (diff.mean_before, diff.decile_edges, diff.deciles, diff.movers) == (None, (), (), ())


def test_runs_without_rows_are_compared_and_have_no_churn(tmp_path: Path) -> None:
    diff = compared(tmp_path, {}, {"a": 0.5})

    assert (diff.before, diff.after, diff.added, diff.churn) == (0, 1, 1, None)
    assert Diff.model_validate_json(diff.model_dump_json()) == diff


def test_entities_that_another_model_answers_are_counted(tmp_path: Path) -> None:
    old = write(tmp_path / "before", {"a": 0.5, "b": 0.5})
    new = write(tmp_path / "after", {"a": 0.5, "c": 0.5}, model="m-2")

    diff = diff_runs(old, new, outputs=["score"])

    assert (diff.model_changes, diff.status_changes, diff.changed) == (1, 0, 0)


def test_an_entity_that_is_withheld_now_has_changed_and_does_not_speak_against_the_run(tmp_path: Path) -> None:
    old = write(tmp_path / "before", {"a": 0.5, "b": 0.5})
    new = write(tmp_path / "after", {"a": None, "b": None}, status="withheld")

    diff = diff_runs(old, new, outputs=["score"])

    assert (diff.changed, diff.status_changes, diff.not_finite) == (2, 2, 0)
    assert diff_runs(new, new, outputs=["score"]).unchanged == 2


def test_an_entity_that_went_to_another_group_is_a_row_less_there_and_not_removed(tmp_path: Path) -> None:
    old = write(tmp_path / "before", {"a": 0.25, "b": 0.5}, origins={"a": "EWR", "b": "JFK"})
    new = write(tmp_path / "after", {"a": 0.25, "b": 0.5}, origins={"a": "JFK", "b": "JFK"})

    ewr, jfk = diff_runs(old, new, outputs=["score"], groups=[("origin", "length")]).slices

    assert (ewr.columns, ewr.values, jfk.values) == (("origin", "length"), ("EWR", "1"), ("JFK", "1"))
    assert (ewr.rows_before, ewr.rows_after, ewr.removed, ewr.mean_after, ewr.shift) == (1, 0, 0, None, None)
    assert (jfk.rows_before, jfk.rows_after, jfk.added, jfk.mean_after, jfk.shift) == (1, 2, 0, 0.375, -0.125)


@pytest.mark.parametrize(
    ("values", "groups", "reason"),
    [
        (1001, [("origin",)], {"origin": "origin has more than 1,000 values"}),
        (600, [("origin", "length")], {"origin and length": "1,200 groups; at most 1,000 are told"}),
    ],
)
def test_a_slice_of_too_many_groups_is_named_and_the_rest_is_told(
    tmp_path: Path, values: int, groups: list[tuple[str, ...]], reason: dict[str, str]
) -> None:
    ids = [f"{letters}{number:04}" for number in range(values) for letters in ("a", "bb")]
    run = write(tmp_path, dict.fromkeys(ids, 0.5), origins={entity: entity[-4:] for entity in ids})

    diff = diff_runs(run, run, outputs=["score"], groups=[*groups, ("length",)])

    assert diff.unsliced == reason
    assert [(shift.values, shift.rows_after) for shift in diff.slices] == [(("5",), values), (("6",), values)]


def test_an_entity_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    once = write(tmp_path / "once", {"a": 0.5, "b": 0.5, "c": 0.5})
    new_only = write(tmp_path / "new", {"d": 0.5})
    for twice in (RunFiles(once.predictions * 2), RunFiles((*once.predictions, *new_only.predictions * 2))):
        for sides in itertools.permutations((once, twice)):
            with pytest.raises(InputError, match="an entity twice"):
                diff_runs(*sides, outputs=["score"])


def test_files_that_are_gone_damaged_or_of_other_columns_are_named(tmp_path: Path) -> None:
    run = write(tmp_path, {f"e{number}": number / 5000 for number in range(5000)})
    (path,), (features,) = run.predictions, run.features
    with pytest.raises(InputError, match="no column delay; expected entity_id, delay"):
        diff_runs(run, run, outputs=["delay"])
    pq.write_table(pq.read_table(features).slice(1), features)
    with pytest.raises(InputError, match="OUT_ORDER"):
        diff_runs(run, run, outputs=["score"], groups=[("origin",)])
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match=r"part-00000\.parquet: .* \[OUT_CHECKSUM\]"):
        diff_runs(run, run, outputs=["score"])
    path.unlink()
    with pytest.raises(InputError, match=r"part-00000\.parquet: no such file"):
        diff_runs(run, run, outputs=["score"])


LIMITS = Churn(max_added=0.5, max_removed=0.25, max_changed=0.25)
FOUR = {"a": 0.1, "b": 0.2, "c": 0.3, "d": 0.4}


def verdicts(results: Iterable[CheckResult]) -> dict[str, Verdict]:
    return {result.name.split()[1]: result.verdict for result in results}


def test_each_declared_limit_is_judged_by_itself_and_reached_it_still_passes(tmp_path: Path) -> None:
    diff = compared(tmp_path, FOUR, {"a": 0.1, "b": 0.9, "c": 0.9, "e": 0.5, "f": 0.5})

    results = check_churn(diff, LIMITS, first_release=False)

    assert verdicts(results) == {"added": Verdict.PASS, "removed": Verdict.PASS, "changed": Verdict.FAIL}
    assert results[2].name == "entities changed"
    assert results[2].observed == "2 of 4 (50.00%)"
    assert results[2].expected == "at most 25.00% of those before"
    assert [result.family for result in results] == ["churn"] * 3
    assert len(check_churn(diff, Churn(max_added=0.0), first_release=False)) == 1


def test_the_first_release_has_nothing_to_compare_with() -> None:
    results = check_churn(None, LIMITS, first_release=True)

    assert {result.observed for result in results} == {"first release: nothing to compare with"}
    assert set(verdicts(results).values()) == {Verdict.PASS}


def test_no_limit_passes_and_says_so() -> None:
    (result,) = check_churn(None, Churn(), first_release=False)

    assert (result.verdict, result.observed) == (Verdict.PASS, "no limit is declared")


@pytest.mark.parametrize(
    ("before", "after", "observed"),
    [
        ({}, FOUR, "no rows in the live release"),
        (FOUR, {}, "no rows in this run"),
        (FOUR, FOUR | {"a": math.nan}, "1 rows have no finite score"),
        (FOUR, FOUR | {"a": None, "e": math.inf}, "2 rows have no finite score"),
    ],
)
def test_what_cannot_be_compared_has_failed(
    tmp_path: Path, before: dict[str, Score], after: dict[str, Score], observed: str
) -> None:
    results = check_churn(compared(tmp_path, before, after), LIMITS, first_release=False)

    assert {(result.verdict, result.evaluated, result.observed) for result in results} == {
        (Verdict.FAIL, False, observed)
    }


def test_a_live_release_that_was_not_compared_with_or_by_another_tolerance_has_failed(tmp_path: Path) -> None:
    diff = compared(tmp_path, FOUR, FOUR, tolerance=0.1)

    for given_diff in (None, diff):
        assert set(verdicts(check_churn(given_diff, LIMITS, first_release=False)).values()) == {Verdict.FAIL}
