"""A bundle is opened only when every byte is what it was, and trusted only when it does what it did."""

import ast
import datetime as dt
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.bundles import (
    check_promises,
    find_bundle,
    make_latest,
    open_bundle,
    proven_bundle,
    write_bundle,
)
from jobs.matrix import feature_matrix
from schemas.bundle import EXPECTED_COLUMN, LABEL_COLUMN, BundleManifest, Feature, Output, TrainingRecord
from schemas.content import sha256_file
from schemas.errors import InputError, Problem
from validation.drift import ScoredProfile
from validation.parity import measure
from validation.profile import profile_batches

ROOT = Path(__file__).parent.parent.parent
ROWS = 200
FEATURES = (
    Feature(name="age", kind="numeric"),
    Feature(name="carrier", kind="categorical", categories=("AA", "B6", "UA")),
    Feature(name="distance", kind="numeric"),
)

Change = Callable[[dict[str, Any]], None]


def rows() -> pa.Table:
    rng = np.random.default_rng(7)
    carriers = [None if n % 11 == 0 else ("AA", "B6", "UA")[n % 3] for n in range(ROWS)]
    ages = pa.array(rng.integers(1, 30, ROWS), mask=rng.random(ROWS) < 0.1)
    return pa.table({"age": ages, "carrier": carriers, "distance": rng.uniform(80, 5000, ROWS)})


def labels(table: pa.Table) -> np.ndarray[Any, np.dtype[np.float64]]:
    odds = feature_matrix(FEATURES, table, model="m")
    return ((np.nan_to_num(odds[:, 0]) > 12) ^ (odds[:, 2] > 3000)).astype(np.float64)


def manifest(metrics: dict[str, float], **change: Any) -> BundleManifest:
    record = TrainingRecord(
        pipeline="p", declaration="d", snapshot="s", rows=ROWS, holdout_rows=ROWS, start=dt.date(2013, 1, 1),
        end=dt.date(2013, 6, 30), split="half", label="late", params={"num_leaves": 7}, rounds=20, seed=7,
    )  # fmt: skip
    parts: dict[str, Any] = {
        "format": 1, "flavor": "lightgbm", "library": "lightgbm 4", "objective": "binary", "features": FEATURES,
        "outputs": (Output(name="score"),), "metrics": metrics, "floors": {"auc": 0.6}, "training": record,
    }  # fmt: skip
    return BundleManifest.model_construct(**parts | change, files={})


def profile(holdout: pa.Table) -> ScoredProfile:
    scores = pa.table({"score": holdout[EXPECTED_COLUMN]})
    features = holdout.select([feature.name for feature in FEATURES])
    return ScoredProfile(features=profile_batches(features.to_batches()), scores=profile_batches(scores.to_batches()))


@pytest.fixture(scope="module")
def trained() -> tuple[bytes, pa.Table, dict[str, float]]:
    table = rows()
    data = lightgbm.Dataset(
        feature_matrix(FEATURES, table, model="m"),
        label=labels(table),
        feature_name=[feature.name for feature in FEATURES],
        categorical_feature=["carrier"],
    )
    fixed = {"objective": "binary", "num_leaves": 7, "min_data_in_leaf": 5, "deterministic": True, "verbosity": -1}
    booster = lightgbm.train({**fixed, "force_row_wise": True, "num_threads": 1}, data, num_boost_round=20)
    scores = np.asarray(booster.predict(feature_matrix(FEATURES, table, model="m"), num_threads=1))
    holdout = table.append_column(LABEL_COLUMN, pa.array(labels(table))).append_column(
        EXPECTED_COLUMN, pa.array(scores)
    )
    return booster.model_to_string().encode(), holdout, measure("binary", labels(table), scores)


