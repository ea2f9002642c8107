"""What must be true to begin must still be true, and allowed, when a run acts later."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from remediator.model.playbook import Mode
from remediator.model.run import Decided, RunState
from remediator.model.target import Inventory
from tests.builders import GPU1, GPU2, INSTANCE, a_playbook, a_retune, an_alert
from tests.engine.test_guards_always import a_silence
from tests.world import World

# Each tells a long story; together they are a proof and no quick look.
pytestmark = pytest.mark.slow

OTHERS = {"healthy_others": {"at_least": 1, "healthy": "well"}}
WELL = {INSTANCE[GPU1]: 1, INSTANCE[GPU2]: 1}
LATER = [{"wait": "10m"}, {"retune": {"set": {"batch_size": 4}}}]


def later(**changed: Any) -> dict[str, Any]:
    """Return a playbook that acts ten minutes after it began."""
    return a_playbook(**{"name": "later", "steps": LATER, **changed})


async def begun(world: World, **changed: Any) -> None:
    world.metrics.vectors["well"] = dict(WELL)
    world.serve(later(**changed))
    await world.fire(an_alert())
    await world.settle(300)
    assert world.run().state is RunState.WAITING


async def test_a_run_acts_no_more_when_too_few_others_are_healthy_by_then(world: World) -> None:
    await begun(world, guards=[OTHERS])
    world.metrics.vectors["well"][INSTANCE[GPU2]] = 0
    await world.settle(400)
    assert world.detector.applied("set") == []
    assert world.runs()[0].state is RunState.CANCELLED
    assert "0 others of detectors are healthy" in world.runs()[0].reason


async def test_a_run_acts_no_more_when_a_person_has_silenced_the_alert(world: World) -> None:
    await begun(world)
    world.silences.active.append(a_silence('alertname="Slow"'))
    await world.settle(400)
    assert world.detector.applied("set") == []
    assert "silenced it until" in world.runs()[0].reason


async def test_a_run_that_has_not_acted_yet_does_not_begin_outside_its_hours(world: World) -> None:
    hours = {"only_during": {"cron": "0 12 * * *", "for": "8m"}}
    await begun(world, guards=[hours])
    await world.settle(400)
    assert world.detector.applied("set") == []
    assert "only during" in world.runs()[0].reason


async def test_what_has_begun_in_its_hours_is_finished_after_them(world: World) -> None:
    hours = {"only_during": {"cron": "0 12 * * *", "for": "8m"}}
    first = {"retune": {"set": {"max_concurrency": 4}}}
    await begun(world, guards=[hours], steps=[first, *LATER])
    await world.settle(400)
    assert world.detector.value("batch_size") == 4


async def test_what_still_is_as_it_was_goes_on(world: World) -> None:
    await begun(world, guards=[OTHERS])
    await world.settle(400)
    assert world.detector.value("batch_size") == 4


@pytest.mark.parametrize("mode", [Mode.OBSERVE, Mode.PROPOSE])
async def test_what_the_configuration_allows_binds_who_is_approved_after_it_changed(
    world: World, mode: Mode
) -> None:
    world.serve(a_retune({"batch_size": 4}, mode="propose"))
    await world.fire(an_alert())
    await world.settle(2)
    world.controllers.clear()
    caps = {"targets.gpu-1.mode": mode}
    world.inventory = Inventory(replace(one, caps=caps) for one in world.inventory)
    world.controller("two")
    assert await world.decide(world.run(), Decided.APPROVED)
    await world.settle(10)
    assert bool(world.detector.applied("set")) is mode.acts
