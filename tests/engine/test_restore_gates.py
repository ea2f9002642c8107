"""What a restore waits for beside a healthy signal, and how slow it becomes when it is undone."""

from __future__ import annotations

import math
from typing import Any

import pytest

from remediator.model.verdict import ReadingStatus
from remediator.store import changes
from tests.builders import a_playbook, a_retune, a_throttle, an_alert
from tests.fakes import Answer
from tests.world import World

pytestmark = pytest.mark.slow

ALERT = an_alert()
COOL = [{"cooldown": "1h"}]
PROOF = {"query": "p95", "below": 0.25, "within": "2m", "for": "30s", "window": "0s"}


async def throttled(world: World, **parts: Any) -> None:
    """Bring the first target from ten down to six, and let the alert be over."""
    world.serve(a_throttle(guards=COOL, **parts))
    world.metrics.answers["p95"] = lambda _now: 0.4 if world.detector.value() > 6 else 0.2
    await world.fire(ALERT)
    await world.ended()
    assert world.detector.value() == 6
    world.metrics.answers["p95"] = 0.1
    await world.resolve(ALERT)


DEMAND = {"on_resolve": {"restore": {"demand": {"query": "queued", "above": 0}}}}


@pytest.mark.parametrize("queued", [0, None, math.nan, ReadingStatus.ERROR])
async def test_a_ceiling_that_nobody_would_use_is_not_raised(world: World, queued: Answer) -> None:
    world.metrics.answers["queued"] = queued
    await throttled(world, **DEMAND)
    await world.settle(600)
    assert world.detector.value() == 6
    assert "demand" in world.restores()[0].reason
    world.metrics.answers["queued"] = 2
    await world.until(lambda: world.detector.value() == 7)


async def test_nothing_is_given_back_while_a_hard_condition_holds_or_cannot_be_seen(
    world: World,
) -> None:
    world.metrics.answers["memory"] = 0.5
    await throttled(world, knobs={"hard": {"query": "memory", "above": 0.9}})
    for value in (0.95, None):
        world.metrics.answers["memory"] = value
        await world.settle(300)
        assert world.detector.value() == 6
    world.metrics.answers["memory"] = 0.5
    await world.until(lambda: world.detector.value() == 7)


async def test_nothing_is_given_back_on_old_samples(world: World) -> None:
    world.metrics.answers["stamp"] = lambda now: now.timestamp() - 5
    await throttled(world, knobs={"sampled_at": "stamp"})
    frozen = world.clock.now.timestamp()
    world.metrics.answers["stamp"] = frozen
    await world.settle(600)
    assert world.detector.value() == 6
    assert "no data" in world.restores()[0].reason
    world.metrics.answers["stamp"] = lambda now: now.timestamp() - 5
    await world.until(lambda: world.detector.value() == 7)


SHIFT = {"shift_load": {"weight": 20}, "verify": PROOF}
SCALE = {"scale": {"to": 4, "max": 4}, "verify": PROOF}


@pytest.mark.parametrize(
    "document",
    [
        a_throttle(guards=COOL),
        a_retune({"batch_size": 4}, guards=COOL),
        a_playbook(guards=COOL, steps=[SHIFT], on_resolve="restore"),
        a_playbook(guards=COOL, steps=[SCALE], on_resolve="restore"),
    ],
    ids=["throttle", "retune", "shift_load", "scale"],
)
async def test_a_resolve_that_came_from_prometheus_dying_gives_nothing_back(
    world: World, document: Any
) -> None:
    world.serve(document)
    world.metrics.answers["p95"] = lambda _now: 0.2 if world.changes() else 0.4
    await world.fire(ALERT)
    await world.ended()
    (change,) = world.changes()
    world.metrics.down = True
    await world.resolve(ALERT)
    await world.settle(1200)
    (kept,) = world.changes(still_held=True)
    assert kept["value"] == change["value"]
    world.metrics.down = False
    world.metrics.answers["p95"] = 0.1
    await world.until(lambda: world.changes(still_held=True) == [])
    assert world.change()["state"] == "restored"


async def undo_the_last_step(world: World) -> None:
    """Let it come back all the way, and break again."""
    await world.until(lambda: world.changes(still_held=True) == [])
    world.serve(a_throttle(name="again", guards=[]))
    world.metrics.answers["p95"] = lambda _now: 0.4 if world.detector.value() > 6 else 0.2


async def test_that_the_last_step_was_too_early_is_not_forgotten_with_the_change(
    world: World,
) -> None:
    await throttled(world)
    await undo_the_last_step(world)
    await world.fire(ALERT)
    await world.until(lambda: len(world.changes()) == 2)
    assert world.changes()[-1]["restore_interval_s"] == 120
    # And only what the last step gave is taken.
    assert world.changes()[-1]["value"] == 9


async def test_after_a_quiet_hour_the_way_back_is_as_fast_as_ever(world: World) -> None:
    await throttled(world)
    await undo_the_last_step(world)
    await world.settle(changes.QUIET.total_seconds() + 1)
    await world.fire(ALERT)
    await world.until(lambda: len(world.changes()) == 2)
    assert world.changes()[-1]["restore_interval_s"] is None
    assert world.changes()[-1]["value"] == 6


async def test_a_restore_waits_a_hold_down_after_the_step_down(world: World) -> None:
    await throttled(world, on_resolve={"restore": {"every": "10s", "hold": "0s"}})
    lowered = world.detector.applied("set")[0].at
    began = world.clock.now
    await world.until(lambda: world.detector.value() == 7)
    assert (world.clock.now - began).total_seconds() >= 60
    assert (world.clock.now - lowered).total_seconds() >= 60
