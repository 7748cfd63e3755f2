"""The bundles of a run, opened and proven: the champion's, those of routes, the challenger's."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from jobs.bundles import Bundle, check_promises, find_bundle, open_bundle
from lookup.store import Store
from schemas.checks import Rule
from schemas.declared import DeclaredPipeline
from schemas.errors import DeclarationError, Problem
from schemas.models import Models
from schemas.run import CHAMPION

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


def open_lineup(store: Store, declared: DeclaredPipeline) -> Lineup:
    """Every bundle that the pipeline declares, each proven to be what it was when it was made.

    Raises:
        InputError: one is not there, cannot be trusted or does not keep its promises.
        DeclarationError: one has other outputs than the champion.
    """
    floors = {str(name): floor for name, floor in declared.pipeline.training.floors.items()}
    bundles: dict[str, Bundle] = {}
    for variant, model in declared.pipeline.models.variants.items():
        place = "champion" if variant == CHAMPION else variant
        where = f"{declared.name}/pipeline.yaml: models.{place}.bundle"
        bundle = open_bundle(find_bundle(store.bundles, model.bundle, where=where, variant=variant))
        check_promises(bundle, floors if variant == CHAMPION else {})
        champion = bundles.get(CHAMPION, bundle).manifest
        if bundle.manifest.outputs != champion.outputs:
            found = ", ".join(output.name for output in bundle.manifest.outputs)
            expected = f"the champion's outputs: {', '.join(output.name for output in champion.outputs)}"
            raise DeclarationError(Problem("CFG_INVALID", where, f"outputs {found}", expected))
        bundles[variant] = bundle
    return Lineup(bundles.pop(CHAMPION), bundles)


def route_rules(models: Models) -> list[Rule]:
    """What sets rows aside that no route takes."""
    if models.otherwise == "champion":
        return []
    return [Rule(name=NO_ROUTE, check=" OR ".join(f"({route.where})" for route in models.routes))]
