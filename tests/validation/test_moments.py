import numpy as np
import pytest

from validation.moments import GroupMoments, Moments, merge, moments_of


def test_groups_of_batches_have_the_moments_of_all_their_rows() -> None:
    generator = np.random.default_rng(1)
    groups, values = generator.integers(0, 5, 10_000), generator.normal(1e6, 1, 10_000)
    found = GroupMoments()
    # Groups become known one after the other.
    for part in np.array_split(np.argsort(groups, kind="stable"), 7):
        found.add(groups[part], values[part], int(groups[part].max()) + 1)

    for group in range(5):
        mine = values[groups == group]
        assert found.of(group).rows == len(mine)
        assert found.of(group).mean == pytest.approx(mine.mean(), rel=1e-12)
        assert found.of(group).variance == pytest.approx(mine.var(), rel=1e-9)
    assert found.of(5) == Moments()


@pytest.mark.filterwarnings("error")
def test_numbers_too_large_for_a_mean_leave_it_unknown_in_their_group_alone() -> None:
    found = GroupMoments()
    found.add(np.array([0, 0, 1]), np.array([1.7e308, 1.7e308, 2.0]), 2)
    found.add(np.array([0, 1]), np.array([1.0, 4.0]), 3)

    assert [found.of(group) for group in range(3)] == [Moments(3), Moments(2, 3.0, 1.0), Moments()]


def test_a_part_without_rows_changes_nothing() -> None:
    some = moments_of(np.array([1.0, 3.0]))

    assert some == (2, 2.0, 1.0)
    assert merge(some, Moments()) == merge(Moments(), some) == some
    assert merge(some, Moments(3)) == Moments(5)