@pytest.fixture(scope="module")
def written(trained: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    model, holdout, metrics = trained
    folder = tmp_path_factory.mktemp("bundles")
    return write_bundle(folder, "2013-06-30", model, holdout, profile(holdout), manifest(metrics))


@pytest.fixture
def bundle(written: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(written, tmp_path / "bundles" / written.name))


def resealed(folder: Path, change: Change = lambda _: None) -> Path:
    """The bundle with its manifest changed and every digest made right again, as a forger would."""
    text = json.loads((folder / "manifest.json").read_text())
    for name in text["files"]:
        path = folder / name
        text["files"][name] = {"sha256": sha256_file(path), "size_bytes": path.stat().st_size}
    change(text)
    (folder / "manifest.json").write_text(json.dumps(text))
    return folder.rename(folder.with_name(f"forged-{sha256_file(folder / 'manifest.json')[:12]}"))


def the_problem(act: Callable[[], object]) -> Problem:
    with pytest.raises(InputError) as caught:
        act()
    (problem,) = caught.value.problems
    assert problem.where.startswith("bundle ")
    assert "\n" not in str(problem)
    return problem


# What a bundle promises


def test_a_bundle_opens_proves_itself_and_keeps_its_promises(bundle: Path) -> None:
    opened = open_bundle(bundle)
    proven, difference = proven_bundle(bundle, opened.digest)
    check_promises(opened, {"auc": 0.5})
    assert difference == 0.0
    assert (proven.id, proven.digest[:12]) == (bundle.name, bundle.name[-12:])


def test_a_fresh_process_predicts_the_same_bits(bundle: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from jobs.bundles import proven_bundle, open_bundle\n"
        "folder = Path(sys.argv[1]); print(proven_bundle(folder, open_bundle(folder).digest)[1])"
    )
    run = subprocess.run([sys.executable, "-c", code, bundle], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout == "0.0\n"


@given(cuts=st.lists(st.integers(0, ROWS), max_size=6).map(sorted))
def test_no_row_depends_on_its_batch(cuts: list[int], written: Path, trained: Any) -> None:
    holdout = trained[1]
    opened, _ = proven_bundle(written, open_bundle(written).digest)
    edges = [0, *cuts, ROWS]
    parts = [holdout.slice(a, b - a) for a, b in pairwise(edges) if b > a]
    scores = np.concatenate([opened.predict(part)[:, 0] for part in parts])
    assert np.array_equal(scores, holdout[EXPECTED_COLUMN].to_numpy())


def test_columns_are_read_by_name_whatever_their_order(bundle: Path, trained: Any) -> None:
    holdout = trained[1]
    scores = open_bundle(bundle).predict(holdout.select(["distance", EXPECTED_COLUMN, "carrier", "age"]))[:, 0]
    assert np.array_equal(scores, holdout[EXPECTED_COLUMN].to_numpy())


@pytest.mark.parametrize("unseen", ["ZZ", "", "aa", "AA "])
def test_an_unseen_category_is_missing_to_the_model(unseen: str, bundle: Path, trained: Any) -> None:
    table, opened = trained[1], open_bundle(bundle)
    of = {value: table.set_column(1, "carrier", pa.array([value] * ROWS, pa.string())) for value in (unseen, None)}
    assert np.array_equal(opened.predict(of[unseen]), opened.predict(of[None]))


def test_an_unseen_category_does_not_shift_the_others(bundle: Path, trained: Any) -> None:
    table, opened = trained[1], open_bundle(bundle)
    mixed = table.set_column(1, "carrier", pa.array(["ZZ", *table["carrier"].to_pylist()[1:]]))
    assert np.array_equal(opened.predict(mixed)[1:, 0], table[EXPECTED_COLUMN].to_numpy()[1:])


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("age", pa.array([1.0, 2.0], pa.float32())),
        ("age", pa.array([True, False])),
        ("age", pa.array([2**62 + 1, None], pa.int64())),
        ("carrier", pa.array(["AA", None]).dictionary_encode()),
        ("carrier", pa.array(["AA", "B6"], pa.large_string())),
        ("carrier", pa.array([1, 2])),
    ],
    ids=str,
)
def test_a_column_of_a_near_type_is_read(column: str, value: pa.Array, bundle: Path, trained: Any) -> None:
    two = trained[1].slice(0, 2)
    table = two.set_column(two.schema.get_field_index(column), column, value)
    assert np.isfinite(open_bundle(bundle).predict(table)).all()


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("age", pa.array(["1", "2"]), "a number, as in training"),
        ("age", pa.array([[1], [2]]), "a number, as in training"),
        ("age", pa.array([dt.date(2013, 1, 1)] * 2), "a number, as in training"),
        ("carrier", pa.array([1.0, 2.0]), "text, as in training"),
        ("carrier", pa.array([["AA"], ["B6"]]), "text, as in training"),
        ("carrier", pa.array([b"\xff", b"AA"]), "text, as in training"),
    ],
)
def test_a_column_of_another_type_is_named(
    column: str, value: pa.Array, expected: str, bundle: Path, trained: Any
) -> None:
    two = trained[1].slice(0, 2)
    table = two.set_column(two.schema.get_field_index(column), column, value)
    problem = the_problem(lambda: open_bundle(bundle).predict(table))
    assert (problem.code, problem.found, problem.expected) == ("BUNDLE_DTYPE", str(value.type), expected)
    assert problem.where.endswith(f"feature {column}")


