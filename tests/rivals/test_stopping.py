"""What other controllers cannot stop, or stop half-way: pauses, locks and breakers that trap.

A pause that also keeps a drained target drained, a lock that outlives its owner, an approval that
starts a run twice, a dry run that counts as experience.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from remediator.engine import stopping
from remediator.model.decision import Reason
from remediator.model.run import Decided, RunState
from tests.builders import GPU1, GPU2, a_playbook, a_restart, a_retune, a_throttle, an_alert
from tests.world import World

# Each tells a long story; together they are a proof and no quick look.
pytestmark = pytest.mark.slow

HOUR = 3600.0
NOTHING: list[Any] = []


async def drained(world: World) -> None:
    """Bring a restart to the point where the target is drained and nothing else has happened."""
    world.serve(a_restart())
    world.metrics.answers.update(up=0, alive=1)
    world.detector.inflight = 3
    await world.fire(an_alert("Down"))
    await world.settle(2)
    assert world.detector.draining


async def test_a_pause_does_not_trap_a_target_that_is_drained(world: World) -> None:
    await drained(world)
    await world.pause()
    world.detector.inflight = 0
    await world.settle(60)
    assert not world.detector.draining
    assert world.process.sent == NOTHING
    assert not world.run().state.is_open


async def test_a_pause_does_not_loosen_what_is_held_and_lets_it_be_given_back(
    world: World,
) -> None:
    world.serve(a_throttle())
    world.metrics.answers["p95"] = lambda _now: 0.06 * world.detector.value()
    alert = an_alert()
    await world.fire(alert)
    await world.ended()
    await world.pause(seconds=HOUR)
    await world.settle(HOUR / 2)
    assert world.detector.value() == 4, "leases are renewed while it is paused"
    world.metrics.answers["p95"] = 0.05
    await world.resolve(alert)
    await world.settle(HOUR / 3)
    assert world.detector.value() == 10


async def test_a_pause_ends_by_itself(world: World) -> None:
    world.serve(a_playbook(guards=[{"cooldown": "1h"}]))
    await world.pause(seconds=60)
    await world.fire(an_alert())
    await world.settle(90)
    assert world.reasons()[:2] == [Reason.PAUSED, Reason.ADMITTED]


async def test_an_open_breaker_does_not_trap_what_was_changed_before_it_opened(
    world: World,
) -> None:
    breaker = [{"breaker": {"failures": 1, "reset": "10h"}}]
    world.serve(a_retune({"batch_size": 4}, guards=breaker))
    world.metrics.answers["p95"] = 0.1
    helped = an_alert(target=GPU1)
    await world.fire(helped)
    await world.settle(300)
    assert world.detectors[GPU1].value("batch_size") == 4
    world.metrics.answers["p95"] = 0.5
    await world.fire(an_alert(target=GPU2))
    await world.settle(300)
    assert world.reasons()[-1] == Reason.BREAKER
    assert world.detectors[GPU1].value("batch_size") == 4, "it is renewed all the same"
    world.metrics.answers["p95"] = 0.1
    await world.resolve(helped)
    await world.settle(300)
    assert world.detectors[GPU1].value("batch_size") == 8


async def test_two_who_approve_at_the_same_moment_start_it_once(world: World) -> None:
    world.serve(a_retune({"batch_size": 4}, mode="propose", guards=[{"cooldown": "1h"}]))
    world.metrics.answers["p95"] = 0.1
    world.controller("one")
    world.controller("two")
    await world.fire(an_alert())
    await world.settle(1)
    said = [world.decide(world.run(), Decided.APPROVED, by=by) for by in ("ann", "bob")]
    assert sorted(await asyncio.gather(*said)) == [False, True]
    await asyncio.gather(*(one.tick() for one in world.controllers))
    await world.settle(120)
    assert len(world.detector.applied("set")) == 1
    assert world.run().state is RunState.SUCCEEDED


async def test_a_kill_switch_stops_every_replica_and_still_lets_them_unwind(world: World) -> None:
    await drained(world)
    world.controller("another")
    await world.db.write(stopping.kill, by="ann", reason="a test")
    await world.fire(an_alert("Down", GPU2))
    world.detector.inflight = 0
    await world.settle(60)
    assert not world.detector.draining
    assert [process.sent for process in world.processes.values()] == [NOTHING, NOTHING]
    assert not any(run.state.is_open for run in world.runs())
    assert world.reasons()[-1] == Reason.KILLED


async def test_the_targets_lock_does_not_outlive_the_process_that_took_it(world: World) -> None:
    world.serve(a_throttle(), a_retune({"batch_size": 4}, on={"alerts": ['alertname="Memory"']}))
    world.metrics.answers["p95"] = lambda _now: 0.06 * world.detector.value()
    world.dying("first", before="begin", after_commit=True)
    await world.fire(an_alert())
    await world.settle(1)
    world.controller("second")
    await world.ended()
    assert not any(run.holds_slot for run in world.runs())
    world.metrics.answers["p95"] = 0.1
    await world.fire(an_alert("Memory"))
    await world.settle(300)
    assert world.runs(playbook="retune")[0].state is RunState.SUCCEEDED


async def test_what_was_done_is_taken_back_in_reverse_without_a_line_in_the_playbook(
    world: World,
) -> None:
    def retune(knob: str, query: str) -> dict[str, Any]:
        verify = {"query": query, "below": 0.25, "within": "1m", "for": "15s", "window": "0s"}
        return {"retune": {"set": {knob: 4}}, "verify": verify}

    world.serve(a_playbook(steps=[retune("batch_size", "fine"), retune("max_concurrency", "p95")]))
    world.metrics.answers["fine"] = 0.1
    world.metrics.answers["p95"] = lambda _now: 0.3 + 0.1 * (10 - world.detector.value())
    await world.fire(an_alert())
    run = await world.ended()
    assert run.state is RunState.ROLLED_BACK
    released = [sent.args["knob"] for sent in world.detector.applied("release")]
    assert released == ["max_concurrency", "batch_size"]
    assert world.detector.leases == {}


async def test_a_dry_run_sends_nothing_and_is_no_experience_for_the_real_one(
    world: World,
) -> None:
    document = a_throttle(guards=[{"cooldown": "10h"}], mode="observe")
    world.serve(document)
    world.metrics.answers["p95"] = 0.5
    alert = an_alert()
    await world.fire(alert)
    await world.ended()
    assert world.detector.sent == NOTHING
    world.serve({**document, "mode": "auto"})
    await world.settle(30)
    assert len(world.detector.applied("set")) >= 1
    assert world.runs()[-1].target == GPU1
