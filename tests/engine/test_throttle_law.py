"""The arithmetic of a throttle: how far down, how far back, and when not at all."""

from __future__ import annotations

import math

import pytest

from remediator.model.throttle import (
    JITTER,
    before_step_back,
    halve,
    helped_altogether,
    idle,
    in_dead_band,
    jitter,
    step_back,
    step_down,
)


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


@pytest.mark.parametrize(("limit", "wanted"), [(10, 5), (9, 4), (2, 1), (1, 1), (50, 5)])
def test_hard_is_half_within_the_bounds(limit: int, wanted: int) -> None:
    assert halve(limit, floor=1, ceiling=10) == wanted


@pytest.mark.parametrize("step", [1, 3])
@pytest.mark.parametrize("value", [1, 6, 9, 10, 11, 40, 100])
def test_undoing_a_step_back_lands_where_it_came_from_or_just_below(value: int, step: int) -> None:
    after = int(step_back(value, base=1000, step=step))
    assert value - 1 <= before_step_back(after, step=step, floor=1) <= value


def test_undoing_a_step_back_never_goes_below_the_floor() -> None:
    assert before_step_back(3, step=5, floor=2) == 2


@pytest.mark.parametrize(
    ("levels", "nothing"),
    [
        ([], False),
        ([0.5], False),
        ([0.5, 0.5], False),  # once is not twice
        ([0.5, 0.5, 0.5], True),
        ([0.5, 0.9, 0.9], True),
        ([0.5, 0.5, 0.4], False),
        ([0.5, 0.4, 0.4], False),
        ([0.5, 0.4, 0.4, 0.4], True),
        ([0.5, 0.47, 0.5, 0.47], True),  # noise that looks like help now and then
        ([0.5, 0.45, 0.42, 0.39], False),
    ],
)
def test_two_steps_in_a_row_or_three_altogether_that_moved_nothing_are_enough(
    levels: list[float], *, nothing: bool
) -> None:
    assert idle(levels) is nothing


def test_altogether_it_helped_when_a_tenth_is_gone() -> None:
    assert helped_altogether([0.5, 0.6, 0.45])
    assert not helped_altogether([0.5, 0.4, 0.46])
    assert not helped_altogether([0.5])


def test_the_jitter_of_a_run_is_always_the_same_and_spread_over_its_share() -> None:
    found = [jitter(run, "gpu-1") for run in range(200)]
    assert found == [jitter(run, "gpu-1") for run in range(200)]
    assert 0 <= min(found) < 0.1 * JITTER
    assert 0.9 * JITTER < max(found) < JITTER
    assert jitter(1, "gpu-1") != jitter(1, "gpu-2")