def test_missing_features_are_all_named(bundle: Path, trained: Any) -> None:
    problem = the_problem(lambda: open_bundle(bundle).predict(trained[1].select(["carrier"])))
    assert (problem.code, problem.found) == ("BUNDLE_FEATURES", "no feature age, distance")


# Damage


@pytest.mark.parametrize("file", ["model.txt", "holdout.parquet", "profile.json"])
def test_a_truncated_file_is_refused_before_it_is_parsed(file: str, bundle: Path) -> None:
    (bundle / file).write_bytes((bundle / file).read_bytes()[:-100])
    problem = the_problem(lambda: open_bundle(bundle))
    assert problem.code == "BUNDLE_CHECKSUM"
    assert file in problem.found


@pytest.mark.parametrize("file", ["model.txt", "holdout.parquet", "profile.json"])
def test_one_changed_bit_is_refused(file: str, bundle: Path) -> None:
    raw = bytearray((bundle / file).read_bytes())
    raw[len(raw) // 2] ^= 1
    (bundle / file).write_bytes(raw)
    assert the_problem(lambda: open_bundle(bundle)).code == "BUNDLE_CHECKSUM"


def test_a_changed_manifest_no_longer_fits_the_folders_name(bundle: Path) -> None:
    path = bundle / "manifest.json"
    path.write_text(path.read_text().replace('"seed": 7', '"seed": 8'))
    assert the_problem(lambda: open_bundle(bundle)).code == "BUNDLE_CHECKSUM"


def test_a_bundle_of_another_digest_than_the_run_knows_is_refused(bundle: Path) -> None:
    assert the_problem(lambda: open_bundle(bundle, digest="0" * 64)).code == "BUNDLE_CHECKSUM"


@pytest.mark.parametrize("file", ["model.txt", "holdout.parquet", "profile.json"])
def test_a_missing_file_is_named(file: str, bundle: Path) -> None:
    (bundle / file).unlink()
    problem = the_problem(lambda: open_bundle(bundle))
    assert (problem.code, problem.found) == ("BUNDLE_FILES", f"{file} is no plain file there")


@pytest.mark.parametrize("name", ["model.pkl", "code", ".hidden"])
def test_a_file_that_the_manifest_does_not_list_is_refused(name: str, bundle: Path) -> None:
    (bundle / name).write_bytes(b"cos\nsystem\n")
    problem = the_problem(lambda: open_bundle(bundle))
    assert (problem.code, problem.found) == ("BUNDLE_FILES", f"{name} not in the manifest")


@pytest.mark.parametrize("file", ["model.txt", "holdout.parquet", "profile.json", "manifest.json"])
def test_a_link_is_not_followed(file: str, bundle: Path, tmp_path: Path) -> None:
    (bundle / file).rename(tmp_path / file)
    (bundle / file).symlink_to(tmp_path / file)
    problem = the_problem(lambda: open_bundle(bundle))
    assert (problem.code, problem.found) == ("BUNDLE_FILES", f"{file} is no plain file there")


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        (b"", "EOF"),
        (b"{", "EOF"),
        (b"\xff", "Invalid JSON"),
        (b"[" * 100_000, "recursion limit"),
        (b"{}", "Field required"),
        (b"null", "should be an object"),
    ],
    ids=["empty", "cut", "not UTF-8", "deep", "no fields", "null"],
)
def test_what_is_no_manifest_is_refused(raw: bytes, found: str, bundle: Path) -> None:
    (bundle / "manifest.json").write_bytes(raw)
    assert the_problem(lambda: open_bundle(bundle)).code == "BUNDLE_CHECKSUM"
    forged = bundle.rename(bundle.parent / f"forged-{sha256_file(bundle / 'manifest.json')[:12]}")
    problem = the_problem(lambda: open_bundle(forged))
    assert problem.code == "BUNDLE_MANIFEST"
    assert found in problem.found


