"""A bundle manifest names exactly its files and only what can be measured; nothing else may be in it."""

from typing import Any

import pytest
from pydantic import ValidationError

from schemas.bundle import BundleManifest

FILE = {"sha256": "0" * 64, "size_bytes": 1}
MANIFEST: dict[str, Any] = {
    "library": "lightgbm 4.7.0",
    "objective": "binary",
    "features": [{"name": "age", "kind": "numeric"}],
    "outputs": [{"name": "score"}],
    "metrics": {"auc": 0.8},
    "floors": {"auc": 0.7},
    "training": {
        "pipeline": "churn", "declaration": "d", "snapshot": "s", "rows": 10, "holdout_rows": 5, "start": None,
        "end": None, "split": "at random", "label": "churned", "params": {}, "rounds": 1, "seed": 7,
    },
    "files": {"model.txt": FILE, "holdout.parquet": FILE, "profile.json": FILE},
}  # fmt: skip


def test_a_manifest_survives_json() -> None:
    manifest = BundleManifest.model_validate(MANIFEST)
    assert BundleManifest.model_validate_json(manifest.model_dump_json()) == manifest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loader_module": "os"}, "loader_module\n.*Extra inputs are not permitted"),
        ({"format": 2}, "format\n.*Input should be 1"),
        ({"flavor": "pickle"}, "flavor\n.*Input should be 'lightgbm'"),
        ({"objective": "survival"}, "objective\n.*'binary', 'regression', 'multiclass' or 'ranking'"),
        ({"features": []}, "features\n.*at least 1"),
        ({"outputs": [{"name": "a"}, {"name": "b"}]}, "outputs are not those of a binary model"),
        ({"metrics": {"auc": float("nan")}}, "metrics.auc\n.*finite number"),
        ({"floors": {"r2": 0.5}}, "a floor without its metric: r2"),
        ({"files": {}}, "files\n.*must be exactly holdout.parquet, model.txt, profile.json; found none"),
        (
            {"files": {"model.txt": FILE, "holdout.parquet": FILE}},
            "found holdout.parquet, model.txt: train the model again",
        ),
        ({"files": {**MANIFEST["files"], "model.pkl": FILE}}, "found holdout.parquet, model.pkl, model.txt, profile"),
        ({"files": {**MANIFEST["files"], "model.txt": {**FILE, "sha256": "../x"}}}, "sha256\n.*should match pattern"),
        ({"files": {**MANIFEST["files"], "model.txt": {**FILE, "size_bytes": 0}}}, "greater than or equal to 1"),
    ],
)
def test_a_manifest_of_another_kind_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        BundleManifest.model_validate(MANIFEST | change)
