"""Model bundles on disk: written once, and opened only when every digest holds. Nothing in them can run."""

import hashlib
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from jobs.flavors.opening import open_model
from jobs.flavors.scorer import Engine, Scorer, Signature, UnloadableError, UnusableError, as_outputs
from jobs.libraries import can_read, library_here, named
from jobs.matrix import feature_columns
from schemas.bundle import (
    GROUP_COLUMN,
    HOLDOUT_FILE,
    LABEL_COLUMN,
    MANIFEST_FILE,
    PROFILE_FILE,
    BundleFile,
    BundleManifest,
    expected_columns,
)
from schemas.content import sha256_file, write_atomically
from schemas.errors import InputError, Problem
from schemas.run import CHAMPION
from validation.drift import ScoredProfile
from validation.parity import Floats, max_difference, measure, metric_problems

LATEST = "latest"
_DIGEST_CHARACTERS = 12


@dataclass(frozen=True, slots=True)
class Bundle:
    """A model whose files are what its manifest says.

    Attributes:
        engine: What scores: the library, until the bundle is proven.
        profile: Of the rows that it was trained on, and of its predictions for its holdout: what drift compares with.
    """

    id: str
    folder: Path
    digest: str
    manifest: BundleManifest
    scorer: Scorer
    engine: Engine
    holdout: pa.Table
    profile: ScoredProfile

    def predict(self, features: pa.RecordBatch | pa.Table) -> Floats:
        """Outputs of the rows, shape (rows, outputs). Each row's outputs depend on that row alone.

        Raises:
            InputError: a feature is missing or of a type the model cannot read.
            UnusableError: or whatever else its library raises for some row.
        """
        columns = feature_columns(self.manifest.features, features, model=self.id)
        return as_outputs(self.manifest.classes, self.engine.predict(columns))


def open_bundle(folder: Path, *, digest: str | None = None) -> Bundle:
    """The bundle in `folder`. Every file is read as bytes and its digest compared before any is parsed.

    Args:
        folder: Named by the bundle's id, whose last 12 characters are its digest's first.
        digest: The manifest's SHA-256 where the caller knows it.

    Raises:
        InputError: a file is missing, unlisted, truncated or changed, or the model does not fit the manifest.
    """
    raw = _read(folder, MANIFEST_FILE)
    found = hashlib.sha256(raw).hexdigest()
    if digest not in (None, found) or not folder.name.endswith(found[:_DIGEST_CHARACTERS]):
        expected = (digest or folder.name)[-64:][-_DIGEST_CHARACTERS:]
        raise _error(folder, "BUNDLE_CHECKSUM", f"{MANIFEST_FILE}: sha256 {found[:12]}…", f"{expected}…")
    try:
        manifest = BundleManifest.model_validate_json(raw)
    except ValidationError as err:
        first = err.errors()[0]
        wrong = f"{MANIFEST_FILE}: {'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise _error(folder, "BUNDLE_MANIFEST", wrong, "a bundle manifest") from err
    files = _proven_files(folder, manifest)
    if not can_read(here := library_here(manifest.flavor), manifest.library):
        expected = f"{manifest.library}, which made it, or a later one of that major version; or train again"
        raise _error(folder, "BUNDLE_VERSION", f"{here} is installed", expected)
    scorer = _open_model(folder, manifest, files[manifest.model_file])
    profile = _profile(folder, manifest, files[PROFILE_FILE])
    holdout = _holdout(folder, manifest, files[HOLDOUT_FILE])
    engine = scorer.library("the bundle is not proven yet")
    return Bundle(folder.name, folder, found, manifest, scorer, engine, holdout, profile)


def _read(folder: Path, name: str) -> bytes:
    path = folder / name
    if path.is_symlink() or not path.is_file():
        raise _error(folder, "BUNDLE_FILES", f"{name} is no plain file there", "the file itself")
    try:
        return path.read_bytes()
    except OSError as err:
        raise _error(folder, "BUNDLE_FILES", f"{name}: {err.strerror}", "a readable file") from err


