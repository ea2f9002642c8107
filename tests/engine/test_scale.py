"""Scale: an absolute number out of the document just read, within bounds, given back one by one."""

from __future__ import annotations

from typing import Any

import pytest

from remediator.model.run import RunState
from remediator.model.verdict import Verdict
from tests.builders import a_playbook, an_alert
from tests.fakes import Outcome
from tests.world import World

ALERT = an_alert()
PROOF = {"query": "p95", "below": 0.25, "within": "2m", "for": "30s", "window": "0s"}


def a_scale(**scale: Any) -> Any:
    step = {"scale": {"min": 1, "max": 4, **scale}, "verify": PROOF}
    guards = [{"cooldown": "1h"}]
    return a_playbook(name="scale", guards=guards, steps=[step], on_resolve="restore")


async def begin(world: World, **scale: Any) -> None:
    world.serve(a_scale(**scale))
    world.metrics.answers["p95"] = 0.2
    await world.fire(ALERT)


def asked(world: World) -> list[float]:
    return [s.args["values"]["replicas"] for s in world.scaler.applied("set")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scale", "wanted"),
    [({"to": 3}, 3), ({"add": 1}, 3), ({"add": 9}, 4), ({"add": -1}, 1), ({"add": -9}, 1)],
)
async def test_what_is_sent_is_absolute_and_within_bounds(
    world: World, scale: dict[str, int], wanted: int
) -> None:
    await begin(world, **scale)
    run = await world.ended()
    assert asked(world) == [wanted]
    assert run.verdict is Verdict.IMPROVED
    assert (world.change()["base"], world.change()["value"]) == (2, wanted)


@pytest.mark.slow
@pytest.mark.parametrize("scale", [{"to": 2}, {"add": 1, "max": 2}, {"add": -1, "min": 2}])
async def test_at_its_bound_there_is_nothing_to_add_and_somebody_else_takes_over(
    world: World, scale: dict[str, int]
) -> None:
    await begin(world, **scale)
    run = await world.ended()
    assert world.scaler.sent == []
    assert (run.state, run.verdict) == (RunState.FAILED, Verdict.UNCHANGED)
    assert "2 replicas already" in run.reason
    assert len(world.paged()) == 1


async def test_a_bound_never_turns_more_into_fewer(world: World) -> None:
    world.scaler.values["replicas"] = 6
    await begin(world, add=1)
    await world.ended()
    assert world.scaler.sent == []


@pytest.mark.parametrize("lost", [Outcome.UNKNOWN_APPLIED, Outcome.UNKNOWN_LOST])
async def test_an_answer_that_is_lost_adds_nothing_twice(world: World, lost: Outcome) -> None:
    world.scaler.script("set", lost)
    await begin(world, add=1)
    await world.ended()
    assert world.scaler.values["replicas"] == 3
    assert {s.args["values"]["replicas"] for s in world.scaler.tried("set")} == {3}
    assert (world.change()["base"], world.change()["value"]) == (2, 3)


async def test_a_process_that_dies_after_the_send_adds_nothing_twice(world: World) -> None:
    one = world.dying("one", before="_confirm")
    await begin(world, add=1)
    await world.until(lambda: one.dead, within=60)
    world.controllers.remove(one)
    one.db.close()
    world.controller("two")
    await world.ended()
    assert world.scaler.values["replicas"] == 3
    assert world.change()["base"] == 2


async def test_replicas_are_given_back_one_at_a_time(world: World) -> None:
    await begin(world, to=4)
    await world.ended()
    await world.resolve(ALERT)
    await world.until(lambda: world.changes(still_held=True) == [])
    assert asked(world) == [4, 3, 2]


@pytest.mark.slow
async def test_a_scaler_that_cannot_be_read_is_told_to_a_person(world: World) -> None:
    world.scaler.reachable = False
    await begin(world, add=1)
    run = await world.ended()
    assert "the scaler of gpu-1 cannot be read" in run.reason
    assert len(world.paged()) == 1
