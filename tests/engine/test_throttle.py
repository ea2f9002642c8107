"""Throttle: down by the measured ratio, on fresh measurements only, never on no data."""

from __future__ import annotations

import math

import pytest

from remediator.model.playbook import Mode
from remediator.model.run import RunState
from remediator.model.verdict import ReadingStatus, Verdict
from tests.builders import a_throttle, an_alert
from tests.fakes import NOON, Outcome, Refuse
from tests.world import World

WITH_THROUGHPUT = {"throughput": "useful"}
COOL = [{"cooldown": "1h"}]


async def begin(world: World, document: dict[str, object] | None = None) -> None:
    world.serve(document or a_throttle(guards=COOL))
    await world.fire(an_alert())


def loaded(world: World, share: float = 0.04) -> None:
    """Let p95 follow the ceiling, as a queue in front of a device does."""
    world.metrics.answers["p95"] = lambda _now: share * world.detector.value()


def ceilings(world: World) -> list[object]:
    sent = [s for s in world.detector.applied("set") if s.key.startswith("run-")]
    return [s.args["values"]["max_concurrency"] for s in sent]


async def test_ten_at_one_point_six_times_the_objective_becomes_six_and_is_proved(
    world: World,
) -> None:
    loaded(world)
    await begin(world)
    await world.settle(180)
    assert ceilings(world) == [6]
    run = world.run()
    assert (run.state, run.verdict) == (RunState.SUCCEEDED, Verdict.IMPROVED)
    assert "10 -> 6" in world.steps()[0].why
    assert world.change()["value"] == 6
    assert world.change()["base"] == 10


async def test_it_steps_again_until_the_objective_is_met(world: World) -> None:
    loaded(world, 0.1)
    await begin(world)
    await world.ended()
    assert ceilings(world) == [5, 2]
    assert world.run().verdict is Verdict.IMPROVED


async def test_a_call_carries_a_lease_an_owner_a_reason_and_the_pace_of_the_way_back(
    world: World,
) -> None:
    loaded(world)
    await begin(world, a_throttle(guards=COOL, on_resolve={"restore": {"every": "30s", "step": 2}}))
    await world.settle(1)
    (sent,) = world.detector.applied("set")
    assert sent.args["lease_s"] == 900
    assert (sent.args["revert_step"], sent.args["revert_every_s"]) == (2, 30)
    assert sent.args["owner"] == "remediator"
    assert "10 -> 6" in sent.args["reason"]
    assert sent.key.startswith(f"run-{world.run().id}-")
    assert sent.key.endswith("/forward/0/0/set")
    assert sent.token == world.run().fencing_token


@pytest.mark.slow
async def test_each_iteration_has_a_key_of_its_own(world: World) -> None:
    loaded(world, 0.1)
    await begin(world)
    await world.ended()
    assert len({s.key for s in world.detector.applied("set")}) == 2


async def test_inside_the_objective_there_is_nothing_to_do(world: World) -> None:
    world.metrics.answers["p95"] = 0.2
    await begin(world, a_throttle(guards=[]))
    await world.settle()
    run = world.runs()[0]
    assert (run.state, run.verdict) == (RunState.SUCCEEDED, Verdict.UNCHANGED)
    assert "nothing to do" in run.reason
    assert world.detector.sent == []


async def test_nothing_is_judged_before_a_whole_window_lies_after_the_action(
    world: World,
) -> None:
    loaded(world)
    await begin(world)
    await world.settle(59)
    assert world.metrics.asked.count("p95") == 1  # the first look, and none since
    assert world.run().state.is_open


async def test_no_second_step_before_two_fresh_measurements(world: World) -> None:
    world.metrics.answers["p95"] = 0.5
    await begin(world)
    await world.settle(74)
    assert ceilings(world) == [5]
    await world.settle(2)
    assert ceilings(world) == [5, 2]


async def test_two_steps_are_never_closer_than_the_hold_down(world: World) -> None:
    world.metrics.answers["p95"] = 0.5
    await begin(world, a_throttle(guards=COOL, knobs={"window": "0s"}))
    await world.settle(59)
    assert ceilings(world) == [5]
    await world.settle(17)
    assert ceilings(world) == [5, 2]


