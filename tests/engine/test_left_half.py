"""What is left half-way: a call sent again too late, a person in between, a lost way back.

Each story ends with what the target really has, for that is all that a user sees of it.
"""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select, update

from remediator.engine import settle
from remediator.engine.stopping import stop_scope
from remediator.model.decision import Reason
from remediator.model.guard import Breaker
from remediator.model.run import RunState
from remediator.store.database import Tx
from remediator.store.tables import runs as runs_table
from tests.builders import a_playbook, a_restart, a_throttle, an_alert
from tests.fakes import FakeKnobs, Outcome
from tests.world import World

# Each tells a long story; together they are a proof and no quick look.
pytestmark = pytest.mark.slow

ALERT = an_alert()
COOL = [{"cooldown": "1h"}]
PROOF = {"query": "p95", "below": 0.25, "within": "2m", "for": "30s", "window": "0s"}


def playbook(step: dict[str, Any], **changed: Any) -> dict[str, Any]:
    """Return a playbook with one step that sets a knob."""
    steps = [{**step, "verify": PROOF}]
    parts = {"name": "set", "guards": COOL, "steps": steps, "on_resolve": "restore", **changed}
    return a_playbook(**parts)


def a_scale() -> dict[str, Any]:
    return playbook({"scale": {"add": 1, "max": 10}})


def by_hand(knobs: FakeKnobs, **values: float) -> None:
    """Do what a person does who sets a value and pins nothing."""
    knobs.values |= values
    knobs.generation += 1


# -- a call that is sent again ---------------------------------------------------------------------


async def busy_then(world: World, outcome: Outcome, *, replicas: int) -> None:
    """Let a first call come to nothing, and a person scale before it is sent again."""
    world.serve(a_scale())
    world.metrics.answers["p95"] = 0.5
    world.scaler.script("set", outcome)
    world.scaler.retry_after = 60
    await world.fire(ALERT)
    await world.tick()
    by_hand(world.scaler, replicas=replicas)
    await world.settle(120)


async def test_a_call_that_was_not_applied_is_planned_anew_on_what_is_there_now(
    world: World,
) -> None:
    await busy_then(world, Outcome.TEMPORARY, replicas=6)
    assert [s.args["values"]["replicas"] for s in world.scaler.tried("set")] == [3, 7]
    assert (world.change()["base"], world.change()["value"]) == (6, 7)


@pytest.mark.parametrize("lost", [Outcome.UNKNOWN_APPLIED, Outcome.UNKNOWN_LOST])
async def test_a_call_that_may_have_been_applied_is_not_sent_over_a_persons_value(
    world: World, lost: Outcome
) -> None:
    await busy_then(world, lost, replicas=6)
    assert world.scaler.values["replicas"] == 6
    assert len(world.scaler.tried("set")) == 1
    assert "replicas is 6 since 3 was sent" in world.run().reason


async def test_a_step_down_that_was_not_applied_raises_nothing(world: World) -> None:
    world.serve(a_throttle(guards=COOL))
    world.metrics.answers["p95"] = 0.5
    world.detector.script("set", Outcome.TEMPORARY)
    world.detector.retry_after = 60
    await world.fire(ALERT)
    await world.tick()
    world.detector.base["max_concurrency"] = 2
    world.detector.generation += 1
    await world.settle(61)
    assert world.detector.tried("set")[1].args["values"] == {"max_concurrency": 2}


# -- a run that helped for a moment ----------------------------------------------------------------


async def test_a_restart_after_which_the_alert_fires_on_is_not_done_for_ever(world: World) -> None:
    world.serve(a_restart(guards=[]))
    world.metrics.answers["alive"] = 1
    await world.fire(an_alert("Down"))
    await world.settle(1800)
    assert len(world.process.applied("start")) == Breaker().failures
    assert world.reasons()[-1] == Reason.BREAKER
    assert world.paged() != []


async def test_a_restart_that_helps_each_of_several_alerts_goes_on_helping(world: World) -> None:
    world.serve(a_restart(guards=[]))
    world.metrics.answers["alive"] = 1
    for _ in range(5):
        alert = an_alert("Down", starts_at=world.clock())
        await world.fire(alert)
        await world.settle(20)
        await world.resolve(alert)
        await world.settle(60)
    assert len(world.process.applied("start")) == 5


# -- a run that this version cannot read -----------------------------------------------------------


def from_another_version(world: World) -> None:
    """Leave a key in every stored plan that this version of the language does not know."""

    def body(tx: Tx) -> None:
        for row in tx.conn.execute(select(runs_table.c.id, runs_table.c.plan)).all():
            plan = {**row.plan, "renamed_since": 1}
            tx.conn.execute(update(runs_table).where(runs_table.c.id == row.id).values(plan=plan))

    world.db.transact(body)


async def test_a_run_whose_playbook_cannot_be_read_ends_and_wakes_a_person(world: World) -> None:
    world.serve(a_scale())
    world.metrics.answers["p95"] = 0.5
    await world.fire(ALERT)
    await world.settle(10)
    from_another_version(world)
    run = await world.ended()
    assert run.state is RunState.FAILED
    assert "cannot be read any more" in run.reason
    assert "set on gpu-1: needs a person" in world.paged()


async def test_what_is_half_done_is_taken_back_without_a_playbook(world: World) -> None:
    world.serve(a_restart(guards=COOL))
    world.detector.inflight = 1
    await world.fire(an_alert("Down"))
    await world.settle(3)
    assert world.detector.draining
    from_another_version(world)
    run = await world.ended()
    assert run.state is RunState.ROLLED_BACK
    assert not world.detector.draining


