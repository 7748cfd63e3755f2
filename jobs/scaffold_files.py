"""The text of a new pipeline's three files, with a comment on every line that was decided from data."""

import math
from collections.abc import Iterable, Iterator

import numpy as np

from jobs.inspection import shown
from jobs.scaffold_plan import HOLDOUT_SHARE, Plan, PlannedFeature, column_sql, widened
from schemas.publication import Publish
from schemas.yamlfile import MAX_BYTES

MAX_VALUES_LISTED = 50
_SLICE_VALUES = range(2, 11)
# Rows from which on trees of this size are grown: leaves, rows in a leaf.
_TREES = ((100_000, 63, 100), (10_000, 31, 50), (1_000, 15, 20), (0, 7, 5))
_NULL_MARGIN = 0.05


def yaml_text(text: str) -> str:
    r"""The text as a double-quoted YAML scalar, whatever is in it.

    >>> print(yaml_text('no "quotes"\n'))
    "no \"quotes\"\x0a"
    """
    return '"' + "".join(_escaped(character) for character in text) + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 1 << 8 else f"\\u{code:04x}" if code < 1 << 16 else f"\\U{code:08x}"


def features_sql(plan: Plan) -> str:
    """The text of features.sql."""
    header = [
        f"-- The features of {plan.name}: one row for each {', '.join(map(shown, plan.key))}.",
        f"-- Types were read off {_extent(plan)}.",
    ]
    if plan.file.format == "csv":
        header.append("-- Every column of a CSV file is text: try_cast gives NULL where the text is no number or date.")
    selected = [(column_sql(name), f"key: {shown(name)}") for name in plan.key]
    selected += [
        (f"{feature.expression} AS {column_sql(feature.name)}", feature.why)
        for feature in plan.features
        if feature.expression
    ]
    lines = [f"  -- {_one_line(why)}\n  {sql}" for sql, why in selected]
    footer = [f"--   {shown(name)}: {_one_line(why)}." for name, why in {**plan.left_out, **plan.forbidden}.items()]
    left_out = ["-- Left out:", *footer] if footer else []
    return "\n".join([*header, "SELECT", ",\n".join(lines), f"FROM {column_sql(plan.source)}", *left_out]) + "\n"


def pipeline_yaml(plan: Plan) -> str:
    """The text of pipeline.yaml."""
    sections = [_head(plan), _sources(plan), _features(plan), _training(plan), _checks(plan)]
    return "\n\n".join("\n".join(section) for section in sections) + "\n"


def _head(plan: Plan) -> Iterator[str]:
    target, keys = plan.target.column.name, ", ".join(plan.key)
    yield f"# Read off {_extent(plan)}. Change what you know better, then: almanac validate"
    yield f"pipeline: {yaml_text(plan.name)}"
    yield f"description: {yaml_text(f'Predicts {target} for each {keys}.')}"
    yield 'owner: "change-me" # who answers for it: a team, a mailbox'
    yield 'schedule: null # runs by hand only; "@daily" where the file is replaced every night'
    yield f"start: {plan.today.isoformat()} # the first logical date: the day this was written"
    yield ""
    yield "entity:"
    yield f"  source: {yaml_text(plan.source)}"
    repeated = f"; {plan.repeated:,} rows only repeat another one and are kept once" if plan.repeated else ""
    yield f"  # none is missing, and no two different rows have the same{repeated}"
    yield f"  key: [{_listed(plan.key)}]"


def _sources(plan: Plan) -> Iterator[str]:
    yield "sources:"
    yield f"  {yaml_text(plan.source)}:"
    yield f"    path: {yaml_text(plan.source_path)}"
    yield f"    format: {plan.file.format}"
    if plan.file.format == "csv":
        yield f"    delimiter: {yaml_text(plan.file.delimiter)} # gives every row as many fields as the first line"
    yield "    # features.sql may not see what tells the target"
    yield "    forbidden:"
    for name, why in plan.forbidden.items():
        yield f"      - {yaml_text(name)} # {_one_line(why)}"


def _features(plan: Plan) -> Iterator[str]:
    yield "features:"
    yield "  # what each was decided from stands beside it in features.sql, as does what was left out"
    for kind in ("numeric", "categorical"):
        names = [feature.name for feature in plan.features if feature.kind == kind]
        yield f"  {kind}:" if names else f"  {kind}: []"
        yield from (f"    - {yaml_text(name)}" for name in names)


def _training(plan: Plan) -> Iterator[str]:
    rows, target = plan.file.rows, plan.target
    missing = int(np.isnan(target.outcome).sum())
    leaves, leaf_rows = next((leaves, leaf_rows) for least, leaves, leaf_rows in _TREES if rows >= least)
    yield "training:"
    yield f"  # {shown(target.column.name)} has {_one_line(target.why)}"
    yield f"  # {missing:,} of {rows:,} rows have no target: they are scored, not trained on"
    yield f"  label: {yaml_text(plan.label)}"
    yield f"  objective: {target.objective}"
    yield "  split:"
    if plan.split.by and plan.split.at:
        yield f"    # in time order: {_one_line(plan.split.why)}"
        yield f"    by: {yaml_text(plan.split.by)}"
        yield f"    at: {plan.split.at.isoformat()}"
    else:
        yield f"    # at random, by a hash of the entity id: {_one_line(plan.split.why)}"
        yield f"    holdout_share: {HOLDOUT_SHARE}"
    yield f"  # trees as large as {rows:,} rows can teach"
    yield "  params:"
    yield f"    num_leaves: {leaves}"
    yield f"    min_data_in_leaf: {leaf_rows}"
    yield "    learning_rate: 0.1"
    yield "  rounds: 100"
    floor = ", ".join(f"{metric}: {least}" for metric, least in floors(plan).items())
    yield "  # A model below this, what guessing reaches, is not made. Train once, then raise it to near what you saw."
    yield f"  floors: {{{floor}}}"


