"""Throttle: when it halves, when it gives up and gives back, and on what it never moves at all."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from remediator.model.run import RunState
from remediator.model.verdict import ReadingStatus, Verdict
from tests.builders import a_throttle, an_alert
from tests.engine.test_throttle import COOL, WITH_THROUGHPUT, begin, ceilings, loaded
from tests.fakes import NOON, Answer
from tests.world import World

# -- a knob that moves nothing (R9) ----------------------------------------------------------------


async def test_two_steps_that_moved_nothing_are_given_back_and_a_person_takes_over(
    world: World,
) -> None:
    world.metrics.answers["p95"] = 0.5
    world.metrics.answers["useful"] = 3.0
    await begin(world, a_throttle(guards=COOL, knobs=WITH_THROUGHPUT))
    run = await world.ended()
    assert ceilings(world) == [5, 2]
    assert (run.state, run.verdict) == (RunState.ROLLED_BACK, Verdict.UNCHANGED)
    assert run.reason.startswith("no effect")
    assert len(world.detector.applied("release")) == 1
    assert world.detector.value() == 10
    assert world.paged() == ["throttle on gpu-1: needs a person"]


@pytest.mark.slow
async def test_small_steps_that_move_nothing_stop_after_two_as_well(world: World) -> None:
    world.metrics.answers["p95"] = 0.3
    await begin(world)
    await world.ended()
    assert ceilings(world) == [8, 6]
    assert "turning it moves nothing" in world.run().reason


async def test_without_a_throughput_nobody_can_say_that_giving_back_does_no_harm(
    world: World,
) -> None:
    world.metrics.answers["p95"] = 0.5
    await begin(world)
    run = await world.ended()
    assert (run.state, run.verdict) == (RunState.FAILED, Verdict.UNCHANGED)
    assert world.detector.value() == 2
    assert len(world.paged()) == 1


async def test_useful_work_that_rises_is_an_effect_also_when_the_signal_stays(
    world: World,
) -> None:
    world.metrics.answers["p95"] = 0.5
    world.metrics.answers["useful"] = lambda _now: 20 - world.detector.value()
    await begin(world, a_throttle(guards=COOL, knobs=WITH_THROUGHPUT))
    await world.ended()
    assert ceilings(world) == [5, 2, 1]
    assert world.detector.value() == 1


@pytest.mark.slow
async def test_resting_just_above_the_objective_it_takes_one_more_step(world: World) -> None:
    p95 = {10: 0.26, 9: 0.26, 8: 0.24}
    world.metrics.answers["p95"] = lambda _now: p95[int(world.detector.value())]
    await begin(world)
    run = await world.ended()
    assert ceilings(world) == [9, 8]
    assert run.verdict is Verdict.IMPROVED


@pytest.mark.slow
async def test_swinging_about_the_objective_it_takes_one_more_step_and_no_third(
    world: World,
) -> None:
    swing = [0.26, 0.24]
    world.metrics.answers["p95"] = lambda now: (
        0.3 if world.detector.value() == 10 else swing[int((now - NOON).seconds / 15) % 2]
    )
    await begin(world)
    run = await world.ended()
    assert len(ceilings(world)) == 2
    assert run.verdict is Verdict.UNCHANGED


# -- a hard condition (R1) -------------------------------------------------------------------------

HARD = {"hard": {"query": "memory", "above": 0.9}}


@pytest.mark.slow
async def test_a_hard_condition_halves_at_once_also_inside_the_objective(world: World) -> None:
    world.metrics.answers["p95"] = 0.1
    world.metrics.answers["memory"] = lambda _now: 0.95 if world.detector.value() > 5 else 0.5
    await begin(world, a_throttle(guards=COOL, knobs=HARD))
    await world.settle(1)
    assert ceilings(world) == [5]
    assert "hard: measured 0.95 (> 0.9): max_concurrency 10 -> 5" in world.steps()[0].why
    run = await world.ended()
    assert run.verdict is Verdict.IMPROVED
    assert ceilings(world) == [5]


async def test_a_hard_condition_that_stays_halves_once_in_a_hold_down(world: World) -> None:
    world.metrics.answers["p95"] = 0.1
    world.metrics.answers["memory"] = 0.95
    await begin(world, a_throttle(guards=COOL, knobs=HARD))
    await world.settle(59)
    assert ceilings(world) == [5]
    run = await world.ended()
    assert ceilings(world) == [5, 2, 1]
    times = [s.at for s in world.detector.applied("set")]
    assert min((b - a).total_seconds() for a, b in pairwise(times)) >= 60
    assert (run.state, run.verdict) == (RunState.FAILED, Verdict.UNCHANGED)
    assert "at its floor 1" in run.reason


@pytest.mark.parametrize("lost", [None, math.nan, ReadingStatus.ERROR])
async def test_a_hard_condition_that_cannot_be_seen_any_more_is_not_over(
    world: World, lost: float | ReadingStatus | None
) -> None:
    world.metrics.answers["p95"] = 0.1
    world.metrics.answers["memory"] = 0.95
    await begin(world, a_throttle(guards=COOL, knobs=HARD))
    await world.settle(10)
    world.metrics.answers["memory"] = lost
    run = await world.ended()
    assert ceilings(world) == [5]
    assert run.verdict is Verdict.UNKNOWN


@pytest.mark.slow
async def test_a_hard_condition_that_never_had_data_is_no_obstacle(world: World) -> None:
    loaded(world)
    await begin(world, a_throttle(guards=COOL, knobs=HARD))
    run = await world.ended()
    assert ceilings(world) == [6]
    assert run.verdict is Verdict.IMPROVED


# -- old samples (R8) ------------------------------------------------------------------------------

SAMPLED = {"sampled_at": "stamp"}


async def test_a_fresh_sample_lets_it_act(world: World) -> None:
    loaded(world)
    world.metrics.answers["stamp"] = lambda now: now.timestamp() - 5
    await begin(world, a_throttle(guards=COOL, knobs=SAMPLED))
    run = await world.ended()
    assert ceilings(world) == [6]
    assert run.verdict is Verdict.IMPROVED


@pytest.mark.parametrize(
    "stamp",
    [lambda now: now.timestamp() - 31, lambda _now: None, lambda _now: math.nan],
    ids=["old", "no data", "nan"],
)
async def test_an_old_sample_moves_nothing_and_claims_nothing(world: World, stamp: Answer) -> None:
    world.metrics.answers["p95"] = 0.5
    world.metrics.answers["stamp"] = stamp
    await begin(world, a_throttle(guards=COOL, knobs=SAMPLED))
    run = await world.ended()
    assert world.detector.sent == []
    assert run.verdict is Verdict.UNKNOWN


@pytest.mark.slow
@pytest.mark.parametrize("ahead", [0, 3600])
async def test_an_exporter_that_freezes_stops_every_further_move(
    world: World, ahead: float
) -> None:
    world.metrics.answers["p95"] = 0.5
    freeze = NOON.timestamp() + 20 + ahead
    world.metrics.answers["stamp"] = lambda now: min(now.timestamp() + ahead, freeze)
    await begin(world, a_throttle(guards=COOL, knobs=SAMPLED))
    run = await world.ended()
    assert ceilings(world) == [5]
    assert run.verdict is Verdict.UNKNOWN
    assert world.detector.value() == 5


# -- after a step back (R4, R5) --------------------------------------------------------------------


@pytest.mark.slow
async def test_no_step_down_within_a_hold_down_of_a_step_back_and_then_only_that_step(
    world: World,
) -> None:
    world.metrics.answers["p95"] = lambda _now: 0.6 if world.detector.value() > 6 else 0.1
    await begin(world, a_throttle(guards=[{"cooldown": "1m"}]))
    await world.until(lambda: world.detector.value() == 5)
    await world.ended()
    await world.resolve(an_alert())
    await world.until(lambda: world.detector.value() == 7)
    stepped = world.detector.applied("set")[-1].at
    await world.fire(an_alert())
    await world.until(lambda: world.detector.value() < 7)
    assert world.detector.value() == 6
    assert 60 <= (world.clock.now - stepped).total_seconds() < 90


@pytest.mark.slow
async def test_the_undoing_of_a_step_back_is_never_called_worse(world: World) -> None:
    # Trouble that comes back fills the window while the one slot is taken away again.
    await begin(world, a_throttle(guards=[{"cooldown": "1m"}], knobs=WITH_THROUGHPUT))
    world.metrics.answers["p95"] = lambda _now: 0.6 if world.detector.value() > 6 else 0.1
    world.metrics.answers["useful"] = 3.0
    await world.until(lambda: world.detector.value() == 5)
    await world.ended()
    await world.resolve(an_alert())
    await world.until(lambda: world.detector.value() == 7)
    began = world.clock.now
    world.metrics.answers["p95"] = lambda now: min(1.0, 0.3 + (now - began).seconds / 200)
    world.metrics.answers["useful"] = lambda now: max(0.1, 3 - (now - began).seconds / 30)
    await world.fire(an_alert())
    await world.until(lambda: world.detector.value() < 6)
    assert Verdict.WORSE not in [run.verdict for run in world.runs()]


@pytest.mark.slow
async def test_replicas_that_are_throttled_together_do_not_move_together(world: World) -> None:
    world.metrics.answers["p95"] = 0.5
    world.metrics.answers["useful"] = lambda now: (now - NOON).seconds + 1.0
    knobs = {"window": "0s", **WITH_THROUGHPUT}
    proof = {"query": "p95", "below": 0.25, "within": "2m", "for": "30s", "every": "1s"}
    world.serve(a_throttle(guards=COOL, knobs=knobs, step={"verify": proof}))
    await world.fire(an_alert(), an_alert(target="gpu-2"))
    await world.settle(75)
    seconds = [
        [(s.at - NOON).total_seconds() for s in d.applied("set")] for d in world.detectors.values()
    ]
    assert [len(times) for times in seconds] == [2, 2]
    assert seconds[0][1] != seconds[1][1]
    assert all(60 <= times[1] <= 73 for times in seconds)
