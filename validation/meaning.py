"""What a failure of each family of checks means, and why it stops a run: words of the report's page."""

from schemas.report import CheckResult, Family

_MEANING: dict[Family, tuple[str, str]] = {
    "inputs": ("An input is not what was declared", "A run reads complete, fresh sources with the declared columns."),
    "coverage": (
        "Not everybody has a sound prediction",
        "Every known entity is scored once or set aside with a reason; every prediction is a finite number.",
    ),
    "quarantine": ("Rows were set aside", "Past the declared share it is the input itself that is suspect."),
    "entities": ("The number of entities is off", "Far fewer or far more than before are usually a broken source."),
    "expectations": ("An expectation does not hold", "It is declared with the pipeline; Great Expectations judged it."),
    "drift": (
        "Predictions or features have drifted",
        "Spread unlike before, they say that the inputs changed, or that the model reads them differently.",
    ),
    "slices": ("A group has moved", "A group can move far while the whole looks unchanged."),
    "calibration": (
        "An earlier release was wrong about what came",
        "Its predictions are compared with the outcomes that are known by now, in all and in each group.",
    ),
    "churn": (
        "Too much changed since the live release",
        "More entities came, went or moved than is declared: a join, a key or a model is usually behind that.",
    ),
    "challenger": (
        "The challenger was not dealt its share",
        "Who is in which arm follows from salt and id alone: another share means that it did not.",
    ),
    "funnel": (
        "The funnel loses too much",
        "An audit of the rejected rows says how much of what the champion would find the cheap model lets through.",
    ),
    "parity": (
        "A model does not reproduce itself",
        "Before it scores anybody, it must repeat the predictions stored when it was trained.",
    ),
}
_NOT_EVALUATED = ("A check could not be computed", "What was not checked is not published.")


def meaning(check: CheckResult) -> tuple[str, str]:
    """A heading and a sentence."""
    return _MEANING[check.family] if check.evaluated else _NOT_EVALUATED
