"""What is measured of a run: of a staged one by reading each of its files once, of an earlier one as it was kept."""

from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from jobs.sparing import spare_modules
from jobs.stages import GetSpark
from jobs.tasks import file_count
from schemas.errors import AlmanacError, InputError, Problem
from schemas.pipeline import Pipeline
from schemas.run import ENTITY_ID, FEATURES, PREDICTIONS, PROFILE_FILE, RunManifest
from validation.measures import Measures, Wanted, measure_pair, merge_measures, nothing_measured

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def private_columns(pipeline: Pipeline) -> frozenset[str]:
    """Columns whose values name an entity: no profile and no report shows them."""
    return frozenset({ENTITY_ID, *pipeline.entity.key} - set(pipeline.features.columns))


def measure_run(folder: Path, manifest: RunManifest, pipeline: Pipeline, spark: GetSpark) -> Measures:
    """The profile of predictions, features and slices, from one reading of each staged file, a file a Spark task.

    Raises:
        InputError: files differ in rows or order, or a group-by has too many groups.
    """
    wanted = Wanted(
        output=manifest.outputs[0].name,
        private=private_columns(pipeline),
        slices=pipeline.checks.slices,
        buckets=manifest.buckets,
        files=file_count(manifest.counts.scored),
    )
    known = {Path(file.path).name: folder / file.path for file in manifest.files_in(FEATURES)}
    pairs = []
    for file in manifest.files_in(PREDICTIONS):
        path = folder / file.path
        if Path(file.path).name in known:
            pairs.append((path, known.pop(Path(file.path).name), wanted))
    if known:
        found = f"{len(known)} feature files without predictions"
        raise InputError(Problem("OUT_ORDER", manifest.run_id, found, "the same rows in both"))
    return reduce(merge_measures, _each(pairs, spark), nothing_measured())


def _each(pairs: list[Any], spark: GetSpark) -> list[Measures]:
    if len(pairs) < 2:  # not worth a job
        return [measure_pair(*pair) for pair in pairs]
    found = _in_tasks(pairs, spark())
    if errors := [one for one in found if isinstance(one, AlmanacError)]:
        raise errors[0]
    return [Measures.model_validate_json(one) for one in found if isinstance(one, str)]


def _in_tasks(pairs: list[Any], spark: "SparkSession") -> list[str | AlmanacError]:
    return spark.sparkContext.parallelize(pairs, len(pairs)).map(_attempt).collect()


def _attempt(pair: tuple[Path, Path, Wanted]) -> str | AlmanacError:
    try:
        return measure_pair(*pair).model_dump_json()
    except AlmanacError as err:
        return err  # as a value, because Spark would turn the exception into text
    finally:
        spare_modules()


def stored_measures(folder: Path) -> Measures:
    """What was measured of an earlier run.

    Raises:
        InputError: it is not there: the live release passed with it, and without a baseline there is no verdict.
    """
    try:
        return Measures.model_validate_json((folder / PROFILE_FILE).read_bytes())
    except (OSError, ValidationError) as err:
        where = str(folder / PROFILE_FILE)
        raise InputError(Problem("OUT_FORMAT", where, str(err).splitlines()[0], "the live release's profile")) from err


class Once:
    """A value that is computed when it is first asked for; each that asks for one that cannot be had sees the error."""

    def __init__(self, compute: Callable[[], Measures | None]) -> None:
        self._compute = compute
        self._error: InputError | None = None
        self.value: Measures | None = None

    def __call__(self) -> Measures | None:
        if self._error:
            raise self._error
        if self.value is None:
            try:
                self.value = self._compute()
            except InputError as err:
                self._error = err
                raise
        return self.value
