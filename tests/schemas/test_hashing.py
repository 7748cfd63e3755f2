import pytest

from schemas.hashing import KEPT, hash_number, without


def test_the_hash_of_a_number_never_changes() -> None:
    # It is stored with runs: of another hash, what is stored is worth nothing.
    assert [hash_number(value) for value in (0, 1, 0.5, -1.0)] == [
        3978078226723292,
        2407364430643006,
        4298444153625996,
        2987960093987809,
    ]


def test_a_number_that_is_not_there_changes_nothing() -> None:
    assert without([1, 2, 3], 0.5) == [1, 2, 3]


def test_of_few_numbers_one_is_taken_out() -> None:
    gone = hash_number(0.5)

    assert without([gone - 1, gone, gone + 1], 0.5) == [gone - 1, gone + 1]


@pytest.mark.parametrize("place", [0, 1, 300, 511])
def test_of_many_numbers_as_many_are_left_in_order_and_the_one_is_not_among_them(place: int) -> None:
    gone = hash_number(0.5)
    hashes = [gone + (other - place) * (1_000_000 if other < place else 3_000_000) for other in range(KEPT)]

    left = without(hashes, 0.5)

    assert len(left) == KEPT
    assert left == sorted(left)
    assert gone not in left
