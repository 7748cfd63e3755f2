"""What a first release must declare: nothing is there to compare it with, so its limits must stand by themselves."""

from collections.abc import Collection

from schemas.expectations import Suites
from schemas.pipeline import Pipeline
from schemas.report import CheckResult, Verdict

_LEAST_ENTITIES = 2


def check_floors(pipeline: Pipeline, suites: Suites, outputs: Collection[str]) -> CheckResult:
    """Whether a number of entities, the predictions and the model each have an absolute limit."""
    missing = []
    if pipeline.checks.entities.min < _LEAST_ENTITIES:
        missing.append("checks.entities.min")
    critical = [each for each in suites.predictions if each.severity != "warning"]
    if not any(each.kwargs.get("column") in outputs for each in critical):
        missing.append(f"a critical expectation of {' or '.join(outputs)} under predictions")
    if not pipeline.training.floors:
        missing.append("training.floors")
    return CheckResult(
        name="absolute floors of a first release",
        family="coverage",
        verdict=Verdict.FAIL if missing else Verdict.PASS,
        observed=f"not declared: {', '.join(missing)}" if missing else "entities, predictions and model have theirs",
        expected="checks.entities.min, an expectation of the output and training.floors: they need no earlier release",
    )