def _proven_files(folder: Path, manifest: BundleManifest) -> dict[str, bytes]:
    """The bytes of every listed file, read once: those whose digest was compared are those that are parsed."""
    present = {path.name for path in folder.iterdir()} - {MANIFEST_FILE}
    if unlisted := present - set(manifest.files):
        raise _error(folder, "BUNDLE_FILES", f"{', '.join(sorted(unlisted))} not in the manifest", "only what it lists")
    files = {name: _read(folder, name) for name in manifest.files}
    for name, file in manifest.files.items():
        if len(files[name]) != file.size_bytes:
            found, expected = f"{name}: {len(files[name])} bytes", f"{file.size_bytes}: truncated or changed"
            raise _error(folder, "BUNDLE_CHECKSUM", found, expected)
        if (digest := hashlib.sha256(files[name]).hexdigest()) != file.sha256:
            raise _error(folder, "BUNDLE_CHECKSUM", f"{name}: sha256 {digest[:12]}…", f"{file.sha256[:12]}…")
    return files


def _open_model(folder: Path, manifest: BundleManifest, raw: bytes) -> Scorer:
    file, signature = manifest.model_file, Signature(manifest.features, manifest.objective, manifest.classes)
    try:
        scorer = open_model(manifest.flavor, raw, signature)
    except UnloadableError as err:
        raise _error(folder, "BUNDLE_UNLOADABLE", f"{file}: {err}", f"a model that {manifest.library} wrote") from err
    declared, trained = [feature.name for feature in manifest.features], scorer.feature_names
    if trained not in (None, declared):
        at = next(
            (i for i, pair in enumerate(zip(declared, trained, strict=False)) if pair[0] != pair[1]),
            min(len(declared), len(trained)),
        )
        found = f"manifest: {', '.join(declared[at : at + 2]) or 'nothing'}"
        expected = f"{', '.join(trained[at : at + 2]) or 'nothing'}, as in {file}"
        raise _error(folder, "BUNDLE_FEATURES", f"feature {at} differs ({found})", expected)
    return scorer


@lru_cache(maxsize=32)
def proven_bundle(folder: Path, digest: str) -> tuple[Bundle, float]:
    """The bundle, once a process, after it reproduced every prediction of its holdout; with the largest difference.

    From then on what is fastest scores, where it reproduced them too.

    Raises:
        InputError: as `open_bundle`, or a prediction differs.
    """
    bundle = open_bundle(folder, digest=digest)
    expected = np.column_stack(
        [bundle.holdout.column(name).to_numpy() for name in expected_columns(bundle.manifest.outputs)]
    )
    model = named(bundle.id, bundle.manifest.flavor, bundle.manifest.library)
    difference = max_difference(expected, _on_holdout(bundle), model=model)
    columns = feature_columns(bundle.manifest.features, bundle.holdout, model=bundle.id)
    try:
        return replace(bundle, engine=bundle.scorer.fastest(columns)), difference
    except UnusableError as err:
        raise _error(folder, "BUNDLE_PARITY", str(err), "the same prediction wherever the row stands") from err


def _on_holdout(bundle: Bundle) -> Floats:
    try:
        return bundle.predict(bundle.holdout)
    except UnusableError as err:
        raise _error(bundle.folder, "BUNDLE_UNLOADABLE", str(err), "a model that scores its holdout") from err


def check_promises(bundle: Bundle, floors: Mapping[str, float]) -> None:
    """Measure the bundle on its holdout again.

    Args:
        bundle: The bundle.
        floors: Those declared now; the bundle's own, from when it was made, hold as well.

    Raises:
        InputError: a metric is not what the manifest says, or is below a floor.
    """
    labels = np.asarray(bundle.holdout.column(LABEL_COLUMN).to_numpy(), dtype=np.float64)
    groups = bundle.holdout.column(GROUP_COLUMN) if GROUP_COLUMN in bundle.holdout.schema.names else None
    measured = measure(bundle.manifest.objective, labels, _on_holdout(bundle), groups)
    own = bundle.manifest.floors
    highest = {name: max(own.get(name, floor), floor) for name, floor in {**own, **floors}.items()}
    if problems := metric_problems(measured, bundle.manifest.metrics, highest, model=bundle.id):
        raise InputError(*problems)


def _holdout(folder: Path, manifest: BundleManifest, raw: bytes) -> pa.Table:
    try:
        holdout = pq.read_table(pa.BufferReader(raw))
    except (pa.ArrowException, OSError) as err:
        raise _error(folder, "BUNDLE_HOLDOUT", f"{HOLDOUT_FILE}: {err}", "a Parquet file") from err
    for name in (LABEL_COLUMN, *expected_columns(manifest.outputs)):
        if name not in holdout.schema.names or holdout.column(name).null_count:
            raise _error(folder, "BUNDLE_HOLDOUT", f"{HOLDOUT_FILE}: {name} is missing", "it in every row")
    return holdout