def test_a_folder_without_a_manifest_is_no_bundle(tmp_path: Path) -> None:
    assert the_problem(lambda: open_bundle(tmp_path)).found == "manifest.json is no plain file there"


# Forgery: every digest is right


@pytest.mark.parametrize(
    ("change", "code", "found"),
    [
        (lambda m: m.update(loader_module="os"), "BUNDLE_MANIFEST", "loader_module: Extra inputs"),
        (lambda m: m.update(format=2), "BUNDLE_MANIFEST", "format: Input should be 1"),
        (
            lambda m: m.update(flavor="pickle"),
            "BUNDLE_MANIFEST",
            "flavor: Input should be 'lightgbm', 'sklearn', 'onnx', 'linear' or 'ensemble'",
        ),
        (lambda m: m["features"].reverse(), "BUNDLE_FEATURES", "feature 0 differs (manifest: distance, carrier)"),
        (lambda m: m["features"].pop(), "BUNDLE_FEATURES", "feature 2 differs (manifest: nothing)"),
        (lambda m: m["features"].append({"name": "x", "kind": "numeric"}), "BUNDLE_FEATURES", "feature 3 differs"),
        (lambda m: m["features"][0].update(name="years"), "BUNDLE_FEATURES", "feature 0 differs"),
    ],
    ids=["loader", "format", "flavor", "permuted", "one less", "one more", "renamed"],
)
def test_a_manifest_that_does_not_fit_is_refused(change: Change, code: str, found: str, bundle: Path) -> None:
    forged = resealed(bundle, change)
    problem = the_problem(lambda: open_bundle(forged))
    assert problem.code == code
    assert found in problem.found


@pytest.mark.parametrize("library", ["lightgbm 99.0.0", "lightgbm 3.3.5", "lightgbm", "lightgbm 4.99"])
def test_a_model_of_another_library_is_refused_with_both_versions(library: str, bundle: Path) -> None:
    forged = resealed(bundle, lambda manifest: manifest.update(library=library))
    with pytest.raises(
        InputError, match=rf"lightgbm 4\S+ is installed; expected {library}, which made it.*BUNDLE_VERSION"
    ):
        open_bundle(forged)


def test_a_model_of_an_earlier_library_is_read_where_it_says_the_same(bundle: Path) -> None:
    assert open_bundle(resealed(bundle, lambda manifest: manifest.update(library="lightgbm 4.0.0"))).id


def test_a_model_that_is_none_is_refused(bundle: Path) -> None:
    (bundle / "model.txt").write_text("not a model")
    forged = resealed(bundle)
    assert the_problem(lambda: open_bundle(forged)).code == "BUNDLE_UNLOADABLE"


def with_holdout(bundle: Path, change: Callable[[pa.Table], pa.Table]) -> Path:
    path = bundle / "holdout.parquet"
    pq.write_table(change(pq.read_table(path, partitioning=None)), path)
    return resealed(bundle)


def replaced(table: pa.Table, column: str, values: pa.Array) -> pa.Table:
    return table.set_column(table.schema.get_field_index(column), column, values)