@pytest.mark.slow
async def test_within_the_dead_band_it_goes_on_only_while_that_helps(world: World) -> None:
    world.metrics.answers["p95"] = lambda _now: 0.4 if world.detector.value() == 10 else 0.26
    await begin(world)
    run = await world.ended()
    assert ceilings(world) == [6, 5]
    assert run.verdict is Verdict.UNCHANGED
    assert len(world.paged()) == 1


async def test_bad_twice_at_the_floor_it_gives_up_and_tells_a_person(world: World) -> None:
    world.metrics.answers["p95"] = lambda _now: 0.3 + 0.04 * world.detector.value()
    await begin(world)
    await world.ended()
    assert ceilings(world) == [5, 2, 1]
    run = world.run()
    assert (run.state, run.verdict) == (RunState.FAILED, Verdict.UNCHANGED)
    assert "at its floor 1" in run.reason
    assert world.paged() == ["throttle on gpu-1: needs a person"]
    assert world.change()["state"] == "held"


async def test_at_the_floor_from_the_start_nothing_is_sent(world: World) -> None:
    world.detector.base["max_concurrency"] = 1
    world.metrics.answers["p95"] = 0.5
    await begin(world)
    await world.ended()
    assert world.detector.sent == []
    assert "at its floor" in world.run().reason


async def test_one_bad_pair_among_good_ones_at_the_floor_is_not_twice(world: World) -> None:
    world.detector.base["max_concurrency"] = 2
    world.metrics.answers["p95"] = lambda now: 0.2 if 10 < (now - NOON).seconds < 40 else 0.5
    proof = {"query": "p95", "below": 0.25, "within": "5m", "for": "60s", "window": "0s"}
    await begin(world, a_throttle(guards=COOL, knobs={"window": "0s"}, step={"verify": proof}))
    await world.settle(76)
    assert ceilings(world) == [1]
    assert world.run().state.is_open, world.run().reason
    await world.settle(16)
    assert "at its floor" in world.run().reason


@pytest.mark.slow
@pytest.mark.parametrize("blind", [None, math.nan, ReadingStatus.ERROR])
async def test_no_data_after_the_step_never_moves_the_ceiling(
    world: World, blind: float | ReadingStatus | None
) -> None:
    loaded(world)
    await begin(world)
    await world.settle(10)
    world.metrics.answers["p95"] = blind
    await world.ended()
    assert ceilings(world) == [6]
    assert world.run().verdict is Verdict.UNKNOWN
    assert world.detector.value() == 6
    assert world.change()["state"] == "held"
    assert len(world.paged()) == 1


async def test_no_data_from_the_start_does_nothing_and_tells_a_person(world: World) -> None:
    await begin(world)
    world.metrics.answers["p95"] = None
    await world.ended()
    assert world.detector.sent == []
    assert world.run().verdict is Verdict.UNKNOWN


async def test_a_gap_breaks_the_streak_of_good_measurements(world: World) -> None:
    loaded(world)
    await begin(world)
    await world.settle(76)
    world.metrics.down = True
    await world.settle(16)
    world.metrics.down = False
    await world.settle(20)
    assert world.run().state.is_open
    await world.settle(25)
    assert world.run().verdict is Verdict.IMPROVED


async def test_a_pinned_knob_is_left_to_the_person_who_pinned_it(world: World) -> None:
    loaded(world)
    world.detector.pin("max_concurrency", "ann")
    await begin(world)
    await world.settle(1)
    assert world.detector.sent == []
    assert "pinned by ann" in world.run().reason
    assert world.run().state is RunState.FAILED


@pytest.mark.slow
async def test_a_pin_set_between_two_steps_is_not_fought(world: World) -> None:
    world.metrics.answers["p95"] = 0.5
    await begin(world)
    await world.settle(10)
    world.detector.pin("max_concurrency", "ann", 8)
    await world.ended()
    assert ceilings(world) == [5]
    assert world.detector.value() == 8
    await world.settle(600)
    assert world.change()["state"] == "yielded"
    assert world.detector.value() == 8


