"""Rollback: in reverse order, each thing once, also when the way forward was what broke."""

from __future__ import annotations

from typing import Any

import pytest

from remediator.engine.reconcile import DROPS_ALLOWED
from remediator.model.run import Phase, RunState
from remediator.model.verdict import Verdict
from tests.builders import a_playbook, a_restart, an_alert, throttle_step
from tests.fakes import Outcome
from tests.world import World

ALERT = an_alert()
COOL = [{"cooldown": "1h"}]
PROOF = {"query": "p95", "below": 0.25, "within": "2m", "for": "30s", "window": "0s"}


def three_steps(**changed: Any) -> Any:
    """Throttle, retune two knobs, shift load away; the last one makes it worse."""
    steps = [
        throttle_step(),
        {"retune": {"set": {"batch_size": 4, "imgsz": 320}}},
        {"shift_load": {"weight": 50}, "verify": PROOF},
    ]
    return a_playbook(**{"name": "three", "guards": COOL, "steps": steps, **changed})


async def worse_at_the_end(world: World) -> None:
    world.detector.base["imgsz"] = 640
    world.serve(three_steps())
    world.metrics.answers["p95"] = lambda _now: (
        0.9 if world.balancer.values["weight"] < 100 else 0.5 if world.detector.value() > 5 else 0.2
    )
    await world.fire(ALERT)


def undone(world: World) -> list[tuple[int, str]]:
    return [(s.pc, s.call) for s in world.steps() if s.phase is Phase.ROLLBACK]


async def test_everything_goes_back_in_reverse_order_each_thing_once(world: World) -> None:
    await worse_at_the_end(world)
    run = await world.ended()
    assert (run.state, run.verdict) == (RunState.ROLLED_BACK, Verdict.WORSE)
    assert undone(world) == [
        (2, "undo:set"),
        (1, "undo:set:imgsz"),
        (1, "undo:set:batch_size"),
        (0, "undo:set"),
    ]
    assert world.balancer.values["weight"] == 100
    assert [world.detector.value(k) for k in ("imgsz", "batch_size", "max_concurrency")] == [
        640,
        8,
        10,
    ]
    assert {change["state"] for change in world.changes()} == {"rolled_back"}
    assert all(row.undone for row in world.steps() if row.phase is Phase.FORWARD)


@pytest.mark.slow
async def test_one_thing_that_cannot_be_taken_back_keeps_none_of_the_others(world: World) -> None:
    await worse_at_the_end(world)
    world.detector.script("release", Outcome.PERMANENT)
    run = await world.ended()
    assert run.state is RunState.ROLLBACK_FAILED
    assert "could not be taken back: set:imgsz" in run.reason
    assert world.balancer.values["weight"] == 100
    assert world.detector.value() == 10
    assert "three on gpu-1: rollback failed" in world.paged()
    (left,) = world.changes(still_held=True)
    assert left["knob"] == "imgsz"


async def test_a_process_that_dies_in_the_rollback_takes_nothing_back_twice(world: World) -> None:
    one = world.dying("one", before="_confirm", times=6)
    await worse_at_the_end(world)
    await world.until(lambda: one.dead, within=900)
    world.controllers.remove(one)
    one.db.close()
    world.controller("two")
    run = await world.ended()
    assert run.state is RunState.ROLLED_BACK
    done = [(s.pc, s.iteration, s.call) for s in world.steps() if s.phase is Phase.ROLLBACK]
    applied = {s.key for s in world.detector.applied("release")}
    assert len(applied) == len(world.detector.applied("release")) == 3
    assert len(set(done)) == 4


async def test_on_failure_undo_takes_settings_back_as_well(world: World) -> None:
    world.serve(three_steps(on_failure="undo"))
    world.detector.base["imgsz"] = 640
    world.metrics.answers["p95"] = lambda _now: 0.3 if world.detector.value() <= 5 else 0.6
    await world.fire(ALERT)
    run = await world.ended()
    assert run.state is RunState.ROLLED_BACK
    assert run.verdict is Verdict.UNCHANGED
    assert world.changes(still_held=True) == []


@pytest.mark.slow
@pytest.mark.parametrize("rolls_back", [True, False])
async def test_errors_of_ours_on_the_way_forward_leave_no_drain_behind(
    world: World, *, rolls_back: bool
) -> None:
    world.serve(a_restart(guards=COOL, step={"retries": 10}))
    world.detector.script("canary", *[Outcome.CRASH] * DROPS_ALLOWED)
    if not rolls_back:
        world.detector.script("undrain", *[Outcome.CRASH] * DROPS_ALLOWED)
    await world.fire(an_alert("Down"))
    run = await world.ended()
    assert f"given up after {DROPS_ALLOWED} errors of ours" in run.reason
    wanted = RunState.ROLLED_BACK if rolls_back else RunState.ROLLBACK_FAILED
    assert run.state is wanted
    assert world.paged() != []
    if rolls_back:
        assert not world.detector.draining
