"""The closed loop keeps its bars: the real engine, the shipped playbook, simulated detectors.

What the figures mean, and what they are over many seeds, stands in docs/closed-loop.md.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from tests.loop.figures import Figures, best_held, figures
from tests.loop.plants import CLIFF, RETRYING, SATURATED, SERIAL, SLOW_DECODE, Plant
from tests.loop.run import Scenario, Told, pace_of, tell
from tests.loop.sight import FAST, SHIPPED, SLOW, Stack
from tests.loop.stories import DAY_S, calm, daily, pulse, ramp, square, step

HELPED = (SERIAL, CLIFF, RETRYING)
GOOD_SHARE = 0.95
# Each step back over the edge costs a minute's work, and then every further one waits longer.
CLIFF_SHARE = 0.93


async def played(scenario: Scenario, folder: Path) -> tuple[Told, Figures]:
    """Play a story, and check what holds in every one of them."""
    told = await tell(scenario, folder)
    found = figures(scenario, told)
    assert 1 <= found.lowest <= found.highest <= 10, told.story
    assert found.hasty == 0, told.story
    assert found.overshoot <= 1 / 3, told.story
    return told, found


def served_well(told: Told, found: Figures) -> None:
    """Check the bars of a story in which lowering the ceiling helps."""
    assert found.share > found.alone, told.story
    assert found.swings <= 2, told.story
    assert found.last == 10, told.story
    assert told.paged == [], told.story


@pytest.mark.slow
async def test_a_step_of_trouble_is_met_and_everything_is_given_back(tmp_path: Path) -> None:
    told, found = await played(Scenario(shape=step, length=2400, seed=1), tmp_path)
    served_well(told, found)
    assert found.remedies == 1
    assert found.in_time_after is not None
    assert found.in_time_after <= 120


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stack", "seed"), [(FAST, 1), (SHIPPED, 1), (SHIPPED, 2)], ids=["15 s", "45 s", "45 s again"]
)
@pytest.mark.parametrize("plant", HELPED, ids=lambda p: p.name)
async def test_95_percent_of_what_an_oracle_serves_in_time(
    tmp_path: Path, plant: Plant, stack: Stack, seed: int
) -> None:
    told, found = await played(Scenario(plant, step, stack, seed), tmp_path)
    served_well(told, found)
    assert found.share >= (CLIFF_SHARE if plant is CLIFF else GOOD_SHARE), told.story


@pytest.mark.slow
@pytest.mark.parametrize("plant", HELPED, ids=lambda p: p.name)
async def test_a_slow_stack_is_still_better_than_nobody(tmp_path: Path, plant: Plant) -> None:
    # Two and a half minutes until the first action cost four percent of the hour: 95% is out of
    # reach, whatever the law.
    told, found = await played(Scenario(plant, step, SLOW, 1), tmp_path)
    served_well(told, found)
    assert found.share >= 0.92


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("stack", [SHIPPED, SLOW], ids=lambda s: s.name)
async def test_where_the_knob_does_nothing_it_is_tried_three_times_at_most_and_a_person_is_told(
    tmp_path: Path, stack: Stack, seed: int
) -> None:
    told, found = await played_freely(Scenario(SLOW_DECODE, step, stack, seed), tmp_path)
    assert found.remedies <= 3, told.story
    assert told.paged, told.story
    assert found.last == 10, told.story
    assert found.share >= GOOD_SHARE * found.alone, told.story


async def played_freely(scenario: Scenario, folder: Path) -> tuple[Told, Figures]:
    """Play a story in which the best limit is the ceiling, so that any try is an overshoot."""
    told = await tell(scenario, folder)
    found = figures(scenario, told)
    assert 1 <= found.lowest <= found.highest <= 10, told.story
    assert found.hasty == 0, told.story
    return told, found


@pytest.mark.slow
async def test_a_busy_device_inside_its_objective_is_left_alone_for_a_day(tmp_path: Path) -> None:
    # Denied and looked at again every minute; oftener would only take longer.
    seldom = replace(pace_of(SHIPPED), review=timedelta(minutes=1))
    day = Scenario(SATURATED, calm, utilisation=True, length=DAY_S, pace=seldom)
    told, found = await played(day, tmp_path)
    assert told.sent == []
    assert told.runs == []
    assert found.share == pytest.approx(1.0, abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("period", [45, 90], ids=["the loop's delay", "twice the loop's delay"])
async def test_trouble_that_comes_and_goes_faster_than_the_loop_makes_no_swings(
    tmp_path: Path, period: float
) -> None:
    scenario = Scenario(shape=square(period), seed=1)
    told, found = await played(scenario, tmp_path)
    served_well(told, found)
    assert found.swings == 1, told.story
    assert found.share >= GOOD_SHARE * best_held(scenario), told.story


@pytest.mark.slow
async def test_slow_waves_make_one_swing_each(tmp_path: Path) -> None:
    told, found = await played(Scenario(shape=square(600), seed=1, length=5400), tmp_path)
    assert found.share > found.alone
    assert found.swings <= 3, told.story
    assert found.last == 10, told.story


@pytest.mark.slow
async def test_a_ramp_is_followed_down(tmp_path: Path) -> None:
    told, found = await played(Scenario(shape=ramp, seed=1), tmp_path)
    served_well(told, found)
    assert found.share >= GOOD_SHARE, told.story


@pytest.mark.slow
async def test_a_pulse_costs_one_move_at_most_and_little(tmp_path: Path) -> None:
    told, found = await played(Scenario(shape=pulse, seed=1), tmp_path)
    assert found.remedies <= 1, told.story
    assert found.last == 10, told.story
    assert found.share >= GOOD_SHARE, told.story


@pytest.mark.slow
async def test_a_day_of_rising_and_falling_trouble_is_followed(tmp_path: Path) -> None:
    told, found = await played(Scenario(shape=daily, length=4 * 3600 + 1800, seed=1), tmp_path)
    served_well(told, found)
    assert found.share >= GOOD_SHARE, told.story


@pytest.mark.slow
async def test_where_the_service_limits_itself_the_slow_loop_has_nothing_to_do(
    tmp_path: Path,
) -> None:
    told, found = await played(Scenario(shape=step, limited=True, seed=1), tmp_path)
    assert told.sent == [], told.story
    assert found.share >= 0.98, told.story


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["exporter frozen", "target silent"])
async def test_without_data_nothing_moves_and_a_person_is_told(tmp_path: Path, fault: str) -> None:
    told, found = await played(Scenario(shape=step, fault=fault, seed=1), tmp_path)
    assert [one for one in told.sent if one.at > 700] == [], told.story
    assert found.last == 5, told.story
    assert told.paged, told.story


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault", ["webhooks lost", "webhooks doubled and late", "controller dies in the middle"]
)
async def test_what_is_lost_late_or_doubled_changes_no_outcome(tmp_path: Path, fault: str) -> None:
    told, found = await played(Scenario(shape=step, fault=fault, seed=1), tmp_path)
    served_well(told, found)
    assert found.remedies == 1, told.story
    assert found.share >= GOOD_SHARE, told.story


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["a person pins the knob", "another writer leases the knob"])
async def test_of_two_writers_ours_yields(tmp_path: Path, fault: str) -> None:
    told, found = await played(Scenario(shape=step, fault=fault, seed=1), tmp_path)
    assert [one for one in told.sent if one.at > 700] == [], told.story
    assert set(told.ceilings[701:]) <= {8, 9, 10}, told.story
    assert told.paged, told.story
    assert found.remedies == 1
