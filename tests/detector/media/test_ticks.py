"""The film's clock: strictly rising ticks from whatever the file tells."""

from __future__ import annotations

import itertools
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from detector_service.media.ticks import Ticks

MILLI = Fraction(1, 1000)


def ticks_of(*times: int | None, unit: Fraction = MILLI, fps: int = 25) -> list[int]:
    clock = Ticks(unit, Fraction(fps))
    return [clock.tick(pts) for pts in times]


def test_times_count_from_the_first_frame() -> None:
    assert ticks_of(5000, 5040, 5100) == [0, 3600, 9000]


def test_a_missing_time_follows_by_one_usual_step() -> None:
    assert ticks_of(None, None, 80, 120) == [0, 3600, 7200, 10800]


def test_equal_and_slightly_backward_times_move_behind_the_frame_before() -> None:
    assert ticks_of(0, 40, 40, 30, 80) == [0, 3600, 3601, 3602, 7200]


def test_a_clock_that_restarts_goes_on_from_there() -> None:
    assert ticks_of(9000, 9040, 10, 50) == [0, 3600, 7200, 10800]


def test_a_long_still_picture_keeps_its_length() -> None:
    assert ticks_of(0, 600_000) == [0, 54_000_000]


def test_a_clock_finer_than_ticks_still_rises() -> None:
    assert ticks_of(0, 1, 2, unit=Fraction(1, 10**9)) == [0, 1, 2]


@given(st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), max_size=40))
def test_ticks_always_rise_from_zero(times: list[int | None]) -> None:
    found = ticks_of(*times)
    assert found[:1] in ([], [0])
    assert all(one < two for one, two in itertools.pairwise(found))


@given(st.lists(st.integers(0, 100_000), min_size=2, unique=True), st.data())
def test_going_on_after_a_regular_frame_gives_the_same_ticks(
    times: list[int], data: st.DataObject
) -> None:
    rising = sorted(times)
    whole = ticks_of(*rising)
    at = data.draw(st.integers(0, len(rising) - 2))
    clock = Ticks(MILLI, None)
    clock.tick(rising[0])
    clock.go_on(rising[at], whole[at])
    assert [clock.tick(pts) for pts in rising[at + 1 :]] == whole[at + 1 :]
