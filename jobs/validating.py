"""Checking a declared folder without Spark."""

from importlib.util import find_spec

from schemas.declared import DeclaredPipeline, load_pipeline
from schemas.errors import DeclarationError, Problem
from schemas.settings import Settings, expand
from schemas.sql import check_sql


def validate_pipeline(settings: Settings, name: str) -> list[Problem]:
    """Everything that is wrong with a declaration, as far as it shows without running it."""
    try:
        declared = load_pipeline(settings, name)
    except DeclarationError as err:
        return list(err.problems)
    problems: list[Problem] = []
    try:
        check_sql(declared)
    except DeclarationError as err:
        problems += err.problems
    for source_name, source in declared.pipeline.sources.items():
        where = f"{name}/pipeline.yaml: sources.{source_name}.path"
        try:
            path = settings.root / expand(source.path, where=where)
            is_there = path.exists()
        except DeclarationError as err:
            problems += err.problems
            continue
        except OSError as err:  # a name that is too long, a folder that may not be entered
            problems.append(Problem("IN_UNREADABLE", where, f"{err.strerror}: {path}", "a path that can be read"))
            continue
        if not is_there:
            problems.append(Problem("IN_NOT_FOUND", where, f"no such file or folder: {path}", "the source"))
    return problems + _suite_problems(declared)


def _suite_problems(declared: DeclaredPipeline) -> list[Problem]:
    if find_spec("great_expectations") is None:
        return []  # the names of expectations are its own; a machine without the extra `spark` cannot tell
    from validation.expectations import problems

    file = f"{declared.name}/{declared.pipeline.checks.expectations}"
    suites = (("inputs", declared.suites.inputs), ("predictions", declared.suites.predictions))
    return [
        problem
        for suite, expectations in suites
        for problem in problems(suite, expectations, lambda index, suite=suite: f"{file}: {suite}.{index}")  # type: ignore[misc]
    ]
