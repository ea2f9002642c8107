"""How a run ends: the next playbook, or a person; in one transaction, told once, and observed."""

from __future__ import annotations

from typing import Any

import pytest

from remediator.errors import TemporaryError
from remediator.model.decision import Reason
from remediator.model.run import RunState
from remediator.model.verdict import Verdict
from remediator.store import runs
from tests.builders import a_playbook, a_restart, a_retune, a_throttle, an_alert
from tests.fakes import Refuse
from tests.world import World

pytestmark = pytest.mark.slow

ALERT = an_alert()
COOL = [{"cooldown": "1h"}]


def failing(**changed: Any) -> dict[str, Any]:
    """Return a throttle whose call is refused, and that then hands over."""
    parts: dict[str, Any] = {"guards": COOL, **changed}
    document = a_throttle(**parts)
    return {**document, "steps": [document["steps"][0], {"escalate_to": "second"}]}


def second(**changed: Any) -> dict[str, Any]:
    return a_playbook(**{"name": "second", "on": {"alerts": ['alertname="Never"']}, **changed})


async def fail(world: World, *documents: dict[str, Any]) -> None:
    world.serve(*documents)
    world.metrics.answers["p95"] = 0.5
    world.detector.script("set", Refuse("unauthorized"))
    await world.fire(ALERT)
    await world.settle(2)


async def test_a_failed_run_is_followed_by_the_playbook_it_names(world: World) -> None:
    await fail(world, failing(), second())
    first, next_one = world.runs()
    assert first.state is RunState.FAILED
    assert (next_one.playbook, next_one.parent_id) == ("second", first.id)
    assert next_one.opened_at == first.closed_at
    assert world.messages()[0]["title"] == "throttle on gpu-1: escalated to second"
    assert world.paged() == []


async def test_closing_and_opening_are_one_transaction(world: World) -> None:
    world.serve(failing(), second())
    world.metrics.answers["p95"] = 0.5
    world.detector.script("set", Refuse("unauthorized"))
    one = world.dying("one", before="fail", after_commit=True)
    await world.fire(ALERT)
    await world.until(lambda: one.dead)
    assert [run.playbook for run in world.runs()] == ["throttle", "second"]
    world.controllers.clear()
    one.db.close()
    world.controller("two")
    await world.settle(60)
    assert world.runs()[1].state is RunState.SUCCEEDED


async def test_an_escalation_whose_guard_says_no_goes_to_a_person_with_the_reason(
    world: World,
) -> None:
    guard = [{"require": {"query": "gpu", "above": 1}}]
    world.metrics.answers["gpu"] = 0
    await fail(world, failing(), second(guards=guard))
    assert len(world.runs()) == 1
    assert world.reasons()[:2] == [Reason.ADMITTED, Reason.REQUIRE]
    (message,) = [m for m in world.messages() if m["severity"] == "critical"]
    assert "second was denied: measured 0, wanted > 1" in message["body"]


@pytest.mark.parametrize(
    ("documents", "said"),
    [
        ([failing()], "'second' is not being served"),
        ([failing(), second(target="nowhere")], "is not in the inventory"),
        ([failing(), second(target="${{ alert.labels.rack }}")], "rack"),
    ],
)
async def test_an_escalation_that_leads_nowhere_goes_to_a_person(
    world: World, documents: list[dict[str, Any]], said: str
) -> None:
    await fail(world, *documents)
    (message,) = [m for m in world.messages() if m["severity"] == "critical"]
    assert said in message["body"]
    assert f"remediator explain R{world.run().id}" in message["body"]


async def test_a_chain_of_failures_ends_with_a_person_once(world: World) -> None:
    world.process.reachable = False
    await fail(world, failing(), a_restart(name="second", guards=COOL))
    await world.settle(60)
    assert [run.state for run in world.runs()] == [RunState.FAILED, RunState.FAILED]
    assert world.paged() == ["second on gpu-1: needs a person"]


async def test_what_was_held_by_the_first_run_is_still_held_after_the_escalation(
    world: World,
) -> None:
    document = a_throttle(guards=COOL)
    steps = [document["steps"][0], {"escalate_to": "second"}]
    world.serve({**document, "steps": steps}, second())
    world.metrics.answers["p95"] = 0.5
    await world.fire(ALERT)
    await world.until(lambda: len(world.runs()) == 2)
    assert world.change()["state"] == "held"
    assert world.detector.value() == world.change()["value"] < 10


# -- on_failure ------------------------------------------------------------------------------------


