"""How the benchmarks judge a figure."""

import pytest

from benchmarks.figure import Figure, Measured

AT_MOST = Figure(name="retire_seconds", what="", bar=0.2)
RATIO = Figure(name="lookups_per_second", what="", bar=60, judged="ratio", sense="at least")


@pytest.mark.parametrize(
    ("measured", "met"),
    [
        (Measured(figure=AT_MOST, samples=[0.1, 0.2, 9]), True),
        (Measured(figure=AT_MOST, samples=[0.21]), False),
        (Measured(figure=AT_MOST, note="no Redis"), None),
        (Measured(figure=RATIO, samples=[600], peers=[9, 10, 20]), True),
        (Measured(figure=RATIO, samples=[599], peers=[10]), False),
        (Measured(figure=RATIO, samples=[600], note="no peer"), None),
        (Measured(figure=Figure(name="p50_ms", what=""), samples=[1], peers=[2]), None),
    ],
)
def test_a_bar_is_held_against_the_median_or_its_ratio_to_the_peers(measured: Measured, met: bool | None) -> None:
    assert measured.met is met
