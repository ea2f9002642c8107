"""Approvals: a person decides, once; whoever waits holds nothing, and is checked again after it."""

from __future__ import annotations

from typing import Any

import pytest

from remediator.model.decision import Reason
from remediator.model.playbook import Mode
from remediator.model.run import Decided, Run, RunState
from remediator.store import approvals
from remediator.store.database import Database
from tests.builders import GPU1, a_playbook, a_retune, a_throttle, an_alert, pinned
from tests.journals import Interrupted
from tests.world import World

SLOW, DOWN = an_alert("Slow"), an_alert("Down")
COOL = [{"cooldown": "1h"}]
YES, NO = Decided.APPROVED, Decided.REJECTED


async def proposed(world: World, **changed: Any) -> Run:
    """Bring a proposal to where it waits for a person."""
    world.serve(a_throttle(**{"mode": "propose", **changed}))
    world.metrics.answers["p95"] = 0.5
    await world.fire(SLOW)
    await world.settle(1)
    return world.run()


def a_gate(**asked: Any) -> dict[str, Any]:
    """Return a playbook that retunes, asks, and then sets the ceiling."""
    retune = a_retune({"batch_size": 4})["steps"][0] | {"verify": None}
    ceiling = {"retune": {"set": {"max_concurrency": 5}}, "name": "lower"}
    return a_playbook(
        guards=COOL,
        steps=[
            retune,
            {"approve": {"message": "May it?", "within": "10m", **asked}},
            {"notify": {"message": "between"}},
            ceiling,
        ],
        on_resolve={"restore": {"healthy": {"query": "p95", "below": 0.25}}},
    )


async def at_the_gate(world: World, **asked: Any) -> Run:
    """Bring an automatic run to its approve step."""
    world.serve(a_gate(**asked))
    await world.fire(SLOW)
    await world.settle(1)
    assert world.run().state is RunState.WAITING
    return world.run()


# -- a proposal ------------------------------------------------------------------------------------


async def test_a_proposal_asks_once_with_plan_and_evidence_and_holds_no_slot(world: World) -> None:
    run = await proposed(world)
    await world.settle(120)
    assert (run.state, run.mode, run.holds_slot) == (RunState.WAITING, Mode.PROPOSE, False)
    (asked,) = world.messages()
    assert asked["title"] == "throttle on gpu-1: approve R1?"
    for part in ("Target: gpu-1", "1. throttle", "p95", "remediator approve R1", "reject R1"):
        assert part in asked["body"]
    assert "\nAlert: Slow, since 2026-" in asked["body"]
    for label, value in SLOW.labels.items():
        assert label == "alertname" or f'\n  {label}="{value}"\n' in asked["body"]
    assert "\nMeasured:\n  0.5 = p95\n" in asked["body"]
    assert world.detector.sent == []


async def test_an_approved_proposal_acts_and_is_automatic_from_then_on(world: World) -> None:
    run = await proposed(world)
    assert await world.decide(run, YES)
    await world.settle(1)
    run = world.run()
    assert (run.mode, run.proposed, run.holds_slot) == (Mode.AUTO, True, True)
    assert world.detector.value() == 5


async def test_the_first_decision_wins(world: World) -> None:
    run = await proposed(world)
    assert await world.decide(run, NO)
    assert not await world.decide(run, YES, by="bob")
    await world.settle(1)
    run = world.run()
    assert (run.state, run.reason) == (RunState.CANCELLED, "rejected by ann: a test")
    assert world.detector.sent == []


@pytest.mark.slow
async def test_who_was_told_no_is_not_asked_again_for_this_episode(world: World) -> None:
    run = await proposed(world, guards=[])
    await world.decide(run, NO)
    await world.settle(600)
    assert len(world.runs()) == 1
    assert world.reasons()[-1] == Reason.OVERRIDE


@pytest.mark.slow
async def test_a_proposal_that_nobody_answers_wakes_a_person(world: World) -> None:
    await proposed(world, guards=COOL, approval={"within": "10m"})
    run = await world.ended()
    assert run.state is RunState.FAILED
    assert run.reason == "nobody answered within 10m"
    assert world.paged() == ["throttle on gpu-1: needs a person"]


@pytest.mark.slow
async def test_a_proposal_may_also_lapse_quietly(world: World) -> None:
    await proposed(world, guards=COOL, approval={"within": "10m", "on_timeout": "stop"})
    run = await world.ended()
    assert run.state is RunState.CANCELLED
    assert world.paged() == []


@pytest.mark.slow
async def test_nobody_can_approve_what_has_lapsed(world: World) -> None:
    run = await proposed(world, guards=COOL, approval={"within": "10m"})
    world.clock.advance(600)
    assert not await world.decide(run, YES)
    await world.settle(1)
    assert world.detector.sent == []