async def test_on_failure_undo_takes_back_what_a_failed_run_had_set(world: World) -> None:
    world.serve(a_retune({"batch_size": 4}, guards=COOL, on_failure="undo"))
    world.metrics.answers["p95"] = 0.5
    await world.fire(ALERT)
    run = await world.ended()
    assert (run.state, run.verdict) == (RunState.ROLLED_BACK, Verdict.UNCHANGED)
    assert world.detector.value("batch_size") == 8
    assert world.changes(still_held=True) == []
    assert world.paged() == ["retune on gpu-1: needs a person"]


async def test_on_failure_undo_leaves_alone_what_is_merely_paused(world: World) -> None:
    world.serve(a_retune({"batch_size": 4}, guards=COOL, on_failure="undo"))
    world.metrics.answers["p95"] = 0.5
    await world.fire(ALERT)
    await world.settle(1)
    await world.db.write(runs.ask_to_stop, world.run().id, reason="paused: all is paused")
    await world.ended()
    assert world.detector.value("batch_size") == 4


async def test_on_failure_may_name_the_next_playbook_and_tell_somebody_else(world: World) -> None:
    document = a_retune(
        {"batch_size": 4},
        guards=COOL,
        on_failure={"undo": True, "notify": "tell the video team", "escalate_to": "second"},
    )
    world.serve(document, second())
    world.metrics.answers["p95"] = 0.5
    await world.fire(ALERT)
    await world.until(lambda: len(world.runs()) == 2)
    first, next_one = world.runs()
    assert (first.state, next_one.playbook) == (RunState.ROLLED_BACK, "second")
    told = {m["title"]: m["body"] for m in world.messages()}
    assert told["retune on gpu-1: failed"].startswith("tell the video team\n")


async def test_every_message_of_one_story_carries_the_same_dedup(world: World) -> None:
    await fail(world, failing(), second())
    await world.settle(10)
    assert len(world.messages()) > 2
    assert {m["dedup"] for m in world.messages()} == {f"{ALERT.fingerprint}/gpu-1"}
    assert {m.dedup for m in world.notifier.told} == {f"{ALERT.fingerprint}/gpu-1"}


# -- observe ---------------------------------------------------------------------------------------


async def test_an_observed_failure_wakes_nobody_and_leads_to_no_action(world: World) -> None:
    world.metrics.answers["p95"] = 0.5
    world.process.hung = True
    world.serve(failing(mode="observe"), a_restart(name="second", guards=[]))
    await world.fire(ALERT)
    await world.until(lambda: len(world.runs()) == 2 and not world.runs()[1].state.is_open)
    assert {run.mode.value for run in world.runs()} == {"observe"}
    assert [*world.detector.sent, *world.process.sent] == []
    assert set(world.severities()) == {"info"}
    assert {m["title"].rpartition(": ")[2] for m in world.messages()} == {
        "escalated to second (only observed)",
        "needs a person (only observed)",
    }


async def test_a_failure_that_only_an_observer_follows_reaches_a_person(world: World) -> None:
    await fail(world, failing(), second(mode="observe"))
    assert world.runs()[1].mode == "observe"
    assert world.paged() == ["throttle on gpu-1: needs a person"]


@pytest.mark.parametrize("document", [a_restart(mode="observe"), a_retune({"batch_size": 4})])
async def test_an_observed_run_walks_every_step_and_sends_nothing(
    world: World, document: dict[str, Any]
) -> None:
    world.serve({**document, "mode": "observe", "guards": COOL})
    world.metrics.answers.update(p95=0.1, alive=1)
    await world.fire(an_alert("Down"), ALERT)
    run = await world.ended()
    assert world.steps() != ()
    assert all((row.result or {})["observed"] for row in world.steps())
    assert [*world.detector.sent, *world.process.sent] == []
    assert run.verdict is Verdict.UNCHANGED
    assert run.reason.startswith("natural recovery")
    assert all(m["title"].endswith("natural recovery (only observed)") for m in world.messages())


async def test_an_observed_run_without_a_proof_does_not_say_that_it_did_anything(
    world: World,
) -> None:
    world.serve(a_playbook(mode="observe", guards=COOL))
    await world.fire(ALERT)
    run = await world.ended()
    assert run.reason.startswith("nothing was sent; it would have ended: ")
    assert [m["title"] for m in world.messages()] == [
        f"{run.playbook} on {run.target} (only observed)",
        f"{run.playbook} on {run.target}: done (only observed)",
    ]


