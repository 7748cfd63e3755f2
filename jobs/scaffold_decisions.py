"""What `almanac new` tells of its decisions: for a person line by line, for a program as one document."""

from collections.abc import Iterator
from typing import Any

from jobs.inspection import plain, shown
from jobs.scaffold_files import floors
from jobs.scaffold_plan import HOLDOUT_SHARE, Plan


def decisions(plan: Plan) -> dict[str, Any]:
    """What was decided and why, as a JSON document."""
    target, split = plan.target, plan.split
    classes = None if target.positive is None or target.negative is None else (target.positive, target.negative)
    return {
        "objective": target.objective,
        "positive_class": classes and plain(classes[0]),
        "negative_class": classes and plain(classes[1]),
        "target_why": target.why,
        "split": "time" if split.by else "random",
        "split_at": split.at,
        "holdout_share": None if split.by else HOLDOUT_SHARE,
        "split_why": split.why,
        "floors": floors(plan),
        "numeric_features": sum(feature.kind == "numeric" for feature in plan.features),
        "categorical_features": sum(feature.kind == "categorical" for feature in plan.features),
        "left_out": dict(plan.left_out),
        "forbidden": dict(plan.forbidden),
    }


def told(plan: Plan) -> Iterator[tuple[str, str]]:
    """The same for a person: what it is about, and what was decided."""
    decided = decisions(plan)
    yield "target", f"{shown(plan.target.column.name)}, {decided['objective']}: {plan.target.why}"
    if plan.split.by:
        yield "split", f"in time order at {plan.split.at}: {plan.split.why}"
    else:
        yield "split", f"at random, {HOLDOUT_SHARE:.0%} held out: {plan.split.why}"
    yield "features", f"{decided['numeric_features']} numeric, {decided['categorical_features']} categorical"
    yield from (("left out", f"{shown(name)}: {why}") for name, why in plan.left_out.items())
    yield from (("forbidden", f"{shown(name)}: {why}") for name, why in plan.forbidden.items())
