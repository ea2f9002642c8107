"""What a story leaves behind: values that are still held, calls nobody can say of, other hands."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from remediator.engine.stopping import kill, stop_scope
from remediator.model.decision import Reason
from remediator.model.run import Phase, RunState
from remediator.store import overrides
from tests.builders import a_playbook, a_restart, a_retune, a_throttle, an_alert
from tests.fakes import Outcome
from tests.world import World

# Each tells a long story; together they are a proof and no quick look.
pytestmark = pytest.mark.slow

SLOW, DOWN = an_alert("Slow"), an_alert("Down")
COOL = [{"cooldown": "1h"}]
PROOF = {"query": "p95", "below": 0.25, "within": "2m", "for": "30s", "window": "0s"}


def a_shift(weight: int = 50, **changed: Any) -> dict[str, Any]:
    step = {"shift_load": {"weight": weight}, "verify": PROOF}
    parts = {"name": "shift", "guards": COOL, "steps": [step], "on_resolve": "restore"}
    return a_playbook(**{**parts, **changed})


# -- a value that is left to its lease -------------------------------------------------------------


async def lapsing(world: World) -> None:
    """Hold a value with no way back declared, and let the alert end."""
    world.serve(a_retune({"batch_size": 4}, guards=COOL, on_resolve=None))
    world.metrics.answers["p95"] = 0.2
    await world.fire(SLOW)
    await world.ended()
    await world.resolve(SLOW)
    await world.settle(1)
    assert world.detector.value("batch_size") == 4


async def test_what_is_left_to_its_lease_is_listed_for_as_long_as_the_target_has_it(
    world: World,
) -> None:
    await lapsing(world)
    (change,) = world.changes(still_held=True)
    assert (change["state"], change["reason"]) == ("lapsing", "left to its lease, as declared")
    told, sent = len(world.messages()), len(world.detector.sent)
    await world.settle(3600)
    assert world.detector.value("batch_size") == 8
    assert world.change()["state"] == "expired"
    assert (len(world.messages()), len(world.detector.sent)) == (told, sent)


async def test_what_is_left_to_its_lease_goes_back_at_once_when_it_is_stopped(world: World) -> None:
    await lapsing(world)
    stopped = world.db.transact(kill, by="ann", reason="now")
    assert stopped.changes == (world.change()["id"],)
    await world.settle(5)
    assert world.detector.value("batch_size") == 8
    assert world.change()["state"] == "restored"


async def test_what_is_left_to_its_lease_keeps_nobody_from_the_knob(world: World) -> None:
    await lapsing(world)
    world.serve(a_retune({"batch_size": 2}, name="again", guards=COOL))
    await world.fire(SLOW)
    await world.settle(5)
    change = world.change()
    assert (change["base"], change["value"], change["state"]) == (8, 2, "held")


# -- a way back that does not get through ----------------------------------------------------------


async def test_what_a_failed_rollback_leaves_is_not_held_any_longer(world: World) -> None:
    world.serve(a_throttle(guards=COOL))
    world.metrics.answers["p95"] = 0.5
    await world.fire(SLOW)
    await world.settle(20)
    world.detector.reachable = False
    world.db.transact(kill, by="ann", reason="now")
    await world.until(lambda: not world.run().state.is_open)
    assert world.run().state is RunState.ROLLBACK_FAILED
    world.detector.reachable = True
    await world.until(lambda: world.changes(still_held=True) == [], within=120)
    assert world.detector.value() == 10


async def test_a_weight_that_a_rollback_did_not_get_back_is_tried_until_it_is(world: World) -> None:
    world.serve(a_shift())
    world.metrics.answers["p95"] = 0.5
    await world.fire(SLOW)
    await world.settle(5)
    world.balancer.script("set", *[Outcome.PERMANENT] * 2)
    await world.cancel(world.run())
    await world.resolve(SLOW)
    await world.until(lambda: world.changes(still_held=True) == [], within=900)
    assert world.run().state is RunState.ROLLBACK_FAILED
    assert world.balancer.values["weight"] == 100


async def test_nobody_of_higher_priority_cuts_a_rollback_short(world: World) -> None:
    undo = {"undo": True, "notify": "tell ann"}
    world.serve(a_shift(priority=10, on_failure=undo), a_restart())
    world.metrics.answers |= {"p95": 0.5, "up": 0, "alive": 1}
    await world.fire(SLOW)
    await world.settle(5)
    world.balancer.script("set", Outcome.TEMPORARY, Outcome.TEMPORARY)
    await world.until(lambda: world.run().phase is Phase.ROLLBACK)
    await world.fire(DOWN)
    await world.until(lambda: not world.runs()[0].state.is_open)
    assert (world.runs()[0].state, world.runs()[0].stop_reason) == (RunState.ROLLED_BACK, None)
    assert world.balancer.values["weight"] == 100
    await world.settle(60)
    assert world.runs(playbook="restart") != []


async def test_what_was_stopped_goes_back_also_when_somebody_needs_the_room_first(
    world: World,
) -> None:
    world.serve(a_shift(priority=10), a_restart())
    world.metrics.answers |= {"up": 0, "alive": 1}
    world.metrics.answers["p95"] = lambda _n: 0.2 if world.balancer.values["weight"] < 100 else 0.5
    await world.fire(SLOW)
    await world.ended()
    world.balancer.script("set", Outcome.HANG)
    world.db.transact(stop_scope, scope="playbook", name="shift", by="ann", reason="I said so")
    (one,) = world.controllers
    await one.tick(wait=False)
    await a_while()
    await world.fire(DOWN)
    await one.tick(wait=False)
    await a_while()
    world.clock.advance(11)
    world.balancer.released.set()
    await one.reconciler.idle()
    await world.until(lambda: world.changes(still_held=True) == [], within=600)
    assert world.balancer.values["weight"] == 100


async def a_while() -> None:
    """Let whatever can go on without time passing go on."""
    for _ in range(200):
        await asyncio.sleep(0)


# -- a call that nobody can say of -----------------------------------------------------------------


async def sent_into_the_dark(world: World, **changed: Any) -> None:
    """Run a command that must not run twice, and never hear what became of it."""
    step = {"command": {"run": "flush"}, "undo": "none"}
    world.serve(a_playbook(name="flush", steps=[step], **changed))
    world.commands.script("run", Outcome.UNKNOWN_APPLIED)
    await world.fire(SLOW)


async def test_what_may_be_done_already_is_not_done_again_by_the_next_run_of_the_story(
    world: World,
) -> None:
    await sent_into_the_dark(world)
    await world.settle(180)
    assert len(world.commands.sent) == 1
    assert world.runs() == [world.run()]
    denied = world.decisions()[-1]
    assert denied["reason"] == Reason.UNKNOWN
    assert "run R1 did it already" in denied["detail"]
    assert denied["evidence"]["run"] == world.run().id


async def test_a_death_while_it_is_sent_and_a_stop_right_after_change_nothing_about_that(
    world: World,
) -> None:
    world.dying(before="_confirm")
    await sent_into_the_dark(world)
    world.commands.scripts.clear()
    await world.tick()
    assert len(world.commands.applied()) == 1
    world.controller("two")
    await world.cancel(world.run())
    await world.settle(180)
    assert len(world.commands.sent) == 1


async def test_a_person_who_looked_lets_it_be_done_again(world: World) -> None:
    await sent_into_the_dark(world, guards=[{"cooldown": "2m"}])
    await world.settle(180)
    assert len(world.commands.sent) == 1
    world.db.transact(
        overrides.reset_breaker, playbook="flush", target_class="detectors", by="ann", reason="no"
    )
    await world.settle(60)
    assert len(world.commands.sent) == 2


async def test_the_next_story_is_another_one(world: World) -> None:
    await sent_into_the_dark(world, guards=COOL)
    await world.settle(60)
    await world.resolve(SLOW)
    await world.settle(3600)
    await world.fire(an_alert("Slow", starts_at=world.clock.now))
    await world.settle(60)
    assert len(world.commands.sent) == 2


# -- what a rollback does not take back ------------------------------------------------------------


async def test_a_run_that_was_rolled_back_says_what_it_left_in_place(world: World) -> None:
    silence = {"silence": {"for": "30m"}}
    undo = {"endpoint": "scaler", "method": "DELETE", "path": "/up"}
    call = {"http": {"endpoint": "scaler", "path": "/up"}, "undo": undo, "verify": PROOF}
    world.serve(a_playbook(name="mend", guards=COOL, steps=[silence, call]))
    await world.fire(SLOW)
    run = await world.ended()
    assert run.state is RunState.ROLLED_BACK
    assert run.reason.endswith("; left in place: POST scaler/up")
    (page,) = [m for m in world.messages() if m["severity"] == "critical"]
    assert "left in place: POST scaler/up" in page["body"]


async def test_a_run_that_was_cancelled_says_what_nothing_takes_back(world: World) -> None:
    steps = [{"command": {"run": "flush"}, "undo": "none"}, {"wait": "10m"}]
    world.serve(a_playbook(name="flush", guards=COOL, steps=steps))
    await world.fire(SLOW)
    await world.settle(5)
    await world.cancel(world.run())
    run = await world.ended()
    assert run.state is RunState.CANCELLED
    assert run.reason == "cancelled by ann: changed my mind; left in place: run flush"


# -- a knob that a person took in between ----------------------------------------------------------


async def held_at_five(world: World) -> None:
    world.serve(a_throttle(guards=COOL))
    world.metrics.answers["p95"] = lambda _now: 0.5 if world.detector.value() > 5 else 0.2
    await world.fire(SLOW)
    await world.settle(1)
    assert world.detector.value() == 5


async def left_to_ann(world: World) -> None:
    """Assert that her value stands, that the record says so, and that we sent nothing."""
    sent = len(world.detector.sent)
    await world.settle(60)
    assert world.detector.value() == 7
    assert len(world.detector.sent) == sent
    assert (world.change()["state"], world.changes(still_held=True)) == ("yielded", [])
    told = [m["title"] for m in world.messages()]
    assert "gpu-1: max_concurrency at 5 was taken over by a person" in told
    assert "pinned by ann" in world.messages()[-1]["body"] + world.change()["reason"]
    assert not any("given back" in title for title in told)


async def test_a_stop_leaves_a_knob_to_the_person_who_pinned_it_on_the_target(
    world: World,
) -> None:
    await held_at_five(world)
    await world.ended()
    world.detector.pin("max_concurrency", "ann", 7)
    world.db.transact(stop_scope, scope="target", name="gpu-1", by="bob", reason="enough")
    await left_to_ann(world)


async def test_a_rollback_leaves_a_knob_to_the_person_who_pinned_it_on_the_target(
    world: World,
) -> None:
    await held_at_five(world)
    world.detector.pin("max_concurrency", "ann", 7)
    world.db.transact(stop_scope, scope="target", name="gpu-1", by="bob", reason="enough")
    await left_to_ann(world)
    assert world.run().state is RunState.ROLLED_BACK


async def test_what_a_person_set_under_a_pin_that_is_gone_again_is_theirs_as_well(
    world: World,
) -> None:
    await held_at_five(world)
    await world.ended()
    world.detector.pin("max_concurrency", "ann", 7)
    world.detector.pins.clear()
    world.db.transact(stop_scope, scope="target", name="gpu-1", by="bob", reason="enough")
    await world.settle(60)
    assert world.detector.value() == 7
    assert world.change()["state"] == "yielded"
