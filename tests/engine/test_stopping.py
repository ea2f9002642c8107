"""Pause, cancel, pre-emption, blind: a run stops at its next step and unwinds what is half-done."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from remediator.model.decision import Reason
from remediator.model.run import Phase, RunState
from remediator.model.target import Inventory
from remediator.model.verdict import Verdict
from remediator.store import controls, runs
from remediator.store.alerts import get_alert
from remediator.store.database import Database
from tests.builders import GPU1, a_playbook, a_restart, a_throttle, an_alert
from tests.fakes import Outcome
from tests.journals import Interrupted
from tests.world import World

SLOW, DOWN = an_alert("Slow"), an_alert("Down")
COOL = [{"cooldown": "1h"}]


async def throttling(world: World, **parts: Any) -> None:
    """Bring a throttle to where it waits for its first proof."""
    world.serve(a_throttle(**{"guards": COOL, **parts}))
    world.metrics.answers["p95"] = 0.5
    await world.fire(SLOW)
    await world.settle(1)
    assert world.detector.value() == 5


# -- pause -----------------------------------------------------------------------------------------


async def test_a_paused_throttle_makes_no_further_step_and_leaves_what_it_holds(
    world: World,
) -> None:
    await throttling(world)
    await world.pause()
    run = await world.ended()
    assert run.state is RunState.CANCELLED
    assert run.reason.startswith("paused: all is paused by ann")
    assert len(world.detector.applied("set")) == 1
    assert world.change()["state"] == "held"
    assert world.detector.value() == 5


async def test_a_paused_throttle_that_helped_is_still_proved(world: World) -> None:
    await throttling(world)
    await world.pause()
    world.metrics.answers["p95"] = 0.2
    run = await world.ended()
    assert run.verdict is Verdict.IMPROVED


@pytest.mark.slow
async def test_while_paused_the_alert_is_denied_and_taken_up_when_the_pause_ends(
    world: World,
) -> None:
    await throttling(world, guards=[])
    await world.pause(seconds=300)
    await world.ended()
    await world.settle(20)
    assert world.reasons() == [Reason.ADMITTED, Reason.PAUSED]
    await world.settle(300)
    assert world.reasons() == [Reason.ADMITTED, Reason.PAUSED, Reason.ADMITTED]


async def test_no_effect_is_sent_between_a_pause_and_its_end(world: World) -> None:
    await throttling(world)
    await world.pause()
    sent = len(world.detector.sent)
    await world.settle(200)
    assert len(world.detector.sent) == sent


# -- blind -----------------------------------------------------------------------------------------


async def test_a_silent_watchdog_stops_new_steps_and_a_person_is_told_once(world: World) -> None:
    world.pace = replace(world.pace, watchdog_within=timedelta(minutes=1))
    await throttling(world)
    await world.settle(200)
    assert len(world.detector.applied("set")) == 1
    assert world.run().state is RunState.CANCELLED
    assert world.run().reason.startswith("blind")
    assert world.paged() == ["blind: the Watchdog is silent"]


@pytest.mark.slow
async def test_when_the_watchdog_is_back_it_goes_on(world: World) -> None:
    world.pace = replace(world.pace, watchdog_within=timedelta(minutes=1))
    await throttling(world, guards=[])
    await world.settle(200)
    await world.fire(an_alert("Watchdog"))
    await world.settle(20)
    assert world.reasons()[-1] == Reason.ADMITTED
    assert "seeing again: the Watchdog is back" in [m["title"] for m in world.messages()]


@pytest.mark.slow
async def test_who_is_blind_keeps_its_leases(world: World) -> None:
    world.pace = replace(world.pace, watchdog_within=timedelta(minutes=1))
    await throttling(world)
    await world.settle(1500)
    assert world.detector.value() == 5


# -- cancel ----------------------------------------------------------------------------------------


async def test_a_cancel_takes_everything_back_in_one_call(world: World) -> None:
    await throttling(world)
    await world.settle(80)
    assert world.detector.value() == 2
    await world.cancel(world.run())
    await world.settle(1)
    run = world.run()
    assert run.state is RunState.ROLLED_BACK
    assert "cancelled by ann" in run.reason
    assert len(world.detector.applied("release")) == 1
    assert world.detector.value() == 10
    assert world.change()["state"] == "rolled_back"
    assert world.paged() == []


async def test_a_cancel_before_anything_was_done_just_ends_it(world: World) -> None:
    world.serve(a_throttle(guards=COOL))
    await world.fire(SLOW)
    await world.settle(1)
    await world.cancel(world.run())
    await world.settle(1)
    assert world.run().state is RunState.CANCELLED
    assert world.detector.sent == []


async def test_a_cancel_that_comes_while_the_run_goes_to_sleep_is_not_slept_over(
    world: World,
) -> None:
    db = Interrupted(world.url, clock=world.clock)
    world.controller("one", db=db)
    db.before = "park"
    db.then = lambda: Database.transact(
        db, runs.ask_to_stop, world.run().id, reason="cancelled by ann: now"
    )
    world.serve(a_throttle(guards=COOL))
    world.metrics.answers["p95"] = 0.5
    await world.fire(SLOW)
    await world.settle(2)
    assert world.run().state is RunState.ROLLED_BACK
    assert world.detector.value() == 10


async def test_a_closed_run_cannot_be_cancelled(world: World) -> None:
    await throttling(world)
    await world.cancel(world.run())
    run = await world.ended()
    assert not await world.cancel(run)
    assert world.run() == run


async def test_a_cancel_during_a_rollback_takes_back_the_rest_too(world: World) -> None:
    world.serve(
        a_playbook(
            guards=COOL,
            steps=[{**a_throttle()["steps"][0]}, {"restart": {"drain": False}}],
        )
    )
    world.metrics.answers["p95"] = lambda _now: 0.5 if world.detector.value() > 5 else 0.2
    world.process.script("start", *[Outcome.TEMPORARY] * 4)
    await world.fire(SLOW)
    await world.until(lambda: world.runs() != [] and world.run().phase is Phase.ROLLBACK)
    await world.cancel(world.run())
    run = await world.ended()
    assert run.state is RunState.ROLLED_BACK
    assert world.process.running
    assert world.detector.value() == 10


@pytest.mark.slow
async def test_a_rollback_that_fails_always_reaches_a_person(world: World) -> None:
    await throttling(world)
    world.detector.script("release", Outcome.PERMANENT)
    await world.cancel(world.run())
    run = await world.ended()
    assert run.state is RunState.ROLLBACK_FAILED
    assert world.paged() == ["throttle on gpu-1: rollback failed"]


async def test_a_release_is_tried_again_until_the_target_answers(world: World) -> None:
    await throttling(world)
    world.detector.script("release", Outcome.TEMPORARY, Outcome.UNKNOWN_APPLIED, Outcome.TEMPORARY)
    await world.cancel(world.run())
    run = await world.ended()
    assert run.state is RunState.ROLLED_BACK
    assert world.change()["state"] == "rolled_back"
    assert len(world.detector.applied("release")) == 1


# -- pre-emption -----------------------------------------------------------------------------------


def serve_both(world: World, **slow: Any) -> None:
    world.serve(a_throttle(**slow), a_restart(guards=COOL))
    world.metrics.answers["p95"] = 0.5
    world.metrics.answers["alive"] = 1


async def test_dead_pre_empts_slow_at_once_and_what_is_held_stays(world: World) -> None:
    serve_both(world, guards=COOL)
    await world.fire(SLOW)
    await world.settle(10)
    await world.fire(DOWN)
    await world.settle(3)
    slow, down = world.runs()
    assert slow.state is RunState.CANCELLED
    assert slow.reason == "preempted: restart has a higher priority"
    assert down.playbook == "restart"
    assert world.change()["state"] == "held"
    assert world.detector.value() == 5


async def test_who_was_pre_empted_does_not_come_back_before_the_one_it_made_room_for(
    world: World,
) -> None:
    serve_both(world, guards=[])  # nothing but priority keeps the throttle from coming back
    await world.fire(SLOW)
    await world.settle(10)
    await world.fire(DOWN)
    await world.settle(20)
    assert [run.playbook for run in world.runs()][:2] == ["throttle", "restart"]


@pytest.mark.slow
async def test_a_lower_priority_waits_and_is_told_whose_story_it_is(world: World) -> None:
    serve_both(world, guards=[])
    world.detector.warm_after = None
    await world.fire(DOWN)
    await world.settle(1)
    await world.fire(SLOW)
    await world.settle(1)
    assert world.reasons() == [Reason.ADMITTED, Reason.SUPERSEDED]
    await world.until(lambda: not world.runs()[0].state.is_open)
    await world.settle(20)
    assert [run.playbook for run in world.runs()] == ["restart", "throttle"]


async def test_a_pre_empted_restart_undrains_before_it_makes_room(world: World) -> None:
    world.serve(
        a_restart(guards=COOL, priority=50),
        a_playbook(name="first", priority=95, on={"alerts": ['alertname="Slow"']}, guards=COOL),
    )
    world.detector.inflight = 2
    world.metrics.answers["up"] = 0
    await world.fire(DOWN)
    await world.settle(5)
    assert world.detector.draining
    await world.fire(SLOW)
    await world.settle(5)
    assert world.detector.applied("undrain") != []
    assert [run.playbook for run in world.runs()] == ["restart", "first"]
    assert world.runs()[0].state is RunState.ROLLED_BACK


async def test_two_alerts_of_one_target_never_act_at_once(world: World) -> None:
    world.serve(a_throttle(), a_throttle(name="other", on={"alerts": ['alertname="Down"']}))
    world.metrics.answers["p95"] = 0.5
    await world.fire(SLOW, DOWN)
    await world.settle(30)
    assert world.reasons()[:2] == [Reason.ADMITTED, Reason.BUSY]
    assert world.reasons().count(Reason.ADMITTED) == 1
    assert len(world.detector.applied("set")) == 1


async def test_two_targets_are_two_stories(world: World) -> None:
    world.serve(a_throttle(guards=COOL))
    world.metrics.answers["p95"] = 0.5
    await world.fire(SLOW, an_alert("Slow", "gpu-2"))
    await world.settle(1)
    assert world.reasons() == [Reason.ADMITTED, Reason.ADMITTED]
    assert [d.value() for d in world.detectors.values()] == [5, 5]


# -- the budget of actions -------------------------------------------------------------------------


@pytest.mark.slow
async def test_no_more_than_so_many_actions_on_a_target_and_then_a_person_is_told(
    world: World,
) -> None:
    world.pace = replace(world.pace, actions=1)
    await throttling(world)
    run = await world.ended()
    assert len(world.detector.applied("set")) == 1
    assert run.reason.startswith("budget: 1 actions on gpu-1")
    assert world.paged() == ["throttle on gpu-1: needs a person"]
    assert world.change()["state"] == "held"


async def test_who_is_out_of_budget_is_not_started_again_at_once(world: World) -> None:
    world.pace = replace(world.pace, actions=1)
    await throttling(world, guards=[])
    await world.until(lambda: not world.runs()[0].state.is_open)
    before = len(world.runs())
    await world.settle(14)
    assert len(world.runs()) == before


async def test_a_target_whose_budget_is_spent_is_denied_and_a_person_is_told_once(
    world: World,
) -> None:
    world.pace = replace(world.pace, actions=1)
    await throttling(world, guards=[])
    await world.until(lambda: not world.runs()[0].state.is_open)
    await world.settle(120)
    denied = [row for row in world.decisions() if row["reason"] == "budget"]
    assert len(denied) == 1
    assert denied[0]["count"] > 1
    assert "1 actions on this target" in denied[0]["detail"]
    told = [row["key"] for row in world.messages() if row["key"].startswith("budget/")]
    assert len(told) == 1


# -- a target that is gone -------------------------------------------------------------------------


@pytest.mark.parametrize("rolling_back", [False, True])
async def test_a_run_whose_target_left_the_inventory_ends_and_a_person_is_told(
    world: World, *, rolling_back: bool
) -> None:
    await throttling(world)
    if rolling_back:
        world.detector.script("release", *[Outcome.TEMPORARY] * 9)
        await world.cancel(world.run())
        await world.settle(1)
    world.controllers[0].db.close()
    world.controllers.clear()
    world.inventory = Inventory([])
    world.controller("two")
    run = await world.ended()
    assert run.state is (RunState.ROLLBACK_FAILED if rolling_back else RunState.FAILED)
    assert f"{GPU1} left the inventory" in run.reason
    assert len(world.paged()) == 1


@pytest.mark.slow
async def test_a_resolve_in_mid_run_lets_the_run_end_and_then_gives_back(world: World) -> None:
    await throttling(world)
    await world.resolve(SLOW)
    world.metrics.answers["p95"] = 0.1
    run = await world.ended()
    assert run.verdict is Verdict.IMPROVED
    await world.until(lambda: world.changes(still_held=True) == [])
    assert world.detector.value() == 10
    alert = await world.db.read(get_alert, run.alert_id or 0)
    assert alert is not None
    assert not alert.firing


async def test_blindness_is_on_record_as_long_as_it_lasts(world: World) -> None:
    world.pace = replace(world.pace, watchdog_within=timedelta(minutes=1))
    await world.settle(1)
    world.clock.advance(100)
    await world.settle(1)
    assert await world.db.read(controls.last_sign, controls.BLIND) is not None
