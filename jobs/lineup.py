"""The bundles of a run, opened and proven: the champion's, those of routes, the challenger's."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from jobs.bundles import Bundle, check_promises, find_bundle, open_bundle
from jobs.contributions import check_explainable
from lookup.store import Store
from schemas.checks import Rule
from schemas.declared import DeclaredPipeline
from schemas.errors import DeclarationError, Problem
from schemas.models import Models
from schemas.run import CHAMPION
from schemas.settings import Settings

NO_ROUTE = "no_route"


@dataclass(frozen=True, slots=True)
class Lineup:
    """The bundles of a run.

    Attributes:
        champion: Scores what no route takes.
        others: Variant -> bundle, of routes and challenger.
    """

    champion: Bundle
    others: Mapping[str, Bundle]

    def __iter__(self) -> Iterator[tuple[str, Bundle]]:
        yield CHAMPION, self.champion
        yield from self.others.items()

    @property
    def digests(self) -> dict[str, str]:
        """What they add to the identity of a run."""
        return {variant: bundle.digest for variant, bundle in self}


def declared_lineup(settings: Settings, declared: DeclaredPipeline) -> Lineup:
    """The bundles that the declaration names.

    Raises:
        DeclarationError: the declaration does not fit one.
        InputError: one is not there, or cannot be trusted.
    """
    return open_lineup(declared, declared_folders(settings, declared))


def declared_folders(settings: Settings, declared: DeclaredPipeline) -> dict[str, Path]:
    """Where the bundle of each variant is.

    Raises:
        InputError: one is not there.
    """
    bundles = Store(settings.store, declared.name).bundles
    return {
        variant: find_bundle(bundles, model.bundle, where=_where(declared, variant), variant=variant)
        for variant, model in declared.pipeline.models.variants.items()
    }


def open_lineup(declared: DeclaredPipeline, folders: Mapping[str, Path]) -> Lineup:
    """The bundles in these folders, each proven to be what it was when it was made.

    Raises:
        DeclarationError: the declaration does not fit one, or one has other outputs than the champion, or cannot be
            explained where that is asked for.
        InputError: one cannot be trusted.
    """
    champion = trusted_bundle(declared, folders[CHAMPION])
    others = {}
    for variant, folder in folders.items():
        if variant == CHAMPION:
            continue
        bundle = others[variant] = open_bundle(folder)
        check_promises(bundle, {})
        if bundle.manifest.outputs != champion.manifest.outputs:
            found, expected = (", ".join(each.manifest.output_names) for each in (bundle, champion))
            where = _where(declared, variant)
            raise DeclarationError(Problem("CFG_INVALID", where, f"outputs {found}", f"the champion's: {expected}"))
    lineup = Lineup(champion, others)
    if declared.pipeline.explain:
        shadows = {each.name for each in declared.pipeline.models.challengers if not each.serves}
        serving = {variant: bundle for variant, bundle in lineup if variant not in shadows}
        check_explainable(serving, f"{declared.name}/pipeline.yaml: explain")
    return lineup


def trusted_bundle(declared: DeclaredPipeline, folder: Path) -> Bundle:
    """The bundle of a champion, proven to be what it promises and to fit the declaration.

    Raises:
        DeclarationError: the declaration does not fit it.
        InputError: it cannot be trusted.
    """
    bundle = open_bundle(folder)
    _check_outputs(declared, bundle)
    check_promises(bundle, declared.pipeline.training.floors_by_name)
    return bundle


def _where(declared: DeclaredPipeline, variant: str) -> str:
    return f"{declared.name}/pipeline.yaml: models.{variant}.bundle"


def _check_outputs(declared: DeclaredPipeline, bundle: Bundle) -> None:
    """Refuse a default of other outputs than the model has: readers would get now one shape, now the other.

    And a feature named as an output: a rule could mean either.
    """
    pipeline, default = declared.pipeline, declared.pipeline.fallback.default
    outputs = set(bundle.manifest.output_names)
    if twice := outputs & {*pipeline.features.columns, *pipeline.entity.key}:
        where, found = f"{declared.name}/pipeline.yaml: features", f"{', '.join(sorted(twice))} is the model's output"
        raise DeclarationError(Problem("CFG_INVALID", where, found, "another name for the column"))
    where = f"{declared.name}/pipeline.yaml: fallback.default"
    if default is not None and set(default) != outputs:
        raise DeclarationError(
            Problem("CFG_INVALID", where, f"outputs {', '.join(sorted(default))}", ", ".join(sorted(outputs)))
        )

    for output in bundle.manifest.outputs if default else ():
        value = (default or {})[output.name]
        if value in output.values if isinstance(value, str) else not output.values:
            continue
        expected = f"one of {', '.join(output.values)}" if output.values else "a number"
        raise DeclarationError(Problem("CFG_INVALID", f"{where}.{output.name}", repr(value), expected))


def route_rules(models: Models) -> list[Rule]:
    """What sets rows aside that no route takes."""
    if models.otherwise == "champion":
        return []
    return [Rule(name=NO_ROUTE, check=" OR ".join(f"({route.where})" for route in models.routes))]
