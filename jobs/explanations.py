"""`almanac explain`: what moved the prediction of one entity, as it was stored, or from what was."""

from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from jobs.console import Console
from jobs.options import Json, PipelineName
from jobs.unexpected import check_store
from schemas.errors import InputError, Problem, RefusedError
from schemas.explain import Explain
from schemas.run import ENTITY_ID, EXPLANATIONS, FEATURES, PREDICTIONS, SCORED, RunManifest
from schemas.settings import Settings

if TYPE_CHECKING:
    import pyarrow as pa

    from lookup.store import Store


class Explanation(NamedTuple):
    """Why an entity has its prediction.

    Attributes:
        prediction: The stored row.
        features: What the model read.
        explanation: `expected`, the `contributions` of the features that moved it most, what the `rest` did, `raw`.
        is_stored: Whether the run kept it; else it was worked out again, from the run's features and bundle.
    """

    prediction: dict[str, Any]
    features: dict[str, Any]
    explanation: dict[str, Any]
    is_stored: bool


def explain(
    pipeline: PipelineName,
    entity: Annotated[str, typer.Argument(metavar="ID", help="The entity's id, for example UA:1545:EWR:2013-07-01.")],
    run: Annotated[
        str | None, typer.Option("--run", metavar="RUN", help="Release number or run id; the live one, if left out.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Tell which features moved an entity's prediction, and by how much."""
    from jobs.comparing import live_side, side
    from lookup.store import Store
    from schemas.declared import load_pipeline

    console, settings = Console(as_json=as_json), check_store(Settings.from_environment())
    declared, store = load_pipeline(settings, pipeline), Store(settings.store, pipeline)
    of = live_side(store) if run is None else side(store, run)
    found = explanation_of(store, of.manifest, entity, declared.pipeline.explain or Explain())
    told = found.explanation
    console.say(f"{entity}, {of}, model {told['model']}", style="bold")
    moves = [(one["feature"], found.features.get(one["feature"]), one["contribution"]) for one in told["contributions"]]
    ends = [("expected of anybody", None, told["expected"]), ("all other features", None, told["rest"])]
    console.table(["feature", "value", "moved by"], [ends[0], *moves, ends[1], ("raw score", None, told["raw"])])
    outputs = {column.name: found.prediction[column.name] for column in of.manifest.outputs}
    console.say(", ".join(f"{name} {value:.6g}" for name, value in outputs.items()))
    values = {name: value for name, value, _ in moves}
    told = {"id": told.pop(ENTITY_ID), "run_id": of.manifest.run_id, "outputs": outputs, **told, "values": values}
    console.result({**told, "stored": found.is_stored})


def explanation_of(store: "Store", manifest: RunManifest, entity: str, asked: Explain) -> Explanation:
    """Why the entity has the prediction that the run gave it.

    Raises:
        RefusedError: the run did not score it.
        DeclarationError: its model cannot be explained.
        InputError: a file of the run is gone or damaged.
    """
    from jobs.bundles import find_bundle, open_bundle
    from jobs.contributions import check_explainable, explained

    prediction, features = (_row(store, manifest, part, entity) for part in (PREDICTIONS, FEATURES))
    where = f"{manifest.pipeline} run {manifest.run_id}: id {entity[:40]!r}"
    row = prediction.to_pylist()[0] if prediction else {"status": "not there"}
    if row["status"] != SCORED or features is None:
        expected = "an entity that this run scored"
        raise RefusedError(Problem("EXPLAIN_UNKNOWN", where, f"its row is {row['status']}", expected))
    kept = _row(store, manifest, EXPLANATIONS, entity)
    if kept is None:
        bundle = open_bundle(find_bundle(store.bundles, row["model"], where=where))
        check_explainable({str(row["variant"]): bundle}, where)
        told = explained(bundle, features, asked.top).to_pylist()[0]
    else:
        told = kept.to_pylist()[0]
    return Explanation(row, features.to_pylist()[0], told, kept is not None)


def _row(store: "Store", manifest: RunManifest, part: str, entity: str) -> "pa.Table | None":
    """The entity's row in that part of the run; None where it has none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for file in manifest.files_in(part):
        path = store.run_folder(manifest.run_id) / file.path
        try:
            found = pq.read_table(path, filters=[(ENTITY_ID, "==", entity)], page_checksum_verification=True)
        except (pa.ArrowException, OSError) as err:
            raise InputError(Problem("OUT_CHECKSUM", str(path), str(err).partition("\n")[0], "the run's file")) from err
        if found.num_rows:
            return found
    return None