async def test_an_alert_that_is_over_withdraws_the_question_and_bothers_nobody(
    world: World,
) -> None:
    await proposed(world)
    before = len(world.messages())
    await world.resolve(SLOW)
    await world.settle(1)
    assert world.run().state is RunState.CANCELLED
    assert world.run().reason == "the alert was over before anybody decided"
    assert len(world.messages()) == before


async def test_an_approval_outlives_the_process_that_asked(world: World) -> None:
    run = await proposed(world)
    world.controllers[0].db.close()
    world.controllers.clear()
    await world.decide(run, YES)
    world.controller("two")
    await world.settle(1)
    assert world.detector.value() == 5


async def test_an_approval_while_the_run_goes_back_to_sleep_is_not_slept_over(
    world: World,
) -> None:
    db = Interrupted(world.url, clock=world.clock)
    world.controller("one", db=db)
    run = await proposed(world)
    asked = (await world.db.read(approvals.of_run, run.id))[0]
    db.before = "ask"
    db.then = lambda: Database.transact(
        db, approvals.decide, asked.id, decision=YES, by="ann", reason=""
    )
    await world.db.write(approvals.wake, [run.id])
    await world.settle(2)
    assert world.detector.value() == 5


async def test_two_processes_begin_an_approved_proposal_once(world: World) -> None:
    world.controller("one")
    world.controller("two")
    run = await proposed(world)
    await world.decide(run, YES)
    await world.settle(1)
    assert len(world.detector.applied("set")) == 1


async def test_a_proposal_does_not_keep_others_from_acting(world: World) -> None:
    await proposed(world)
    world.library["other"] = pinned(a_playbook(name="other", on=_on("Down"), guards=COOL))
    await world.fire(DOWN)
    await world.settle(1)
    assert [run.playbook for run in world.runs()] == ["throttle", "other"]
    assert world.runs()[1].state is RunState.SUCCEEDED


def _on(name: str) -> dict[str, Any]:
    return {"alerts": [f'alertname="{name}"']}


# -- the guards again ------------------------------------------------------------------------------


async def test_what_no_longer_holds_when_it_is_approved_is_not_done_and_the_person_is_told(
    world: World,
) -> None:
    run = await proposed(world)
    world.clock.advance(600)
    world.metrics.answers["p95"] = 0.1
    await world.decide(run, YES)
    await world.settle(1)
    run = world.run()
    assert run.state is RunState.CANCELLED
    assert run.reason.startswith("not begun, require: measured 0.1, wanted > 0.25")
    assert world.messages()[-1]["title"] == (
        "throttle on gpu-1: approved by ann: a test, and not done"
    )
    assert Reason.REQUIRE in world.reasons()
    assert world.detector.sent == []


@pytest.mark.slow
async def test_who_is_approved_while_another_acts_waits_for_the_slot(world: World) -> None:
    run = await proposed(world)
    restart = a_playbook(
        name="slow",
        on=_on("Down"),
        guards=COOL,
        steps=[{"retune": {"set": {"batch_size": 4}}}, {"wait": "2m"}],
    )
    world.library["slow"] = pinned(restart)
    await world.fire(DOWN)
    await world.settle(1)
    await world.decide(run, YES)
    await world.settle(20)
    assert "waits: run R2" in world.runs()[0].reason
    await world.until(lambda: world.runs()[0].holds_slot, within=300)
    assert world.detector.value() == 5


@pytest.mark.slow
async def test_who_never_gets_the_slot_gives_up_when_the_question_would_have_lapsed(
    world: World,
) -> None:
    run = await proposed(world, approval={"within": "5m"})
    other = a_playbook(name="long", on=_on("Down"), guards=COOL, steps=[{"wait": "1h"}])
    world.library["long"] = pinned(other)
    await world.fire(DOWN)
    await world.settle(1)
    await world.decide(run, YES)
    await world.until(lambda: not world.runs()[0].state.is_open, within=400)
    assert world.runs()[0].reason.startswith("not begun, busy")


async def test_a_pause_keeps_an_approved_proposal_from_beginning(world: World) -> None:
    run = await proposed(world)
    await world.pause()
    await world.decide(run, YES)
    await world.settle(1)
    assert world.run().reason.startswith("not begun, paused")
    assert world.detector.sent == []


# -- a step that asks ------------------------------------------------------------------------------


@pytest.mark.slow
async def test_an_approve_step_gives_the_slot_back_and_keeps_what_is_held_renewed(
    world: World,
) -> None:
    run = await at_the_gate(world, within="3h")
    assert not run.holds_slot
    await world.settle(5400)
    assert world.detector.value("batch_size") == 4
    await world.decide(run, YES)
    await world.settle(1)
    assert world.detector.value() == 5
    assert world.run().state is RunState.SUCCEEDED