async def test_a_knob_that_somebody_else_leases_is_left_alone(world: World) -> None:
    loaded(world)
    world.detector.script("set", Refuse("leased"))
    await begin(world)
    await world.settle(1)
    assert world.run().state is RunState.FAILED
    assert world.changes() == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda d: d.effective.update(max_concurrency=False), "no effect on the loaded model"),
        (lambda d: d.base.pop("max_concurrency"), "has no tunable"),
        (lambda d: setattr(d, "reachable", False), "cannot be read"),
    ],
)
async def test_a_knob_that_cannot_help_fails_with_the_reason(
    world: World, spoil: object, said: str
) -> None:
    world.metrics.answers["p95"] = 0.5
    spoil(world.detector)  # type: ignore[operator]
    await begin(world)
    await world.ended()
    assert said in world.run().reason
    assert world.detector.applied() == []


async def test_a_document_that_moved_is_read_again_and_the_call_repeated(world: World) -> None:
    loaded(world)
    world.detector.script("set", Refuse("generation"))
    await begin(world)
    await world.settle(5)
    assert world.calls() == [("set", "not_sent"), ("set", "ok")]
    assert ceilings(world) == [6]


async def test_a_token_that_is_too_old_is_replaced_by_claiming_again(world: World) -> None:
    loaded(world)
    world.detector.script("set", Refuse("fencing"))
    await begin(world)
    await world.settle(5)
    assert world.calls() == [("set", "not_sent"), ("set", "ok")]
    first, second = world.detector.tried("set")
    assert second.token > first.token


@pytest.mark.slow
async def test_the_next_step_starts_from_what_the_target_really_has(world: World) -> None:
    world.metrics.answers["p95"] = 0.5
    await begin(world)
    await world.settle(10)
    world.detector.leases["max_concurrency"].value = 4  # it drifted from the 5 that we set
    await world.settle(70)
    assert ceilings(world) == [5, 2]
    assert "4 -> 2" in world.steps()[-1].why


async def test_worse_in_signal_and_throughput_goes_back_in_one_call_and_wakes_a_person(
    world: World,
) -> None:
    world.metrics.answers["p95"] = lambda _now: 0.4 + 0.2 * (10 - world.detector.value())
    world.metrics.answers["useful"] = lambda _now: world.detector.value()
    await begin(world, a_throttle(guards=COOL, knobs=WITH_THROUGHPUT))
    await world.ended()
    run = world.run()
    assert (run.state, run.verdict) == (RunState.ROLLED_BACK, Verdict.WORSE)
    assert ceilings(world) == [6]
    assert len(world.detector.applied("release")) == 1
    assert world.detector.value() == 10
    assert world.change()["state"] == "rolled_back"
    assert world.paged() == ["throttle on gpu-1: needs a person"]


async def test_after_several_steps_the_way_back_is_still_one_call_to_the_value_before(
    world: World,
) -> None:
    # The first step helps a little, the second makes it worse than it was.
    p95 = {10: 0.5, 5: 0.45, 2: 0.9}
    world.metrics.answers["p95"] = lambda _now: p95[int(world.detector.value())]
    world.metrics.answers["useful"] = lambda _now: world.detector.value()
    await begin(world, a_throttle(guards=COOL, knobs=WITH_THROUGHPUT))
    await world.ended()
    assert ceilings(world) == [5, 2]
    assert world.run().state is RunState.ROLLED_BACK
    assert world.detector.value() == 10
    assert len(world.detector.tried("release")) == 1
    assert all(row.undone for row in world.steps() if row.phase == "forward")


