"""The verification report: every check with what it saw, and the verdict they add up to."""

import datetime as dt
from collections.abc import Sequence
from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Family = Literal["coverage", "quarantine", "expectations", "drift", "slices", "parity", "entities", "inputs"]


class Verdict(StrEnum):
    PASS = "PASS"  # noqa: S105  # a verdict, not a password
    WARN = "WARN"
    FAIL = "FAIL"


class CheckResult(BaseModel):
    """One check: what was observed, what was expected, and how it ended."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    family: Family
    verdict: Verdict
    observed: str
    expected: str
    evaluated: bool = Field(True, description="False where the check could not be computed; such a check has failed.")

    @model_validator(mode="after")
    def _fails_closed(self) -> "CheckResult":
        if not self.evaluated and self.verdict is not Verdict.FAIL:
            raise ValueError(f"{self.name}: a check that was not evaluated is FAIL, not {self.verdict}")
        return self


def worst(results: Sequence[CheckResult]) -> Verdict:
    """FAIL if any check failed or there is none, else WARN if any warned, else PASS."""
    if not results or any(result.verdict is Verdict.FAIL for result in results):
        return Verdict.FAIL
    return Verdict.WARN if any(result.verdict is Verdict.WARN for result in results) else Verdict.PASS


class Report(BaseModel):
    """`report.json` of a run, written whatever the verdict.

    Attributes:
        content: The content digest of the predictions that were checked; publish loads no others.
        compared_with: The live release's run that drift and slices were measured against.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    pipeline: str
    run_id: str
    content: str
    verified_at: dt.datetime
    compared_with: str | None
    verdict: Verdict
    checks: tuple[CheckResult, ...]

    @model_validator(mode="after")
    def _agrees(self) -> "Report":
        # A verdict better than its checks, by hand or by mistake, cannot be read.
        if self.verdict is not Verdict.FAIL and worst(self.checks) not in (self.verdict, Verdict.PASS):
            raise ValueError(f"verdict {self.verdict} does not follow from the checks: {worst(self.checks)}")
        return self

    @property
    def failures(self) -> list[CheckResult]:
        return [check for check in self.checks if check.verdict is Verdict.FAIL]