def test_an_expected_prediction_that_is_not_reproduced_is_refused(bundle: Path) -> None:
    def nudge(table: pa.Table) -> pa.Table:
        values = table[EXPECTED_COLUMN].to_numpy().copy()
        values[17] = np.nextafter(values[17], 1)
        return replaced(table, EXPECTED_COLUMN, pa.array(values))

    forged = with_holdout(bundle, nudge)
    problem = the_problem(lambda: proven_bundle(forged, open_bundle(forged).digest))
    assert problem.code == "BUNDLE_PARITY"
    assert problem.found.startswith("holdout row 17 is scored ")


def test_changed_features_are_found_by_their_predictions(bundle: Path) -> None:
    forged = with_holdout(bundle, lambda t: replaced(t, "distance", pc.multiply(t["distance"], 3.0)))
    assert the_problem(lambda: proven_bundle(forged, open_bundle(forged).digest)).code == "BUNDLE_PARITY"


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.slice(0, 0),
        lambda table: table.drop_columns([EXPECTED_COLUMN]),
        lambda table: table.drop_columns([LABEL_COLUMN]),
        lambda table: replaced(table, EXPECTED_COLUMN, pa.nulls(ROWS, pa.float64())),
    ],
    ids=["no rows", "no predictions", "no labels", "null predictions"],
)
def test_a_holdout_that_proves_nothing_is_refused(change: Callable[[pa.Table], pa.Table], bundle: Path) -> None:
    forged = with_holdout(bundle, change)
    assert the_problem(lambda: proven_bundle(forged, open_bundle(forged).digest)).code == "BUNDLE_HOLDOUT"


def test_a_holdout_that_is_no_parquet_file_is_refused(bundle: Path) -> None:
    (bundle / "holdout.parquet").write_bytes(b"PAR1" * 20)
    forged = resealed(bundle)
    assert the_problem(lambda: proven_bundle(forged, open_bundle(forged).digest)).code == "BUNDLE_HOLDOUT"


def test_a_metric_better_than_what_is_measured_is_refused(bundle: Path) -> None:
    forged = resealed(bundle, lambda m: m["metrics"].update(auc=0.9999))
    problem = the_problem(lambda: check_promises(open_bundle(forged), {}))
    assert problem.code == "BUNDLE_METRIC"
    assert problem.where.endswith(": auc")
    assert problem.expected == "0.9999, as its manifest says"


def test_a_floor_above_what_is_measured_is_refused(bundle: Path) -> None:
    forged = resealed(bundle, lambda m: m["floors"].update(auc=0.99999))
    problem = the_problem(lambda: check_promises(open_bundle(forged), {}))
    assert (problem.code, problem.expected) == ("BUNDLE_METRIC", "at least 0.99999")


def test_a_floor_declared_since_is_held_too(bundle: Path) -> None:
    problem = the_problem(lambda: check_promises(open_bundle(bundle), {"auc": 0.99999}))
    assert (problem.code, problem.expected) == ("BUNDLE_METRIC", "at least 0.99999")


def test_a_folder_above_that_looks_like_a_partition_adds_no_column(written: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(written, tmp_path / "age=5" / written.name))
    assert proven_bundle(folder, open_bundle(folder).digest)[1] == 0.0


def with_profile(bundle: Path, change: Change) -> Path:
    path = bundle / "profile.json"
    text = json.loads(path.read_text())
    change(text)
    path.write_text(json.dumps(text))
    return resealed(bundle)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda p: p.pop("scores"), "profile.json: scores: Field required"),
        (lambda p: p["features"].update(rows=0), "profile.json: features of 0 rows, columns age, carrier, distance"),
        (lambda p: p["features"]["columns"].pop("age"), f"features of {ROWS} rows, columns carrier, distance"),
        (lambda p: p["scores"].update(columns={}), f"profile.json: scores of {ROWS} rows, columns none"),
        (lambda p: p["scores"]["columns"]["score"].update(mean=math.nan), "mean: Input should be a finite number"),
    ],
    ids=["no scores", "no rows", "a feature less", "no score", "NaN"],
)
def test_a_profile_that_does_not_fit_is_refused(change: Change, found: str, bundle: Path) -> None:
    forged = with_profile(bundle, change)
    problem = the_problem(lambda: open_bundle(forged))
    assert problem.code == "BUNDLE_PROFILE"
    assert found in problem.found


