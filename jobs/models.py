"""Which bundle a past date is scored with: the declared one, a named one, or the one that there was then."""

import datetime as dt
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from jobs.bundles import Bundle, find_bundle
from jobs.lineup import Lineup, declared_folders, declared_lineup, open_lineup, trusted_bundle
from lookup.store import Store
from schemas.bundle import MANIFEST_FILE, BundleManifest, TrainingRecord
from schemas.declared import DeclaredPipeline
from schemas.errors import InputError, Problem
from schemas.run import CHAMPION
from schemas.settings import Settings

DECLARED, AS_OF = "declared", "as-of"


class _Made(NamedTuple):
    """A bundle of the store, and the last day that it knows: of its training, else the one it was made on."""

    until: dt.date
    written: float
    folder: Path
    variant: str


class Models:
    """The bundles of a backfill, each opened and measured once."""

    def __init__(self, settings: Settings, declared: DeclaredPipeline, choice: str, *, adopt: bool = True) -> None:
        """Of one pipeline.

        Args:
            settings: Where the store is.
            declared: The pipeline.
            choice: `declared`, `as-of`, or a champion for all dates: the id of a bundle of the store, or the path of
                one, with a `/`. Routes and a challenger stay the declared ones beside it.
            adopt: Copy a bundle from elsewhere into the store, as what is scored with it needs it there.

        Raises:
            DeclarationError: the declaration does not fit one of them.
            InputError: there is no such bundle, or one cannot be trusted.
        """
        self._declared = declared
        self._bundles = Store(settings.store, declared.name).bundles
        self._open: dict[tuple[Path, ...], Lineup] = {}
        self._one: Lineup | None = None
        if choice == DECLARED:
            self._one = declared_lineup(settings, declared)
        elif choice != AS_OF:
            folder = self._named(choice)
            champion = trusted_bundle(declared, folder)
            if adopt and folder.parent != self._bundles:
                folder = _adopted(champion, self._bundles)
            self._one = open_lineup(declared, {**declared_folders(settings, declared), CHAMPION: folder})
        self._made = [] if self._one else sorted(_made(self._bundles))

    def of(self, date: dt.date) -> Lineup:
        """The bundles that this date is scored with.

        Raises:
            DeclarationError: the declaration does not fit one of them.
            InputError: no bundle of a variant is that old, or one that is cannot be trusted.
        """
        if self._one:
            return self._one
        folders = {variant: self._as_of(date, variant) for variant in self._declared.pipeline.models.variants}
        chosen = tuple(folders.values())
        if chosen not in self._open:
            self._open[chosen] = open_lineup(self._declared, folders)
        return self._open[chosen]

    def _as_of(self, date: dt.date, variant: str) -> Path:
        made = [one for one in self._made if one.variant == variant]
        known = [one for one in made if one.until < date]
        if not known:
            first = f"; the first is {made[0].folder.name}" if made else ""
            of = "" if variant == CHAMPION else f" of {variant}"
            expected = "an earlier model, or --model with one for all"
            found = f"no bundle{of} in {self._bundles} whose days all lie before {date}{first}"
            raise InputError(Problem("BACKFILL_MODEL", f"--model {AS_OF}", found, expected))
        return known[-1].folder

    def _named(self, choice: str) -> Path:
        if "/" not in choice:
            return find_bundle(self._bundles, choice, where="--model")
        folder = Path(choice).absolute()
        if not folder.is_dir():
            raise InputError(Problem("BUNDLE_NOT_FOUND", "--model", f"no folder {folder}", "a bundle's folder"))
        return folder


def has_seen(training: TrainingRecord, date: dt.date) -> bool:
    """Whether the model was trained, or measured, on that day's outcomes."""
    return training.start is not None and training.end is not None and training.start <= date <= training.end


def _made(bundles: Path) -> list[_Made]:
    found = []
    for path in bundles.glob(f"[!.]*/{MANIFEST_FILE}"):
        try:
            training = BundleManifest.model_validate_json(path.read_bytes()).training
            until = training.end or dt.date.fromisoformat(path.parent.name[-23:-13])
        except ValueError as err:  # pydantic's ValidationError is one
            raise _unreadable(path.parent, err) from err
        found.append(_Made(until, path.stat().st_mtime, path.parent, training.variant))
    return found


def _unreadable(folder: Path, err: ValueError) -> InputError:
    first = err.errors()[0]["msg"] if isinstance(err, ValidationError) else str(err)
    return InputError(Problem("BUNDLE_MANIFEST", f"bundle {folder.name}", f"{MANIFEST_FILE}: {first}", "its training"))


def _adopted(bundle: Bundle, bundles: Path) -> Path:
    """The same bundle in this store, so that what it scores can be traced and verified later; copied where it is not.

    Its id is its digest: one that is there is the same.
    """
    folder = bundles / bundle.id
    if not folder.is_dir():
        bundles.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(dir=bundles, prefix=".staging-"))
        try:
            copy = shutil.copytree(bundle.folder, staging / bundle.id)
            copy.rename(folder)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return folder
