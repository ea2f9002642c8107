"""A person's word that commits between our look at a run and what we do about it is not lost."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from remediator.engine import stopping
from remediator.model.playbook import Mode
from remediator.model.run import RunState
from remediator.model.verdict import Verdict
from remediator.store import overrides, runs
from remediator.store.database import Database, Tx
from tests.builders import GPU1, a_playbook, a_retune, a_throttle
from tests.engine.test_controls import COOL, DOWN, ON_DOWN, SLOW, held, pin, throttling
from tests.journals import Interrupted
from tests.world import World

# Each tells a long story; together they are a proof and no quick look.
pytestmark = pytest.mark.slow

PROOF = {"query": "p95", "below": 0.25, "within": "2m", "for": "30s", "window": "0s"}


def interrupted(world: World, before: str, then: Callable[[Tx], object]) -> None:
    """Let somebody else's word commit just before the next body of this name."""
    db = Interrupted(world.url, clock=world.clock)
    world.controllers.clear()
    world.controller("one", db=db)
    db.before, db.then = before, lambda: Database.transact(db, then)


def kills(tx: Tx) -> object:
    return stopping.kill(tx, by="ann", reason="enough")


def stops(tx: Tx) -> object:
    return stopping.stop_scope(tx, scope="target", name=GPU1, by="ann", reason="enough")


def cancels(tx: Tx) -> object:
    return runs.ask_to_stop(tx, 1, reason="cancelled by ann: enough", insists=True)


def pins(tx: Tx) -> object:
    return overrides.pin(
        tx, target=GPU1, knob="max_concurrency", reason="mine", by="ann", until=None
    )


@pytest.mark.parametrize("word", [kills, stops, cancels])
async def test_a_word_that_comes_as_the_run_fails_takes_it_back_and_nobody_takes_over(
    world: World, word: Callable[[Tx], object]
) -> None:
    interrupted(world, "fail", word)
    second = a_retune({"batch_size": 4}, name="second", on=ON_DOWN)
    steps = [
        {"retune": {"set": {"max_concurrency": 4}}, "verify": PROOF},
        {"escalate_to": "second"},
    ]
    world.serve(a_playbook(name="first", guards=COOL, steps=steps), second)
    world.metrics.answers["p95"] = 0.5
    await world.fire(SLOW)
    run = await world.ended()
    assert run.state is RunState.ROLLED_BACK
    assert run.reason.endswith("by ann: enough")
    assert world.detector.value() == 10
    assert world.changes(still_held=True) == []


async def test_a_cancel_that_comes_as_a_rollback_ends_keeps_the_next_playbook_out(
    world: World,
) -> None:
    interrupted(world, "end_rollback", cancels)
    failing = {"undo": True, "escalate_to": "second"}
    second = a_retune({"batch_size": 4}, name="second", on=ON_DOWN)
    world.serve(a_retune({"max_concurrency": 4}, guards=COOL, on_failure=failing), second)
    world.metrics.answers["p95"] = 0.5
    await world.fire(SLOW)
    await world.ended()
    await world.settle(60)
    assert [run.playbook for run in world.runs()] == ["retune"]


async def test_a_kill_that_comes_as_a_paused_run_ends_takes_it_back(world: World) -> None:
    await throttling(world)
    await world.pause()
    interrupted(world, "stop", kills)
    assert (await world.ended()).state is RunState.ROLLED_BACK
    assert world.detector.value() == 10


async def test_a_kill_that_comes_as_a_restore_gives_way_still_gives_everything_back(
    world: World,
) -> None:
    await held(world)
    await world.resolve(SLOW)
    world.metrics.answers["p95"] = 0.1
    await world.until(lambda: world.detector.value() == 6)
    interrupted(world, "fail", kills)
    await world.fire(SLOW)
    await world.settle(60)
    assert world.detector.value() == 10
    assert world.change()["state"] == "restored"


@pytest.mark.parametrize("word", [kills, stops])
async def test_a_call_in_flight_on_a_taken_over_knob_goes_back_to_the_base(
    world: World, word: Callable[[Tx], object]
) -> None:
    await held(world)
    interrupted(world, "_confirm", word)
    world.serve(a_throttle(name="second", on=ON_DOWN, priority=30, guards=COOL))
    world.metrics.answers["p95"] = 0.5
    await world.fire(DOWN)
    await world.settle(60)
    assert world.detector.value() == 10
    assert world.changes(still_held=True) == []


# -- a pin against everything that moves -----------------------------------------------------------


async def test_a_cancel_does_not_move_a_pinned_knob_back(world: World) -> None:
    await throttling(world)
    await pin(world)
    await world.cancel(world.run())
    assert (await world.ended()).state is RunState.CANCELLED
    assert world.detector.value() == 5
    assert len(world.detector.sent) == 1


async def test_what_made_it_worse_and_is_pinned_since_is_a_persons(world: World) -> None:
    world.serve(a_retune({"max_concurrency": 4}, guards=COOL))
    world.metrics.answers["p95"] = 0.3
    await world.fire(SLOW)
    await world.settle(1)
    await pin(world)
    world.metrics.answers["p95"] = 3.0
    run = await world.ended()
    assert (run.state, run.verdict) == (RunState.FAILED, Verdict.WORSE)
    assert world.detector.value() == 4
    assert world.paged() == ["retune on gpu-1: needs a person"]


async def test_a_rollback_leaves_what_is_pinned_and_takes_the_rest_back(world: World) -> None:
    world.serve(a_retune({"max_concurrency": 4, "batch_size": 4}, guards=COOL))
    world.metrics.answers["p95"] = 0.5
    await world.fire(SLOW)
    await world.settle(1)
    interrupted(world, "begin", pins)
    await world.cancel(world.run())
    run = await world.ended()
    assert run.state is RunState.ROLLED_BACK
    assert (world.detector.value(), world.detector.value("batch_size")) == (4, 8)


async def test_a_pin_while_a_call_is_in_flight_leaves_no_change_to_look_after(
    world: World,
) -> None:
    interrupted(world, "_confirm", pins)
    world.serve(a_throttle(guards=COOL))
    world.metrics.answers["p95"] = 0.5
    await world.fire(SLOW)
    await world.ended()
    await world.resolve(SLOW)
    await world.settle(1200)
    assert world.change()["state"] == "yielded"
    assert len(world.detector.sent) == 1


async def test_a_pin_while_a_step_back_is_in_flight_ends_the_restore(world: World) -> None:
    await held(world)
    await world.resolve(SLOW)
    world.metrics.answers["p95"] = 0.1
    interrupted(world, "_confirm", pins)
    await world.until(lambda: world.detector.value() == 6)
    await world.settle(600)
    assert world.detector.value() == 6
    assert world.change()["state"] == "yielded"
    assert world.changes(still_held=True) == []


# -- a mode cap in mid-run -------------------------------------------------------------------------


async def test_only_to_observe_binds_a_run_that_acts_already(world: World) -> None:
    await throttling(world)
    await world.db.write(
        overrides.cap_mode,
        scope="target",
        name=GPU1,
        mode=Mode.OBSERVE,
        by="ann",
        reason="enough",
        until=None,
    )
    await world.until(lambda: not world.runs()[0].state.is_open)
    run = world.runs()[0]
    assert run.reason == "override: ann allows target gpu-1 no more than observe: enough"
    assert len(world.detector.applied("set")) == 1
    assert world.change()["state"] == "held"