@pytest.mark.slow
async def test_what_an_earlier_run_holds_is_what_it_goes_back_to(world: World) -> None:
    loaded(world)
    world.serve(a_throttle())
    await world.fire(an_alert())
    await world.settle(150)
    assert world.detector.value() == 6
    world.metrics.answers["p95"] = lambda _now: 0.4 + 0.2 * (6 - world.detector.value())
    world.metrics.answers["useful"] = lambda _now: world.detector.value()
    world.serve(a_throttle(name="second", priority=30, guards=COOL, knobs=WITH_THROUGHPUT))
    await world.until(lambda: len(world.runs()) == 2 and not world.runs()[1].state.is_open)
    assert world.runs()[1].state is RunState.ROLLED_BACK
    assert world.detector.value() == 6
    change = world.change()
    assert (change["value"], change["base"], change["closed_at"]) == (6, 10, None)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("throughput", "wanted"), [(None, [6, 3]), (math.nan, [6, 3]), (99.0, [6, 3, 1])]
)
async def test_worse_latency_alone_never_loosens(
    world: World, throughput: float | None, wanted: list[int]
) -> None:
    world.metrics.answers["p95"] = lambda _now: 0.4 + 0.2 * (10 - world.detector.value())
    world.metrics.answers["useful"] = lambda _now: (
        1.0 if world.detector.value() == 10 else throughput
    )
    await begin(world, a_throttle(guards=COOL, knobs=WITH_THROUGHPUT))
    await world.ended()
    assert ceilings(world) == wanted
    assert world.detector.value() == wanted[-1]
    assert world.paged() == ["throttle on gpu-1: needs a person"]


async def test_the_change_is_on_record_exactly_when_the_effect_is_confirmed(world: World) -> None:
    loaded(world)
    world.detector.script("set", Outcome.TEMPORARY, Outcome.OK)
    await begin(world)
    await world.tick()
    assert world.calls() == [("set", "not_sent")]
    assert world.changes() == []
    await world.settle(5)
    assert world.calls() == [("set", "not_sent"), ("set", "ok")]
    assert world.change()["value"] == world.detector.value() == 6


@pytest.mark.parametrize("lost", [Outcome.UNKNOWN_APPLIED, Outcome.UNKNOWN_LOST])
async def test_a_set_that_nobody_can_say_of_is_sent_again_with_the_same_key_and_value(
    world: World, lost: Outcome
) -> None:
    loaded(world)
    world.detector.script("set", lost)
    await begin(world)
    await world.settle(5)
    first, second = world.detector.tried("set")
    assert first.key == second.key
    assert first.args["values"] == second.args["values"] == {"max_concurrency": 6}
    assert len(world.detector.applied("set")) == 1
    assert (world.change()["base"], world.change()["value"]) == (10, 6)


@pytest.mark.slow
async def test_the_wait_that_a_target_asks_for_is_kept(world: World) -> None:
    loaded(world)
    world.detector.retry_after = 20
    world.detector.script("set", Outcome.TEMPORARY)
    await begin(world)
    await world.settle(19)
    assert len(world.detector.tried("set")) == 1
    await world.settle(5)
    assert ceilings(world) == [6]


async def test_a_run_that_comes_back_after_an_hour_measures_again_before_it_acts(
    world: World,
) -> None:
    loaded(world)
    await begin(world)
    await _die_before(world, "begin")
    world.clock.advance(3600)
    world.metrics.answers["p95"] = 0.2
    world.controller("two")
    await world.settle(5)
    assert world.detector.sent == []
    assert "nothing to do" in world.run().reason


async def test_a_run_that_comes_back_between_two_steps_measures_again_before_the_next(
    world: World,
) -> None:
    world.metrics.answers["p95"] = 0.5
    await begin(world)
    await _die_before(world, "begin", times=2)
    world.clock.advance(3600)
    world.metrics.answers["p95"] = 0.2
    world.controller("two")
    await world.ended()
    assert ceilings(world) == [5]


async def _die_before(world: World, body: str, *, times: int = 1) -> None:
    one = world.dying("one", before=body, times=times)
    await world.until(lambda: one.dead, within=600)
    world.controllers.remove(one)
    one.db.close()


async def test_an_observed_throttle_sends_nothing_and_claims_no_success(world: World) -> None:
    world.metrics.answers["p95"] = 0.5
    await begin(world, a_throttle(guards=COOL, mode=Mode.OBSERVE))
    await world.settle(10)
    assert world.calls() == [("set", "ok")]
    world.metrics.answers["p95"] = 0.2
    await world.ended()
    assert world.detector.sent == []
    assert world.changes() == []
    assert world.run().verdict is Verdict.UNCHANGED
    assert "natural recovery" in world.run().reason