@pytest.mark.slow
@pytest.mark.parametrize(
    ("asked", "state", "batch", "ceiling"),
    [
        ({"on_reject": "stop"}, RunState.ROLLED_BACK, 8, 10),
        ({"on_reject": "continue"}, RunState.SUCCEEDED, 4, 5),
        ({"on_reject": "lower"}, RunState.SUCCEEDED, 4, 5),
        ({"on_reject": "escalate"}, RunState.FAILED, 4, 10),
    ],
)
async def test_a_no_leads_where_the_playbook_says(
    world: World, asked: dict[str, Any], state: RunState, batch: int, ceiling: int
) -> None:
    run = await at_the_gate(world, **asked)
    await world.decide(run, NO)
    await world.settle(1)
    assert world.run().state is state
    assert (world.detector.value("batch_size"), world.detector.value()) == (batch, ceiling)
    skipped = asked["on_reject"] == "lower"
    assert ("between" in [m["body"] for m in world.messages()]) is (
        state is RunState.SUCCEEDED and not skipped
    )


async def test_who_was_told_no_in_mid_run_does_not_begin_again_in_this_episode(
    world: World,
) -> None:
    world.serve({**a_gate(), "guards": []})
    await world.fire(SLOW)
    await world.settle(1)
    await world.decide(world.run(), NO)
    await world.settle(120)
    assert len(world.runs()) == 1
    assert world.reasons()[-1] == Reason.OVERRIDE


@pytest.mark.slow
@pytest.mark.parametrize("before", ["ask", "readmit", "not_admitted", "_advance_done"])
@pytest.mark.parametrize("after_commit", [False, True])
async def test_a_death_at_any_point_of_an_approval_asks_once_and_acts_once(
    world: World, before: str, *, after_commit: bool
) -> None:
    rest = [{"cooldown": "1h"}]
    world.serve(
        a_gate(), a_playbook(name="long", on=_on("Down"), guards=rest, steps=[{"wait": "1m"}])
    )
    world.dying("one", before=before, after_commit=after_commit)
    await world.fire(SLOW)
    await world.settle(1)
    world.controller("two")
    await world.settle(60)
    await world.fire(DOWN)
    await world.settle(1)
    await world.decide(world.runs(playbook="tell")[0], YES)
    await world.until(lambda: not world.runs(playbook="tell")[0].state.is_open, within=600)
    assert world.runs(playbook="tell")[0].state is RunState.SUCCEEDED
    assert world.detector.value() == 5
    assert len([m for m in world.messages() if "approve R" in m["title"]]) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("asked", "state", "ceiling"),
    [
        ({"on_timeout": "stop"}, RunState.ROLLED_BACK, 10),
        ({"on_timeout": "continue"}, RunState.SUCCEEDED, 5),
        ({"on_timeout": "lower"}, RunState.SUCCEEDED, 5),
        ({"on_timeout": "escalate"}, RunState.FAILED, 10),
        ({}, RunState.FAILED, 10),
    ],
)
async def test_silence_leads_where_the_playbook_says(
    world: World, asked: dict[str, Any], state: RunState, ceiling: int
) -> None:
    await at_the_gate(world, **asked)
    world.clock.advance(601)
    await world.settle(1)
    assert world.run().state is state
    assert world.detector.value() == ceiling


async def test_a_run_that_only_observes_asks_nobody(world: World) -> None:
    world.serve({**a_gate(), "mode": "observe"})
    await world.fire(SLOW)
    run = await world.ended()
    assert run.state is RunState.SUCCEEDED
    assert not any("approve" in m["title"] for m in world.messages())


async def test_a_proposal_with_a_step_that_asks_asks_twice_and_acts(world: World) -> None:
    world.serve({**a_gate(), "mode": "propose"})
    await world.fire(SLOW)
    for _ in range(2):
        await world.settle(1)
        assert await world.decide(world.run(), YES)
    await world.settle(1)
    assert world.run().state is RunState.SUCCEEDED
    assert world.detector.value() == 5


async def test_a_cancel_ends_the_question(world: World) -> None:
    run = await at_the_gate(world)
    await world.cancel(run)
    await world.settle(1)
    assert world.run().state is RunState.ROLLED_BACK
    assert world.detector.value("batch_size") == 8


async def test_a_question_about_a_whole_story_carries_the_storys_dedup(world: World) -> None:
    await proposed(world)
    (asked,) = world.messages()
    assert asked["dedup"] == f"{SLOW.fingerprint}/{GPU1}"
