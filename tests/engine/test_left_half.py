"""What is left half-way: a call sent again too late, a person in between, a lost way back.

Each story ends with what the target really has, for that is all that a user sees of it.
"""

from __future__ import annotations

from typing import Any

import pytest

from remediator.model.decision import Reason
from remediator.model.guard import Breaker
from tests.builders import a_playbook, a_restart, a_throttle, an_alert
from tests.fakes import FakeKnobs, Outcome
from tests.world import World

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
