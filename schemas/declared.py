"""A declared folder, read whole: pipeline.yaml, features.sql and expectations.yaml."""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from schemas.content import canonical_json, sha256_text
from schemas.decision import Decision
from schemas.errors import DeclarationError, Problem
from schemas.expectations import Suites
from schemas.parameters import Value
from schemas.pipeline import Pipeline
from schemas.settings import Settings
from schemas.yamlfile import Document, read_document, read_text

PIPELINE_FILE = "pipeline.yaml"

_Model = TypeVar("_Model", bound=BaseModel)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclaredPipeline:
    """A pipeline with the texts beside it.

    Attributes:
        decisions: What was decided of its challengers, where `pipeline` has it in.
        values: Of its parameters in one run, which its routes have in them.
    """

    folder: Path
    pipeline: Pipeline
    features_sql: str
    suites: Suites
    decisions: tuple[Decision, ...] = ()
    values: Mapping[str, Value] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.pipeline.pipeline

    @property
    def digest(self) -> str:
        """SHA-256 of all that is declared of predictions: not when they run, how long they stay, or how they
        are come by sooner (`models.reuse`), and no default.

        So a key that a later Almanac knows makes no other run of what was declared before; a default that changes its
        meaning has to be a new `RUN_FORMAT`.
        """
        models = self.pipeline.models.model_copy(update={"reuse": None})
        declared = self.pipeline.model_copy(update={"models": models})
        pipeline = declared.model_dump(mode="json", exclude_defaults=True, exclude={"airflow", "retention"})
        suites = self.suites.model_dump(mode="json", exclude_defaults=True)
        values = [self.values] if self.values else []
        return sha256_text(canonical_json([pipeline, self.features_sql, suites, *values]))


def pipeline_folders(settings: Settings) -> list[Path]:
    """The folders under `settings.pipelines` that hold a pipeline.yaml, by name."""
    if not settings.pipelines.is_dir():
        return []
    return sorted(path.parent for path in settings.pipelines.glob(f"*/{PIPELINE_FILE}"))


def declared_names(settings: Settings) -> list[str]:
    """The names of all declared pipelines.

    Raises:
        DeclarationError: there is none.
    """
    if names := [folder.name for folder in pipeline_folders(settings)]:
        return names
    raise DeclarationError(
        Problem("CFG_NOT_FOUND", str(settings.pipelines), "no pipeline is declared", "<name>/pipeline.yaml")
    )


def load_pipeline(settings: Settings, name: str) -> DeclaredPipeline:
    """The pipeline of that name.

    Raises:
        DeclarationError: there is none, or its declaration is wrong.
    """
    folders = {folder.name: folder for folder in pipeline_folders(settings)}
    if name not in folders:
        near = difflib.get_close_matches(name, folders, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        place = f"{settings.pipelines}/<name>/{PIPELINE_FILE}"
        expected = f"one of {', '.join(folders)}" if folders else f"a pipeline in {place}; there is none"
        raise DeclarationError(Problem("CFG_NOT_FOUND", f"pipeline '{name}'", f"not declared{hint}", expected))
    return read_folder(folders[name])


def read_folder(folder: Path) -> DeclaredPipeline:
    """The pipeline declared in `folder`.

    Raises:
        DeclarationError: with every problem of the folder that could be found at once.
    """
    document = read_document(folder / PIPELINE_FILE, name=f"{folder.name}/{PIPELINE_FILE}")
    pipeline = validated(Pipeline, document)
    if pipeline.pipeline != folder.name:
        is_taken = (folder.parent / pipeline.pipeline / PIPELINE_FILE).is_file()
        found = f"'{pipeline.pipeline}'{', which another folder declares too' if is_taken else ''}"
        raise DeclarationError(
            Problem("CFG_NAME", document.where(("pipeline",)), found, f"the folder's name, '{folder.name}'")
        )
    suites_name = pipeline.checks.expectations
    return DeclaredPipeline(
        folder=folder,
        pipeline=pipeline,
        features_sql=_read_sql(folder / pipeline.features.sql, f"{folder.name}/{pipeline.features.sql}"),
        suites=validated(Suites, read_document(folder / suites_name, name=f"{folder.name}/{suites_name}")),
    )


def _read_sql(path: Path, name: str) -> str:
    text = read_text(path, name=name)
    if not text.strip():
        raise DeclarationError(Problem("CFG_EMPTY", name, "the file is empty", "a Spark SQL query"))
    return text


def validated(model: type[_Model], document: Document) -> _Model:
    """What a document declares.

    Raises:
        DeclarationError: with every problem of the document, each with its line.
    """
    try:
        return model.model_validate(document.data)
    except ValidationError as err:
        raise DeclarationError(
            *(problem for detail in err.errors() for problem in _problems(detail, document))
        ) from None


def _problems(detail: ErrorDetails, document: Document) -> Iterator[Problem]:
    location = tuple(part for part in detail["loc"] if part != "[key]")
    kind = detail["type"]
    if kind == "unknown_keys":
        for key in detail["ctx"]["keys"]:
            near = difflib.get_close_matches(str(key), detail["ctx"]["known"], n=1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            known = "" if near else f"one of {', '.join(detail['ctx']['known'])}"
            yield Problem("CFG_UNKNOWN_KEY", document.where((*location, key)), f"unknown key{hint}", known)
    elif kind == "missing":
        yield Problem("CFG_MISSING_KEY", document.where(location), "is missing", "a value")
    elif kind == "invalid":
        yield Problem("CFG_INVALID", document.where((*location, *detail["ctx"]["at"])), detail["msg"])
    else:
        message = detail["msg"].removeprefix("Value error, ")
        code = {"value_error": "CFG_INVALID"}.get(
            kind, "CFG_TYPE" if kind.endswith(("_type", "_parsing")) else "CFG_RANGE"
        )
        found = "" if kind == "value_error" else f"found {_short(detail['input'])}; "
        yield Problem(code, document.where(location), f"{found}{message[:1].lower()}{message[1:]}")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
