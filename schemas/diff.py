"""What changed from one release of a pipeline to another."""

from pydantic import BaseModel, ConfigDict, FiniteFloat


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Mover(_Record):
    """An entity whose first output moved."""

    entity_id: str
    before: FiniteFloat
    after: FiniteFloat


class SliceShift(_Record):
    """A group of a slice, before and after.

    Attributes:
        columns: What is grouped by; one column or a pair.
        values: The group's value of each; a null is `(null)`.
        rows_before: Entities in the group, by what the release before says of them.
        mean_before: Of the finite first outputs of these; None where there are none.
        added: Entities of the group now that the release before did not have.
        removed: Entities of the group then that are no more.
    """

    columns: tuple[str, ...]
    values: tuple[str, ...]
    rows_before: int
    rows_after: int
    mean_before: FiniteFloat | None
    mean_after: FiniteFloat | None
    added: int
    removed: int

    @property
    def shift(self) -> float | None:
        """Change of the mean; None where one of the two releases has none."""
        return None if self.mean_before is None or self.mean_after is None else self.mean_after - self.mean_before


class Diff(_Record):
    """Two releases, entity by entity.

    before = kept + removed; after = kept + added; kept = unchanged + changed.

    Attributes:
        output: The first output; what moved is said of it.
        tolerance: By how much an output may move and still be unchanged.
        changed: Kept entities whose first output moved by more, or is a number in only one of the releases.
        changed_outputs: The same of every output.
        model_changes: Kept entities that another model answers now.
        status_changes: Kept entities whose status (scored, carried, withheld) is another.
        not_finite: Rows of both releases without a finite first output, those that are withheld on purpose apart.
        churn: (added + removed + changed) / before; None where the release before has no entity.
        mean_before: Of the first output of the kept entities that have a finite one in both, as all that follows.
        decile_edges: Upper bounds of the first nine tenths of the scores before; empty where there are none.
        deciles: Entities by tenth before (rows) and after (columns), the edges of both being those before.
        rank_correlation: Spearman's, in [-1, 1]; None where it was not asked for, or all scores of a release are equal.
        top_decile_overlap: Share of the entities above the ninth edge before that are above that of the scores after.
        movers: Those that moved most, the largest first, ties by id.
        slices: Every group of every slice that both releases have.
        unsliced: Slice -> why it has no groups here.
    """

    output: str
    tolerance: float
    before: int
    after: int
    added: int
    removed: int
    kept: int
    unchanged: int
    changed: int
    changed_outputs: dict[str, int]
    model_changes: int
    status_changes: int
    not_finite: int
    churn: FiniteFloat | None
    mean_before: FiniteFloat | None
    mean_after: FiniteFloat | None
    decile_edges: tuple[FiniteFloat, ...]
    deciles: tuple[tuple[int, ...], ...]
    rank_correlation: FiniteFloat | None
    top_decile_overlap: FiniteFloat | None
    movers: tuple[Mover, ...] = ()
    slices: tuple[SliceShift, ...] = ()
    unsliced: dict[str, str] = {}
