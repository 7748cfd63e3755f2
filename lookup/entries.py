"""An append-only log: numbered files, each created once, never changed."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import ValidationError

from schemas.content import create_exclusively
from schemas.decision import Decision
from schemas.errors import InputError, Problem
from schemas.release import LogEntry

Entry = TypeVar("Entry", LogEntry, Decision)


class EntryLog(Generic[Entry]):
    """An entry's number is taken by creating its file, which only one process can do."""

    def __init__(self, folder: Path, model: type[Entry], *, what: str) -> None:
        """The log in `folder`.

        Args:
            folder: It need not be there yet.
            model: Of its entries.
            what: How errors name an entry.
        """
        self._folder, self._what = folder, what
        self._model: type[Entry] = model

    def entries(self) -> list[Entry]:
        """Every entry, oldest first.

        Raises:
            InputError: an entry is missing or damaged.
        """
        paths = sorted(self._folder.glob("[0-9]*.json"))
        entries = [self._read(path) for path in paths]
        for expected, (path, entry) in enumerate(zip(paths, entries, strict=True), start=1):
            if (path.name, entry.sequence) != (_name(expected), expected):
                raise InputError(
                    Problem("LOG_GAP", str(path), f"entry {entry.sequence}", f"entry {expected}: one is missing")
                )
        return entries

    def append(self, draft: Callable[[Sequence[Entry], int], Entry | None]) -> Entry | None:
        """Append what `draft(entries, next sequence)` makes; ask it again where another process was faster.

        A draft that returns None appends nothing.
        """
        while True:
            entries = self.entries()
            entry = draft(entries, len(entries) + 1)
            if entry is None:
                return None
            if create_exclusively(self._folder / _name(entry.sequence), entry.model_dump_json(indent=2) + "\n"):
                return entry

    def _read(self, path: Path) -> Entry:
        try:
            entry: Entry = self._model.model_validate_json(path.read_bytes())
        except ValidationError as err:
            raise InputError(Problem("LOG_FORMAT", str(path), str(err.errors()[0]["msg"]), self._what)) from err
        return entry


def _name(sequence: int) -> str:
    return f"{sequence:08}.json"