async def test_what_is_held_is_given_back_without_a_playbook(world: World) -> None:
    world.serve(a_scale())
    world.metrics.answers["p95"] = lambda _now: 0.2 if world.scaler.values["replicas"] > 2 else 0.5
    await world.fire(ALERT)
    await world.ended()
    from_another_version(world)
    world.metrics.answers["p95"] = 0.1
    await world.resolve(ALERT)
    await world.until(lambda: world.changes(still_held=True) == [])
    assert world.scaler.values["replicas"] == 2


async def test_a_run_that_cannot_even_be_given_up_is_closed_and_wakes_a_person(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(settle, "strand", broken)
    world.serve(a_scale())
    world.metrics.answers["p95"] = broken
    await world.fire(ALERT)
    run = await world.ended()
    assert run.state is RunState.FAILED
    assert "nothing more can be done about it" in run.reason
    assert "set on gpu-1: given up" in world.paged()


# -- a person in between ---------------------------------------------------------------------------


def a_shift(**changed: Any) -> dict[str, Any]:
    return playbook({"shift_load": {"weight": 50}}, **changed)


def helped(world: World) -> None:
    """Let whatever takes load off help."""
    weight = world.balancer.values
    world.metrics.answers["p95"] = lambda _now: 0.2 if weight["weight"] < 100 else 0.5


@pytest.mark.parametrize("stopped", [True, False])
async def test_a_restore_does_not_fight_a_person_who_took_the_target_out(
    world: World, *, stopped: bool
) -> None:
    world.serve(a_shift())
    helped(world)
    await world.fire(ALERT)
    await world.ended()
    by_hand(world.balancer, weight=0)
    await world.resolve(ALERT)
    if stopped:
        world.db.transact(stop_scope, scope="all", name="", by="ann", reason="now")
    await world.until(lambda: world.changes(still_held=True) == [])
    assert world.balancer.values["weight"] == 0
    assert world.change()["state"] == "yielded"
    assert "weight is 0, and was left at 50" in world.messages()[-1]["body"]


async def test_a_rollback_does_not_fight_a_person_who_took_the_target_out(world: World) -> None:
    world.serve(a_shift())
    world.metrics.answers["p95"] = 0.5
    await world.fire(ALERT)
    await world.settle(10)
    by_hand(world.balancer, weight=0)
    world.metrics.answers["p95"] = 5.0
    run = await world.ended()
    assert run.state is RunState.ROLLED_BACK
    assert world.balancer.values["weight"] == 0
    assert world.change()["state"] == "yielded"


async def test_a_person_who_is_faster_than_the_give_back_wins(world: World) -> None:
    world.serve(a_shift())
    helped(world)
    await world.fire(ALERT)
    await world.ended()
    world.balancer.witness = lambda call: (
        None if world.balancer.values["weight"] != 50 else by_hand(world.balancer, weight=10)
    )
    await world.resolve(ALERT)
    await world.until(lambda: world.changes(still_held=True) == [])
    assert world.balancer.values["weight"] == 10


async def test_a_step_back_that_nobody_could_say_of_is_gone_on_from(world: World) -> None:
    world.serve(a_shift())
    helped(world)
    await world.fire(ALERT)
    await world.ended()
    world.balancer.script("set", *[Outcome.UNKNOWN_APPLIED] * 10)
    await world.resolve(ALERT)
    await world.until(lambda: world.changes(still_held=True) == [], within=7200)
    assert world.balancer.values["weight"] == 100
    assert world.change()["state"] == "restored"


async def test_a_knob_that_a_person_pinned_at_the_target_is_not_released(world: World) -> None:
    world.serve(a_throttle(guards=COOL))
    world.metrics.answers["p95"] = lambda _now: 0.2 if world.detector.value() < 10 else 0.5
    await world.fire(ALERT)
    await world.ended()
    world.detector.pin("max_concurrency", value=3)
    world.db.transact(stop_scope, scope="all", name="", by="bob", reason="now")
    await world.until(lambda: world.changes(still_held=True) == [])
    assert world.detector.value() == 3
    assert world.change()["state"] == "yielded"
    assert "pinned by ann" in world.change()["reason"]


# -- a way back that gets lost ---------------------------------------------------------------------


@pytest.mark.parametrize("on_unknown", ["probe", "escalate"])
@pytest.mark.parametrize("lost", [Outcome.UNKNOWN_LOST, Outcome.UNKNOWN_APPLIED])
async def test_a_target_never_stays_stopped_because_one_answer_was_lost(
    world: World, lost: Outcome, on_unknown: str
) -> None:
    world.serve(a_restart(guards=COOL, step={"on_unknown": on_unknown}))
    world.process.script("start", Outcome.PERMANENT, lost)
    await world.fire(an_alert("Down"))
    run = await world.ended()
    assert world.process.running
    assert run.state is RunState.ROLLED_BACK


async def test_a_process_that_dies_before_its_start_leaves_nothing_stopped(world: World) -> None:
    world.serve(a_restart(guards=COOL, step={"on_unknown": "probe"}))
    world.process.script("start", Outcome.PERMANENT)
    one = world.dying("one", before="begin", times=4, after_commit=True)
    await world.fire(an_alert("Down"))
    await world.until(lambda: one.dead, within=60)
    assert world.steps()[-1].call == "undo:stop"
    world.controllers.remove(one)
    one.db.close()
    world.controller("two")
    run = await world.ended()
    assert world.process.running
    assert run.state is RunState.ROLLED_BACK
