"""Which pipelines wait for the releases of which: names that do not exist and cycles are refused."""

import difflib
from collections.abc import Collection, Mapping, Sequence

from schemas.declared import PIPELINE_FILE, DeclaredPipeline, pipeline_folders, read_folder
from schemas.errors import DeclarationError, Problem
from schemas.settings import Settings

_EXPECTED = "pipelines that do not wait for one another"


def read_pipelines(settings: Settings) -> dict[str, DeclaredPipeline | DeclarationError]:
    """Every pipeline of the folder, by name; of one that cannot be read, or waits in a cycle, what is wrong."""
    found: dict[str, DeclaredPipeline | DeclarationError] = {}
    for folder in pipeline_folders(settings):
        try:
            found[folder.name] = read_folder(folder)
        except DeclarationError as err:
            found[folder.name] = err
    after = {name: each.pipeline.airflow.after for name, each in found.items() if isinstance(each, DeclaredPipeline)}
    # One that cannot be read is there all the same, and waits for nobody that is known of.
    problems = dependency_problems({name: after.get(name, ()) for name in found})
    return found | {name: DeclarationError(problem) for name, problem in problems.items()}


def dependency_problems(after: Mapping[str, Collection[str]]) -> dict[str, Problem]:
    """Pipeline -> what is wrong with those that it waits for. All members of a cycle have the same problem.

    >>> dependency_problems({"a": ["b"], "b": ["a"], "c": ["a"]})["b"].found
    'a cycle, a -> b -> a'
    """
    found: dict[str, Problem] = {}
    for name, others in after.items():
        where = f"{name}/{PIPELINE_FILE}: airflow.after"
        if unknown := [other for other in others if other not in after]:
            near = difflib.get_close_matches(unknown[0], after, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            known = ", ".join(sorted(set(after) - {name})) or "a pipeline; there is no other"
            found[name] = Problem("CFG_NOT_FOUND", where, f"no pipeline '{unknown[0]}' is declared{hint}", known)
        elif cycle := _cycle(after, name):
            first = f"{cycle[0]}/{PIPELINE_FILE}: airflow.after"
            found[name] = Problem("CFG_CYCLE", first, f"a cycle, {' -> '.join([*cycle, cycle[0]])}", _EXPECTED)
    return found


def _cycle(after: Mapping[str, Collection[str]], name: str) -> Sequence[str]:
    """The shortest way from a pipeline back to itself, from the first of its names on; empty where there is none."""
    ways, seen = [[name]], set[str]()
    for way in ways:  # it grows meanwhile
        for other in sorted(after.get(way[-1], ())):
            if other == name:
                first = way.index(min(way))
                return way[first:] + way[:first]
            if other not in seen:
                seen.add(other)
                ways.append([*way, other])
    return ()