def _profile(folder: Path, manifest: BundleManifest, raw: bytes) -> ScoredProfile:
    try:
        profile = ScoredProfile.model_validate_json(raw)
    except ValidationError as err:
        first = err.errors()[0]
        found = f"{PROFILE_FILE}: {'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise _error(folder, "BUNDLE_PROFILE", found, "the profile of its training") from err
    for part, columns, rows in (
        ("features", {feature.name for feature in manifest.features}, manifest.training.rows),
        ("scores", set(manifest.output_names), manifest.training.holdout_rows),
    ):
        side = getattr(profile, part)
        if (side.rows, set(side.columns)) != (rows, columns):
            found = f"{PROFILE_FILE}: {part} of {side.rows} rows, columns {', '.join(sorted(side.columns)) or 'none'}"
            raise _error(folder, "BUNDLE_PROFILE", found, f"{rows} rows, columns {', '.join(sorted(columns))}")
    return profile


def write_bundle(
    bundles: Path,
    name: str,
    model: bytes,
    holdout: pa.Table,
    profile: ScoredProfile,
    manifest: BundleManifest,
) -> Path:
    """Write a bundle. Its id is `<name>-<12 hex of its digest>`: same content, same id.

    Args:
        bundles: The folder of a pipeline's bundles.
        name: For people, for example the last training day.
        model: The file of its flavor.
        holdout: Feature columns, LABEL_COLUMN and what is expected for each output.
        profile: Of the rows trained on, and of the holdout's predictions.
        manifest: All but `files`, which is filled in here.
    """
    bundles.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(dir=bundles, prefix=".staging-"))
    try:
        (staging / manifest.model_file).write_bytes(model)
        pq.write_table(holdout, staging / HOLDOUT_FILE, compression="zstd")
        (staging / PROFILE_FILE).write_text(profile.model_dump_json() + "\n", encoding="utf-8")
        files = {
            file: BundleFile(sha256=sha256_file(staging / file), size_bytes=(staging / file).stat().st_size)
            for file in (manifest.model_file, HOLDOUT_FILE, PROFILE_FILE)
        }
        text = manifest.model_copy(update={"files": files}).model_dump_json(indent=2) + "\n"
        (staging / MANIFEST_FILE).write_text(text, encoding="utf-8")
        folder = bundles / f"{name}-{sha256_file(staging / MANIFEST_FILE)[:_DIGEST_CHARACTERS]}"
        if not _sound(folder):
            shutil.rmtree(folder, ignore_errors=True)
            staging.chmod(0o755)
            staging.rename(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return folder


def make_latest(folder: Path, variant: str = CHAMPION) -> None:
    """Name the bundle the one that `latest` means for that variant."""
    write_atomically(_pointer(folder.parent, variant), folder.name + "\n")


def _pointer(bundles: Path, variant: str) -> Path:
    return bundles / ("latest.txt" if variant == CHAMPION else f"latest-{variant}.txt")


def _sound(folder: Path) -> bool:
    """Whether the bundle is there, every file as its manifest says; one that is not is written again."""
    try:
        open_bundle(folder)
    except InputError:
        return False
    return True


def find_bundle(bundles: Path, reference: str, *, where: str, variant: str = CHAMPION) -> Path:
    """The folder of the bundle of that id, or of the latest one of that variant.

    Raises:
        InputError: there is no such bundle.
    """
    name = reference
    if reference == LATEST:
        try:
            name = _pointer(bundles, variant).read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            raise InputError(
                Problem("BUNDLE_NOT_FOUND", where, f"no bundle in {bundles}", "one; train it first")
            ) from None
    if not name or Path(name).name != name or not (bundles / name).is_dir():
        known = ", ".join(sorted(path.name for path in bundles.glob("[!.]*-*"))) or "none"
        raise InputError(Problem("BUNDLE_NOT_FOUND", where, f"no bundle '{name}'", f"one of {known}"))
    return bundles / name


def _error(folder: Path, code: str, found: str, expected: str) -> InputError:
    return InputError(Problem(code, f"bundle {folder.name}", found, expected))
