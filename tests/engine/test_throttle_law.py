"""The arithmetic of a throttle: how far down, how far back, and when not at all."""

from __future__ import annotations

import math

import pytest

from remediator.model.throttle import in_dead_band, step_back, step_down


@pytest.mark.parametrize(
    ("limit", "measured", "wanted"),
    [
        (10, 0.40, 6),  # 1.6 times the objective
        (10, 0.26, 9),  # a ratio near one still moves by one
        (10, 10.0, 5),  # never more than halved
        (10, math.inf, 5),
        (2, 0.26, 1),
        (1, 10.0, 1),  # never below the floor
        (50, 0.40, 6),  # a ceiling above `max` counts as `max`
    ],
)
def test_a_step_down_is_a_ratio_at_least_one_and_never_below_the_floor(
    limit: int, measured: float, wanted: int
) -> None:
    assert step_down(limit, measured=measured, objective=0.25, floor=1, ceiling=10) == wanted


@pytest.mark.parametrize(
    ("value", "base", "step", "wanted"),
    [(6, 10, 1, 7), (9, 10, 1, 10), (9.5, 10, 1, 10), (40, 100, 1, 44), (8, 4, 1, 7), (4, 4, 1, 4)],
)
def test_a_step_back_goes_towards_the_base_and_never_past_it(
    value: float, base: float, step: int, wanted: float
) -> None:
    assert step_back(value, base=base, step=step) == wanted


@pytest.mark.parametrize(
    ("measured", "inside"), [(0.274, True), (0.226, True), (0.28, False), (0.22, False)]
)
def test_the_dead_band_is_a_tenth_to_both_sides(measured: float, *, inside: bool) -> None:
    assert in_dead_band(measured, 0.25) is inside
