"""What keeps failing is begun ever less often, and wakes a person once an hour at most."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from remediator.engine.guards.listed import LONGEST_REST
from remediator.model.decision import Reason
from remediator.model.run import RunState
from remediator.store import overrides
from remediator.store.overrides import Ruling
from tests.builders import GPU1, a_playbook, a_retune, a_throttle, an_alert
from tests.world import World

# Each tells a long story; together they are a proof and no quick look.
pytestmark = pytest.mark.slow

PERSON = {"escalate_to": "person"}
CHECK = {"check": {"query": "x", "below": 1}}
NO_BREAKER = {"breaker": {"failures": 1000}}


def checking(**changed: Any) -> dict[str, Any]:
    """Return a playbook that fails before it does anything."""
    return a_playbook(**{"name": "look", "steps": [CHECK, PERSON], **changed})


async def failing(world: World, *documents: dict[str, Any]) -> None:
    world.metrics.answers |= {"x": 5, "p95": 0.5}
    world.serve(*(documents or (checking(guards=[NO_BREAKER]),)))
    await world.fire(an_alert())


@pytest.mark.parametrize("document", [checking(), a_retune({"nope": 4}, guards=[])])
async def test_what_fails_before_it_acts_is_tried_three_times_and_then_held_back(
    world: World, document: dict[str, Any]
) -> None:
    await failing(world, document)
    await world.settle(600)
    assert [run.state for run in world.runs()] == [RunState.FAILED] * 3
    assert world.reasons()[-1] == Reason.BREAKER
    assert len(world.paged()) == 2, "it needs a person, and the breaker opened"


async def test_a_target_that_cannot_be_reached_wakes_a_person_a_few_times_and_not_each_minute(
    world: World,
) -> None:
    world.detector.reachable = False
    world.pace = replace(world.pace, review=timedelta(minutes=5))
    budget = {"budget": {"runs": 6, "per": "10m", "scope": "target"}}
    await failing(world, a_throttle(guards=[{"cooldown": "5m"}, budget]))
    await world.settle(2 * 3600)
    assert len(world.paged()) <= 3


async def test_each_failure_in_a_row_doubles_the_rest_up_to_half_an_hour(world: World) -> None:
    world.pace = replace(world.pace, review=timedelta(minutes=1))
    await failing(world)
    await world.until(lambda: len(world.runs()) == 9, within=6 * 3600)
    begun = [run.opened_at for run in world.runs()]
    rests = [later - earlier for earlier, later in pairwise(begun)]
    least = [min(world.pace.hold_down * 2**n, LONGEST_REST) for n in range(8)]
    assert all(
        wanted <= rest <= wanted + 2 * world.pace.review
        for wanted, rest in zip(least, rests, strict=True)
    )


async def test_a_rest_says_how_often_it_failed_and_how_long_it_is(world: World) -> None:
    await failing(world)
    await world.until(lambda: len(world.runs()) == 2)
    await world.settle(30)
    denied = world.decisions()[-1]
    assert denied["reason"] == Reason.COOLDOWN
    assert "2 of its runs in a row failed on this target" in denied["detail"]
    assert (denied["evidence"]["failures"], denied["evidence"]["cooldown_s"]) == (2, 120)


async def test_its_own_longer_cooldown_holds_as_well(world: World) -> None:
    await failing(world, checking(guards=[{"cooldown": "10m"}, NO_BREAKER]))
    await world.settle(590)
    assert len(world.runs()) == 1


async def test_who_waives_the_cooldown_waives_the_rest_as_well(world: World) -> None:
    await failing(world)
    await world.db.write(
        overrides.add,
        scope="target",
        name=GPU1,
        decision=Ruling.WAIVE,
        guards=("cooldown",),
        reason="watching it",
        by="ann",
        until=world.clock() + timedelta(hours=1),
    )
    await world.settle(20)
    assert len(world.runs()) == 2


async def test_one_that_succeeds_ends_the_row(world: World) -> None:
    await failing(world)
    await world.until(lambda: len(world.runs()) == 4)
    world.metrics.answers["x"] = 0
    await world.until(lambda: world.runs()[-1].state is RunState.SUCCEEDED)
    world.metrics.answers["x"] = 5
    await world.until(lambda: world.runs()[-1].state is RunState.FAILED)
    await world.settle(30)
    assert world.decisions()[-1]["evidence"]["failures"] == 1


async def test_who_only_chooses_a_successor_has_not_failed(world: World) -> None:
    follows = a_playbook(name="then", on={"alerts": ['alertname="Other"']})
    await failing(world, checking(steps=[CHECK, {"escalate_to": "then"}]), follows)
    await world.settle(120)
    assert len(world.runs(playbook="look")) > 3
    assert world.paged() == []


async def test_two_episodes_of_an_alert_each_wake_a_person(world: World) -> None:
    await failing(world)
    await world.settle(60)
    await world.resolve(an_alert())
    world.clock.advance(600)
    await world.fire(an_alert())
    await world.settle(60)
    assert world.paged() == ["look on gpu-1: needs a person"] * 2
