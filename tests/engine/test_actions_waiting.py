"""check, wait and notify: what a step may ask and say without touching anything."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from remediator.model.run import Decided, RunState
from remediator.model.verdict import ReadingStatus, Verdict
from remediator.store import approvals
from tests.builders import a_playbook, an_alert
from tests.fakes import NOON, Answer
from tests.world import World

pytestmark = pytest.mark.slow

LATER = {"notify": {"message": "went on"}}


async def begin(world: World, *steps: Any, **changed: Any) -> None:
    guards = [{"cooldown": "1h"}]
    world.serve(a_playbook(name="ask", guards=guards, steps=list(steps), **changed))
    await world.fire(an_alert(starts_at=world.clock.now))


def a_check(**more: Any) -> dict[str, Any]:
    return {"check": {"query": "depth", "below": 5, **more}}


async def test_a_check_that_holds_lets_the_run_go_on(world: World) -> None:
    world.metrics.answers["depth"] = 4
    await begin(world, a_check(), LATER)
    run = await world.ended()
    assert run.state is RunState.SUCCEEDED
    assert "went on" in [message["body"] for message in world.messages()]


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (6, Verdict.UNCHANGED),
        (5, Verdict.UNCHANGED),
        (None, Verdict.UNKNOWN),
        (ReadingStatus.NAN, Verdict.UNKNOWN),
        (ReadingStatus.ERROR, Verdict.UNKNOWN),
        (ReadingStatus.MANY, Verdict.UNKNOWN),
    ],
)
async def test_a_check_that_fails_says_whether_it_was_false_or_unknown(
    world: World, answer: Answer, verdict: Verdict
) -> None:
    world.metrics.answers["depth"] = answer
    await begin(world, a_check(), LATER)
    run = await world.ended()
    assert (run.state, run.verdict) == (RunState.FAILED, verdict)
    assert "wanted < 5" in run.reason
    assert world.metrics.asked.count("depth") == 1


async def test_a_check_waits_for_the_condition_as_long_as_it_may(world: World) -> None:
    world.metrics.answers["depth"] = lambda now: 4 if now >= NOON + timedelta(seconds=50) else 9
    await begin(world, a_check(within="1m"), LATER)
    run = await world.ended()
    assert run.state is RunState.SUCCEEDED
    assert run.closed_at == NOON + timedelta(seconds=60)


async def test_a_check_gives_up_when_the_condition_never_comes(world: World) -> None:
    world.metrics.answers["depth"] = 9
    await begin(world, a_check(within="1m"), LATER)
    run = await world.ended()
    assert run.verdict is Verdict.UNCHANGED
    assert world.metrics.asked.count("depth") == 5


async def test_a_condition_that_must_hold_is_watched_until_it_did(world: World) -> None:
    world.metrics.answers["depth"] = 4
    await begin(world, a_check(**{"for": "30s"}), LATER)
    run = await world.ended()
    assert run.state is RunState.SUCCEEDED
    assert run.closed_at == NOON + timedelta(seconds=30)


async def test_one_bad_measurement_starts_the_holding_anew(world: World) -> None:
    bad = NOON + timedelta(seconds=15)
    world.metrics.answers["depth"] = lambda now: 9 if now == bad else 4
    await begin(world, a_check(within="2m", **{"for": "30s"}), LATER)
    run = await world.ended()
    assert run.closed_at == NOON + timedelta(seconds=60)


async def test_a_hole_in_the_data_is_no_holding_either(world: World) -> None:
    hole = NOON + timedelta(seconds=15)
    world.metrics.answers["depth"] = lambda now: None if now == hole else 4
    await begin(world, a_check(**{"for": "30s"}), LATER)
    run = await world.ended()
    assert (run.state, run.verdict) == (RunState.FAILED, Verdict.UNKNOWN)
    assert run.closed_at == hole


async def test_a_check_gives_up_as_soon_as_it_can_no_longer_hold_long_enough(world: World) -> None:
    world.metrics.answers["depth"] = lambda now: 4 if now >= NOON + timedelta(seconds=40) else 9
    await begin(world, a_check(within="1m", **{"for": "30s"}), LATER)
    run = await world.ended()
    assert run.closed_at == NOON + timedelta(seconds=30)


async def test_a_wait_is_never_shorter_and_holds_the_slot(world: World) -> None:
    await begin(world, {"wait": "7m"}, LATER)
    await world.settle(419)
    assert world.run().state is RunState.WAITING
    assert world.run().holds_slot
    assert world.run().reason == "waiting 7m"
    await world.settle(2)
    assert world.run().state is RunState.SUCCEEDED
    assert world.run().closed_at == NOON + timedelta(minutes=7)


async def test_a_wait_goes_on_in_another_process(world: World) -> None:
    one = world.controller("one")
    await begin(world, {"wait": "7m"}, LATER)
    await world.settle(60)
    one.dead = True
    world.controller("two")
    await world.settle(359)
    assert world.run().state is RunState.WAITING
    await world.settle(2)
    assert world.run().closed_at == NOON + timedelta(minutes=7)


async def test_a_second_wait_begins_when_the_first_is_over(world: World) -> None:
    await begin(world, {"wait": "1m"}, {"wait": "1m"})
    run = await world.ended()
    assert run.closed_at == NOON + timedelta(minutes=2)


async def test_a_wait_begins_when_its_proposal_is_approved(world: World) -> None:
    await begin(world, {"wait": "7m"}, LATER, mode="propose")
    await world.settle(600)
    (asked,) = world.db.transact(approvals.of_run, world.run().id, writing=False)
    await world.db.write(
        approvals.decide, asked.id, decision=Decided.APPROVED, by="ann", reason="fine"
    )
    run = await world.ended()
    assert run.closed_at == NOON + timedelta(seconds=600) + timedelta(minutes=7)


@pytest.mark.parametrize("severity", ["info", "warning", "critical"])
async def test_a_message_has_the_severity_that_the_step_says(world: World, severity: str) -> None:
    await begin(world, {"notify": {"message": "hear me", "severity": severity}})
    await world.ended()
    (message,) = [one for one in world.messages() if one["body"] == "hear me"]
    assert message["severity"] == severity


async def test_a_message_is_told_once_however_often_the_process_dies(world: World) -> None:
    world.dying("one", before="_close_done", after_commit=True)
    world.dying("two", before="_close_done")
    world.controller("three")
    await begin(world, {"notify": {"message": "hear me", "severity": "critical"}})
    await world.ended()
    await world.settle(60)
    assert [one.body for one in world.notifier.told].count("hear me") == 1


async def test_observing_wakes_nobody(world: World) -> None:
    await begin(world, {"notify": {"message": "hear me", "severity": "critical"}}, mode="observe")
    await world.ended()
    assert set(world.severities()) == {"info"}