async def test_an_observed_run_and_an_acting_one_do_not_share_a_slot(world: World) -> None:
    world.serve(
        a_throttle(guards=COOL),
        a_throttle(name="watch", mode="observe", guards=COOL, on={"alerts": ['alertname="Down"']}),
    )
    world.metrics.answers["p95"] = 0.5
    await world.fire(ALERT, an_alert("Down"))
    await world.settle(1)
    assert world.reasons() == [Reason.ADMITTED, Reason.ADMITTED]
    assert len(world.detector.applied("set")) == 1


# -- telling a person ------------------------------------------------------------------------------


async def test_a_message_is_told_once_under_a_key_that_names_the_event(world: World) -> None:
    world.serve(a_playbook(guards=COOL))
    await world.fire(ALERT)
    await world.settle(120)
    assert [m.key for m in world.notifier.told] == ["run/1/0/notify", "run/1/closed"]
    assert world.notifier.told[0].body == "it is slow"


async def test_a_message_that_does_not_get_through_is_tried_again_until_it_does(
    world: World,
) -> None:
    world.notifier.script.extend([TemporaryError("no"), TemporaryError("no")])
    world.serve(a_playbook(guards=COOL, steps=[{"notify": {"message": "hello"}}]))
    await world.fire(ALERT)
    await world.settle(60)
    assert sorted(m.key for m in world.notifier.told) == ["run/1/0/notify", "run/1/closed"]


async def test_two_processes_tell_a_person_once(world: World) -> None:
    world.controller("one")
    world.controller("two")
    world.serve(a_playbook(guards=COOL))
    await world.fire(ALERT)
    await world.settle(30)
    assert len(world.notifier.told) == 2


async def test_the_steps_of_a_playbook_are_done_in_their_order(world: World) -> None:
    tell = {"notify": {"message": "first"}}
    world.serve(
        a_retune(
            {"batch_size": 4}, guards=COOL, steps=[tell, *a_retune({"batch_size": 4})["steps"]]
        )
    )
    world.metrics.answers["p95"] = 0.1
    await world.fire(ALERT)
    run = await world.ended()
    assert world.notifier.told[0].body == "first"
    assert [row.pc for row in world.steps()] == [1]
    assert run.verdict is Verdict.IMPROVED


# -- retune ----------------------------------------------------------------------------------------


async def test_several_knobs_are_set_one_call_each_and_held_one_change_each(world: World) -> None:
    world.serve(a_retune({"batch_size": 4, "max_concurrency": 5}, guards=COOL))
    world.metrics.answers["p95"] = 0.1
    await world.fire(ALERT)
    await world.ended()
    assert world.calls() == [("set:batch_size", "ok"), ("set:max_concurrency", "ok")]
    held = {row["knob"]: (row["base"], row["value"]) for row in world.changes()}
    assert held == {"batch_size": (8, 4), "max_concurrency": (10, 5)}


async def test_a_retune_that_made_it_worse_is_taken_back_in_reverse_order(world: World) -> None:
    world.serve(a_retune({"batch_size": 4, "max_concurrency": 5}, guards=COOL))
    world.metrics.answers["p95"] = lambda _now: 0.5 if world.detector.value() == 10 else 0.9
    await world.fire(ALERT)
    run = await world.ended()
    assert (run.state, run.verdict) == (RunState.ROLLED_BACK, Verdict.WORSE)
    released = [s.args["knob"] for s in world.detector.applied("release")]
    assert released == ["max_concurrency", "batch_size"]
    assert world.changes(still_held=True) == []
    assert len(world.paged()) == 1


async def test_a_retune_that_changed_nothing_keeps_its_lease_and_fails(world: World) -> None:
    world.serve(a_retune({"batch_size": 4}, guards=COOL))
    world.metrics.answers["p95"] = 0.5
    await world.fire(ALERT)
    run = await world.ended()
    assert (run.state, run.verdict) == (RunState.FAILED, Verdict.UNCHANGED)
    assert world.change()["state"] == "held"


async def test_a_retune_renews_every_knob_also_when_a_retry_lay_between_them(
    world: World,
) -> None:
    world.serve(a_retune({"batch_size": 4, "max_concurrency": 5}, guards=COOL))
    world.metrics.answers["p95"] = lambda _now: 0.1 if world.detector.value() == 5 else 0.4
    await world.fire(ALERT)
    await world.until(lambda: world.changes() != [])
    await world.ended()
    await world.settle(1500)
    assert (world.detector.value("batch_size"), world.detector.value()) == (4, 5)
