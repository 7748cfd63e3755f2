"""The layers of the house, as import-linter holds them."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_the_import_contracts_are_kept() -> None:
    command = [Path(sys.executable).parent / "lint-imports", "--no-cache"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout
    assert "0 broken" in ended.stdout


@pytest.mark.parametrize("name", ["scoring", "maintenance"])
def test_the_dags_import_nothing_but_schemas_of_ours(name: str) -> None:
    text = (ROOT / "dags" / f"{name}.py").read_text()
    ours = {line.split()[1].split(".")[0] for line in text.splitlines() if line.startswith(("from ", "import "))}
    assert ours & {"schemas", "validation", "lookup", "jobs"} == {"schemas"}
