"""Which worker is asked: three policies, rests that grow and end, and keys that stay where they are."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lookup.balance import FIRST_REST_SECONDS, LONGEST_REST_SECONDS, Balancer
from schemas.errors import AlmanacError, DeclarationError, InputError, Problem, RefusedError, UnavailableError

WORKERS = ("http://a", "http://b", "http://c")
_PROBLEM = Problem("API_DOWN", "worker", "gone")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def _fail(balancer: Balancer, worker: str, kind: type[AlmanacError] = UnavailableError) -> None:
    with pytest.raises(kind), balancer.asking(worker):
        raise kind(_PROBLEM)


def test_round_robin_asks_each_in_turn() -> None:
    balancer = Balancer(WORKERS, "round_robin")

    assert [balancer.order()[0] for _ in range(4)] == ["http://a", "http://b", "http://c", "http://a"]


def test_the_least_loaded_is_asked_first() -> None:
    balancer = Balancer(WORKERS, "least_loaded")

    with balancer.asking("http://a"), balancer.asking("http://a"), balancer.asking("http://b"):
        assert balancer.order() == ["http://c", "http://b", "http://a"]


def test_workers_with_as_much_to_do_are_asked_in_turn() -> None:
    balancer = Balancer(WORKERS, "least_loaded")

    assert {balancer.order()[0] for _ in WORKERS} == set(WORKERS)


def test_a_request_that_ended_is_no_load_whatever_became_of_it() -> None:
    balancer = Balancer(WORKERS[:2], "least_loaded")
    with balancer.asking("http://a"):
        pass
    with pytest.raises(InputError), balancer.asking("http://a"):
        raise InputError(_PROBLEM)

    assert [balancer.order()[0] for _ in range(2)] == ["http://a", "http://b"]


def test_a_worker_that_failed_is_asked_last_until_its_rest_is_over() -> None:
    clock = Clock()
    balancer = Balancer(WORKERS, "by_key", clock=clock)
    first, *others = balancer.order("UA:1")

    _fail(balancer, first)
    assert balancer.order("UA:1") == [*others, first]
    clock.now += FIRST_REST_SECONDS
    assert balancer.order("UA:1") == [first, *others]


def test_rests_grow_with_each_failure_and_are_bounded() -> None:
    clock = Clock()
    balancer = Balancer(WORKERS[:2], "by_key", clock=clock)
    worker, other = balancer.order("UA:1")
    rests = []
    for _ in range(2000):
        _fail(balancer, worker)
        start = clock.now
        while balancer.order("UA:1")[0] == other:
            clock.now += FIRST_REST_SECONDS
        rests.append(clock.now - start)

    assert rests[:7] == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0]
    assert max(rests) == LONGEST_REST_SECONDS


def test_a_success_ends_the_row_of_failures() -> None:
    clock = Clock()
    balancer = Balancer(WORKERS[:2], "by_key", clock=clock)
    worker, other = balancer.order("UA:1")
    for _ in range(5):
        _fail(balancer, worker)
    with balancer.asking(worker):
        pass
    assert balancer.order("UA:1") == [worker, other]

    _fail(balancer, worker)
    clock.now += FIRST_REST_SECONDS
    assert balancer.order("UA:1") == [worker, other]


def test_a_worker_that_may_be_bettered_rests_for_the_same_short_time_however_often() -> None:
    clock = Clock()
    balancer = Balancer(WORKERS[:2], "by_key", clock=clock)
    worker, other = balancer.order("UA:1")
    for _ in range(5):
        with balancer.asking(worker):
            pass
        balancer.rest(worker)

    assert balancer.order("UA:1") == [other, worker]
    assert (balancer.is_resting(worker), balancer.is_resting(other)) == (True, False)
    clock.now += FIRST_REST_SECONDS
    assert not balancer.is_resting(worker)


def test_when_all_rest_the_one_that_is_back_soonest_is_asked() -> None:
    clock = Clock()
    balancer = Balancer(WORKERS, "round_robin", clock=clock)
    for worker in ("http://c", "http://a", "http://b"):
        _fail(balancer, worker)
        clock.now += 0.1

    assert balancer.order() == ["http://c", "http://a", "http://b"]


@pytest.mark.parametrize("kind", [InputError, RefusedError])
def test_a_worker_does_not_rest_for_what_it_was_asked(kind: type[AlmanacError]) -> None:
    balancer = Balancer(WORKERS, "by_key")
    order = balancer.order("UA:1")

    _fail(balancer, order[0], kind)

    assert balancer.order("UA:1") == order


_URLS = st.lists(st.integers(0, 99).map("http://10.0.0.{}:8000".format), min_size=2, max_size=8, unique=True)


@settings(deadline=None)
@given(_URLS, st.lists(st.text(max_size=20), min_size=1, max_size=50), st.data())
def test_a_lost_worker_moves_its_own_keys_only(workers: list[str], keys: list[str], data: st.DataObject) -> None:
    lost = data.draw(st.sampled_from(workers))
    before = Balancer(workers, "by_key")
    after = Balancer([worker for worker in workers if worker != lost], "by_key")

    for key in keys:
        order = before.order(key)
        assert after.order(key) == [worker for worker in order if worker != lost]


def test_keys_are_shared_out_evenly() -> None:
    balancer = Balancer(WORKERS, "by_key")
    first = [balancer.order(f"UA:{number}")[0] for number in range(3000)]

    # The hash is fixed, so are the counts: 1000 each, give or take.
    assert all(900 < first.count(worker) < 1100 for worker in WORKERS)


@settings(deadline=None)
@given(_URLS, st.sampled_from(["least_loaded", "round_robin", "by_key"]), st.lists(st.integers(0, 7), max_size=20))
def test_every_worker_stays_in_the_order_whatever_fails(workers: list[str], policy: object, failing: list[int]) -> None:
    balancer = Balancer(workers, policy)  # type: ignore[arg-type]  # sampled from its very values
    for number in failing:
        _fail(balancer, workers[number % len(workers)])

    assert sorted(balancer.order("key")) == sorted(workers)


@pytest.mark.parametrize(
    ("workers", "policy", "found"),
    [
        ([], "round_robin", "workers: no worker"),
        (["http://a", "http://a"], "round_robin", "workers: a worker comes twice"),
        (["http://a"], "random", "policy: 'random'; expected least_loaded, round_robin, by_key"),
    ],
)
def test_what_cannot_be_balanced_is_refused(workers: list[str], policy: object, found: str) -> None:
    with pytest.raises(DeclarationError, match=rf"{found}.*CFG_CLIENT"):
        Balancer(workers, policy)  # type: ignore[arg-type]  # on purpose
