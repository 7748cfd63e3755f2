"""The JSON Schemas that editors and other languages read are golden files."""

import json
import os
from pathlib import Path

import pytest
import yaml

from schemas.export import json_schemas

FOLDER = Path(__file__).parent.parent.parent / "schemas" / "json"
PIPELINES = Path(__file__).parent.parent.parent / "dags"


@pytest.mark.parametrize("name", json_schemas())
def test_a_schema_is_its_golden_file(name: str) -> None:
    golden, text = FOLDER / f"{name}.schema.json", json_schemas()[name]
    if os.environ.get("ALMANAC_GOLDEN") == "write":
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(text, encoding="utf-8")
    assert golden.read_text(encoding="utf-8") == text, "`make golden` writes it anew"


def test_there_is_no_golden_file_without_a_schema() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {f"{name}.schema.json" for name in json_schemas()}


@pytest.mark.parametrize("path", sorted(PIPELINES.glob("*/*.yaml")), ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_an_editor_finds_the_schema_that_a_declared_file_names(path: Path) -> None:
    first = path.read_text(encoding="utf-8").splitlines()[0]
    schema = json.loads((path.parent / first.partition("$schema=")[2]).read_text(encoding="utf-8"))
    assert set(yaml.safe_load(path.read_text(encoding="utf-8"))) <= set(schema["properties"])
    assert schema["additionalProperties"] is False
