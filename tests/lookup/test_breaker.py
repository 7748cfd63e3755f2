"""The circuit breaker, by a clock of its own."""

from lookup.breaker import Breaker
from schemas.errors import Problem, UnavailableError


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def _down() -> UnavailableError:
    return UnavailableError(Problem("STORE_DOWN", "redis", "refused"))


def _opened(clock: Clock) -> tuple[Breaker, UnavailableError]:
    breaker, last = Breaker(clock=clock), _down()
    for why in (_down(), _down(), last):
        breaker.failed(why)
    return breaker, last


def test_two_failures_are_borne_and_the_third_opens_the_circuit() -> None:
    breaker = Breaker(clock=Clock())

    told = []
    for _ in range(3):
        told.append((breaker.is_open, breaker.refusal()))
        breaker.failed(_down())

    assert told == [(False, None)] * 3
    assert breaker.is_open


def test_an_open_circuit_says_what_failed_last_without_asking() -> None:
    breaker, last = _opened(Clock())

    assert breaker.refusal() is last


def test_an_open_circuit_lets_one_request_a_second_through() -> None:
    clock = Clock()
    breaker, last = _opened(clock)

    told = []
    for seconds in (0.9, 0.2, 0.0, 0.8, 0.3, 0.0):
        clock.now += seconds
        told.append(breaker.refusal())

    assert told == [last, None, last, last, None, last]


def test_one_success_closes_the_circuit_and_failures_are_counted_anew() -> None:
    breaker, _ = _opened(Clock())

    breaker.succeeded()
    breaker.failed(_down())

    assert not breaker.is_open
    assert breaker.refusal() is None


def test_all_that_fail_of_one_write_are_one_failure() -> None:
    breaker, why = Breaker(clock=Clock()), _down()

    for _ in range(10):
        breaker.failed(why)

    assert not breaker.is_open
