"""The figures of merit mean what they say."""

from __future__ import annotations

import pytest

from tests.loop.figures import restored_after, swings


@pytest.mark.parametrize(
    ("ceilings", "count"),
    [
        ([10] * 9, 0),
        ([10, 9, 10, 9, 10], 0),  # a slot to and fro is a search
        ([10, 5, 6, 7, 8, 9, 10], 1),
        ([10, 8, 5, 5], 1),  # two steps of one way down
        ([10, 5, 6, 7, 5, 6, 7, 5], 3),
        ([10, 5, 6, 5, 6, 7, 8, 7, 8], 1),
    ],
)
def test_a_swing_is_a_fall_of_two_slots_or_more(ceilings: list[int], count: int) -> None:
    assert swings(ceilings) == count


def test_restored_is_when_the_ceiling_is_back_for_good() -> None:
    assert restored_after([10, 5, 5, 6, 10, 10], over=2) == 1
    assert restored_after([10, 10], over=1) == 0
    assert restored_after([10, 5, 10, 9], over=1) is None
