"""Limits hold when several controllers, or several alerts, ask at the same moment."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from remediator.model.decision import Reason
from remediator.model.run import RunState
from tests.builders import GPU1, GPU2, GPU3, a_playbook, a_restart, an_alert
from tests.world import World, a_world

# Each tells a long story; together they are a proof and no quick look.
pytestmark = pytest.mark.slow

THREE = (GPU1, GPU2, GPU3)


async def together(world: World) -> None:
    """Let two controllers decide at the same moment."""
    ours = world.controllers or [world.controller("one"), world.controller("two")]
    await asyncio.gather(*(one.reconciler.dispatch() for one in ours))
    await asyncio.gather(*(one.reconciler.idle() for one in ours))


@pytest.mark.parametrize(
    ("guard", "reason"),
    [
        ({"budget": {"runs": 1, "per": "10m", "scope": "global"}}, Reason.BUDGET),
        ({"budget": {"runs": 1, "per": "10m", "scope": "pool"}}, Reason.BUDGET),
        ({"blast_radius": {"at_most": 1}}, Reason.BLAST_RADIUS),
    ],
)
async def test_a_burst_of_alerts_at_two_controllers_passes_a_limit_of_one_once(
    tmp_path: Path, guard: dict[str, Any], reason: Reason
) -> None:
    with a_world(tmp_path, targets=THREE) as world:
        world.metrics.answers |= {"up": 0, "alive": 0}
        world.serve(a_restart(guards=[guard]))
        await world.fire(*(an_alert("Down", name) for name in THREE))
        await together(world)
        assert len(world.runs()) == 1
        # Who comes second for the very alert that was admitted finds it worked on.
        assert set(world.reasons()) - {Reason.BUSY} == {Reason.ADMITTED, reason}


async def test_two_controllers_open_one_run_for_one_alert(world: World) -> None:
    world.serve(a_playbook())
    await world.fire(an_alert())
    await together(world)
    assert len(world.runs()) == 1


async def test_two_controllers_let_one_trial_through_a_half_open_breaker(tmp_path: Path) -> None:
    with a_world(tmp_path, targets=THREE) as world:
        world.metrics.answers |= {"up": 0, "alive": 0}
        world.serve(a_restart(guards=[{"breaker": {"failures": 1, "reset": "30m"}}]))
        await world.fire(an_alert("Down"))
        await world.until(lambda: world.runs() and not world.runs()[0].state.is_open)
        assert world.runs()[0].state is RunState.FAILED
        world.controller("two")
        await world.fire(an_alert("Down", GPU2), an_alert("Down", GPU3))
        await world.settle(1)
        world.clock.advance(1800)
        await together(world)
        assert len(world.runs()) == 2


async def test_counters_are_the_journals_and_survive_a_restart(world: World) -> None:
    guards = [{"cooldown": "10m"}, {"budget": {"runs": 2, "per": "1h"}}]
    world.serve(a_playbook(guards=guards))
    await world.fire(an_alert())
    await world.settle(5)
    world.controllers[0].dead = True
    world.controller("two")
    await world.settle(60)
    assert world.reasons() == [Reason.ADMITTED, Reason.COOLDOWN]
    await world.settle(600)
    assert len(world.runs()) == 2
    world.controllers[1].dead = True
    world.controller("three")
    await world.settle(650)
    assert len(world.runs()) == 2
    assert world.reasons()[-1] == Reason.BUDGET


async def test_evidence_that_is_too_old_is_refused_whatever_it_says(world: World) -> None:
    world.metrics.answers |= {"up": 0}
    world.metrics.takes = world.pace.evidence_max_age.total_seconds() + 1
    world.serve(a_restart())
    await world.fire(an_alert("Down"))
    await world.settle()
    (denial,) = world.decisions()
    assert denial["reason"] == Reason.STALE_EVIDENCE
    assert denial["evidence"]["readings"][0]["query"] == "up"
