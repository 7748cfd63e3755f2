"""docs/benchmarks.json: what each figure was when it was measured last, so that one can be measured anew by itself."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.figure import Figure, Measured
from benchmarks.workplace import ROOT

RECORDS = ROOT / "docs" / "benchmarks.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Samples of a figure, as `Measured` has them, and when they were taken: the time, the commit, the load before."""

    samples: Sequence[float]
    peers: Sequence[float]
    note: str
    at: str

    def of(self, figure: Figure) -> Measured:
        """The figure with them."""
        return Measured(figure=figure, samples=self.samples, peers=self.peers, note=self.note)


def read_records(file: Path = RECORDS) -> dict[str, Record]:
    """What is known of each figure, by its name."""
    return {name: Record(**record) for name, record in json.loads(file.read_text(encoding="utf-8")).items()}


def write_records(records: Mapping[str, Record], file: Path = RECORDS) -> None:
    """Keep them, a line each."""
    lines = (f"{json.dumps(name)}: {json.dumps(asdict(record))}" for name, record in records.items())
    file.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