def test_a_bundle_from_before_there_was_a_profile_says_train_again(bundle: Path) -> None:
    (bundle / "profile.json").unlink()
    text = json.loads((bundle / "manifest.json").read_text())
    del text["files"]["profile.json"]
    (bundle / "manifest.json").write_text(json.dumps(text))
    problem = the_problem(lambda: open_bundle(resealed(bundle)))
    assert problem.code == "BUNDLE_MANIFEST"
    assert problem.found.startswith("manifest.json: files: Value error, must be exactly holdout.parquet, model.txt, ")
    assert problem.found.endswith("found holdout.parquet, model.txt: train the model again")


# Written and found


def test_the_same_content_has_the_same_id(trained: Any, written: Path) -> None:
    model, holdout, metrics = trained
    before = {path: path.stat().st_mtime_ns for path in written.iterdir()}
    again = write_bundle(written.parent, "2013-06-30", model, holdout, profile(holdout), manifest(metrics))
    assert again == written
    assert {path: path.stat().st_mtime_ns for path in written.iterdir()} == before


def test_another_content_has_another_id_and_is_the_latest(trained: Any, tmp_path: Path) -> None:
    model, holdout, metrics = trained
    first = write_bundle(tmp_path, "a", model, holdout, profile(holdout), manifest(metrics))
    second = write_bundle(tmp_path, "a", model, holdout, profile(holdout), manifest(metrics, floors={"auc": 0.5}))
    assert first != second
    make_latest(second)
    assert find_bundle(tmp_path, "latest", where="w") == second
    assert find_bundle(tmp_path, first.name, where="w") == first
    assert sorted(os.listdir(tmp_path)) == sorted([first.name, second.name, "latest.txt"])  # noqa: PTH208


def test_no_bundle_yet_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"w: no bundle in .*; expected one; train it first \[BUNDLE_NOT_FOUND\]"):
        find_bundle(tmp_path, "latest", where="w")


def test_an_unknown_bundle_is_answered_with_those_there_are(written: Path) -> None:
    with pytest.raises(InputError, match=f"no bundle 'x'; expected one of {written.name}"):
        find_bundle(written.parent, "x", where="w")


@pytest.mark.parametrize("text", ["", "../elsewhere", "/etc", "gone-0123456789ab"])
def test_a_damaged_latest_points_nowhere(text: str, bundle: Path) -> None:
    (bundle.parent / "latest.txt").write_text(text)
    (bundle.parent.parent / "elsewhere").mkdir()
    with pytest.raises(InputError, match="BUNDLE_NOT_FOUND"):
        find_bundle(bundle.parent, "latest", where="w")


# Nothing that is read can run

RUNS_CODE = {"pickle", "cPickle", "_pickle", "cloudpickle", "joblib", "dill", "marshal", "shelve"}
SOURCES = sorted(
    path for name in ("schemas", "validation", "lookup", "jobs", "dags") for path in (ROOT / name).rglob("*.py")
)


def code_that_runs_data(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in RUNS_CODE]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in RUNS_CODE:
            found.append(str(node.module))
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            is_yaml = called.startswith("yaml.") and called.split(".")[-1] in (
                "load",
                "load_all",
                "unsafe_load",
                "full_load",
            )
            if called in ("eval", "exec", "builtins.eval", "builtins.exec", "__import__") or is_yaml:
                found.append(called)
            if called.endswith(("np.load", "numpy.load", "torch.load")):
                found.append(called)
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_can_run_what_it_reads(path: Path) -> None:
    assert code_that_runs_data(path) == []


def test_the_rule_finds_what_it_looks_for(tmp_path: Path) -> None:
    path = tmp_path / "bad.py"
    path.write_text("import pickle\nfrom joblib import load\nimport yaml\neval('1')\nyaml.load('a')\nx.np.load('a')\n")
    assert code_that_runs_data(path) == ["pickle", "joblib", "eval", "yaml.load", "x.np.load"]