def floors(plan: Plan) -> dict[str, float]:
    """What guessing reaches: a metric, and the least that a model must have of it."""
    return {"auc": 0.5} if plan.target.objective == "binary" else {"r2": 0}


def _checks(plan: Plan) -> Iterator[str]:
    sizes = [(len(feature.values), feature.name) for feature in plan.features if feature.kind == "categorical"]
    fewest = min((pair for pair in sizes if pair[0] in _SLICE_VALUES), default=None)
    yield "checks:"
    yield "  expectations: expectations.yaml"
    yield "  max_quarantined: 0.05"
    yield f"  entities: {{min: {max(2, plan.file.rows // 2)}}} # half of {plan.file.rows:,} rows"
    if fewest:
        yield "  slices:"
        yield f"    columns: [{yaml_text(fewest[1])}] # the category with the fewest values, {fewest[0]}"
    yield ""
    yield "publish:"
    defaults = Publish()
    yield f"  keep: {defaults.keep}"
    yield f"  grace_seconds: {defaults.grace_seconds}"


def expectations_yaml(plan: Plan) -> str:
    """The text of expectations.yaml, kept below the size that a declaration may have."""
    head = f"# A first set in Great Expectations' terms, from {_extent(plan)}.\n"
    head += "# A critical one stops the run; a warning is reported.\n"
    predictions = "\n".join(["predictions:", *_of_predictions(plan)])
    rows = _expectation(
        "expect_table_row_count_to_be_between",
        {"min_value": str(max(1, plan.file.rows // 2))},
        f"half of {plan.file.rows:,} rows",
        "critical",
    )
    budget = MAX_BYTES * 3 // 4 - len((head + predictions + rows).encode())
    kept: list[str] = []
    for feature in plan.features:
        text = "\n".join(_of_feature(feature, "critical" if plan.file.is_whole else "warning"))
        budget -= len(text.encode()) + 1
        if budget < 0:
            kept.append(f"  # {shown(feature.name)} and the features after it have none: the file would be too large")
            break
        kept += [text] if text else []
    return head + "\n".join(["inputs:", rows, *kept, "", predictions]) + "\n"


def _of_feature(feature: PlannedFeature, severity: str) -> Iterator[str]:
    column = {"column": yaml_text(feature.name)}
    if feature.bounds:
        low, high = feature.bounds
        limits = {"min_value": repr(low), "max_value": repr(high)}
        yield _expectation("expect_column_values_to_be_between", {**column, **limits}, feature.bounds_why, "warning")
    if feature.values and len(feature.values) <= MAX_VALUES_LISTED:
        listed = {"value_set": f"[{_listed(feature.values)}]", "mostly": "0.95"}
        why = f"the {len(feature.values):,} values seen; up to 5 % may be new"
        yield _expectation("expect_column_values_to_be_in_set", {**column, **listed}, why, severity)
    if (mostly := math.floor((feature.filled - _NULL_MARGIN) * 100) / 100) > 0:
        why = f"{feature.filled:.1%} of the rows had a value"
        yield _expectation("expect_column_values_to_not_be_null", {**column, "mostly": repr(mostly)}, why, severity)


def _of_predictions(plan: Plan) -> Iterator[str]:
    column = {"column": "score"}
    yield _expectation("expect_column_values_to_not_be_null", column, "every scored entity has a score", "critical")
    known = plan.target.outcome[~np.isnan(plan.target.outcome)]
    if plan.target.objective == "binary":
        rate = float(known.mean())
        low, high = math.floor(rate / 3 * 1e4) / 1e4, math.ceil((1 - (1 - rate) / 3) * 1e4) / 1e4
        limits, why = {"min_value": "0.0", "max_value": "1.0"}, "a probability"
        mean = {"min_value": repr(low), "max_value": repr(min(1.0, high))}
        yield _expectation("expect_column_values_to_be_between", {**column, **limits}, why, "critical")
        why = f"{rate:.1%} of the rows with a target are positive; wide bounds around it"
        yield _expectation("expect_column_mean_to_be_between", {**column, **mean}, why, "warning")
    else:
        low, high = widened(float(known.min()), float(known.max()))
        limits, why = (
            {"min_value": repr(low), "max_value": repr(high)},
            "the target's range, with half its width more on each side",
        )
        yield _expectation("expect_column_values_to_be_between", {**column, **limits}, why, "critical")


def _expectation(kind: str, kwargs: dict[str, str], why: str, severity: str) -> str:
    arguments = ", ".join(f"{name}: {value}" for name, value in kwargs.items())
    return f"  # {why}\n  - type: {kind}\n    kwargs: {{{arguments}}}\n    severity: {severity}"


def _extent(plan: Plan) -> str:
    rows, total = plan.file.rows, plan.file.total
    name = shown(plan.file.path.name)
    if plan.file.is_whole:
        return f"all {rows:,} rows of {name}"
    return f"the first {rows:,} rows of {name}, which has {'more' if total is None else f'{total:,}'}"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(yaml_text, names))


def _one_line(text: str) -> str:
    """A guard, for what is not shown() already: a comment must end where its line does, in SQL not in a backslash."""
    return " ".join(text.split()).rstrip("\\")
