"""http, command and clear_cache: one call, its outcome, its proof, and how it is taken back."""

from __future__ import annotations

from typing import Any

import pytest

from remediator.model.run import RunState
from remediator.model.verdict import Verdict
from tests.builders import a_playbook, an_alert
from tests.fakes import FakeActuator, Outcome
from tests.world import World

pytestmark = pytest.mark.slow

ONE_VERIFY = {"query": "p95", "below": 0.25, "within": "2m", "for": "30s", "window": "0s"}
HTTP: dict[str, Any] = {
    "http": {"endpoint": "scaler", "path": "/up", "body": {"by": 1}},
    "undo": "none",
}
COMMAND: dict[str, Any] = {
    "command": {"run": "flush", "arguments": {"queue": "a b"}},
    "undo": "none",
}
TAKEN_BACK: dict[str, dict[str, Any]] = {
    "http": {"endpoint": "scaler", "method": "DELETE", "path": "/up"},
    "command": {"run": "fill", "arguments": {"queue": "a b"}},
}
KINDS = pytest.mark.parametrize("kind", ["http", "command"])


def a_step(kind: str, *, idempotent: bool = False, undo: bool = False, **more: Any) -> Any:
    step = dict(HTTP if kind == "http" else COMMAND)
    step[kind] = {**step[kind], "idempotent": idempotent}
    if undo:
        step["undo"] = TAKEN_BACK[kind]
    return {**step, **more}


def fake(world: World, kind: str) -> FakeActuator:
    return {"http": world.endpoints, "command": world.commands}.get(kind, world.detector)


def verb(kind: str) -> str:
    return {"http": "call", "command": "run"}.get(kind, kind)


async def begin(world: World, *steps: Any, **changed: Any) -> None:
    guards = [{"cooldown": "1h"}]
    world.serve(a_playbook(name="once", guards=guards, steps=list(steps), **changed))
    await world.fire(an_alert(starts_at=world.clock.now))


@KINDS
async def test_it_is_sent_once_with_its_key_and_its_fence(world: World, kind: str) -> None:
    await begin(world, a_step(kind))
    run = await world.ended()
    assert run.state is RunState.SUCCEEDED
    (sent,) = fake(world, kind).applied()
    assert sent.key.endswith(f"/forward/0/0/{kind}")
    assert sent.token > 0


async def test_http_sends_what_the_playbook_says_and_no_more(world: World) -> None:
    await begin(world, a_step("http"))
    await world.ended()
    (sent,) = world.endpoints.applied("call")
    assert sent.args == {"endpoint": "scaler", "method": "POST", "path": "/up", "body": {"by": 1}}


async def test_a_command_gets_its_arguments_by_name(world: World) -> None:
    await begin(world, a_step("command"))
    await world.ended()
    (sent,) = world.commands.applied("run")
    assert sent.args == {"run": "flush", "arguments": {"queue": "a b"}}


async def test_clearing_the_cache_is_proved_by_what_is_measured_after_it(world: World) -> None:
    world.metrics.answers["p95"] = lambda _now: 0.1 if world.detector.applied("clear_cache") else 1
    await begin(world, {"clear_cache": {}, "verify": ONE_VERIFY})
    run = await world.ended()
    assert (run.state, run.verdict) == (RunState.SUCCEEDED, Verdict.IMPROVED)
    (sent,) = world.detector.applied("clear_cache")
    assert sent.args["owner"] == "remediator"


@pytest.mark.parametrize("kind", ["http", "command", "clear_cache"])
async def test_what_did_not_help_goes_to_a_person(world: World, kind: str) -> None:
    world.metrics.answers["p95"] = 1
    step = a_step(kind) if kind != "clear_cache" else {"clear_cache": {}}
    await begin(world, {**step, "verify": ONE_VERIFY})
    run = await world.ended()
    assert (run.state, run.verdict) == (RunState.FAILED, Verdict.UNCHANGED)
    assert world.paged()
    assert len(fake(world, kind).applied(verb(kind))) == 1


@pytest.mark.parametrize("kind", ["http", "command", "clear_cache"])
async def test_what_was_not_sent_is_tried_again_as_often_as_the_step_allows(
    world: World, kind: str
) -> None:
    step = a_step(kind, retries=1) if kind != "clear_cache" else {"clear_cache": {}, "retries": 1}
    fake(world, kind).script(verb(kind), Outcome.TEMPORARY)
    await begin(world, step)
    run = await world.ended()
    assert run.state is RunState.SUCCEEDED
    assert world.calls() == [(kind, "not_sent"), (kind, "ok")]


@pytest.mark.parametrize("kind", ["http", "command", "clear_cache"])
async def test_a_refusal_ends_the_run_and_says_so(world: World, kind: str) -> None:
    step = a_step(kind) if kind != "clear_cache" else {"clear_cache": {}}
    fake(world, kind).script(verb(kind), Outcome.PERMANENT)
    await begin(world, step)
    run = await world.ended()
    assert run.state is RunState.FAILED
    assert "permanent" in run.reason
    assert world.calls() == [(kind, "failed")]
    assert world.paged()


@KINDS
@pytest.mark.parametrize("on_unknown", ["escalate", "probe"])
@pytest.mark.parametrize("outcome", [Outcome.UNKNOWN_APPLIED, Outcome.UNKNOWN_LOST])
async def test_what_nobody_can_say_of_is_never_sent_twice(
    world: World, kind: str, on_unknown: str, outcome: Outcome
) -> None:
    fake(world, kind).script(verb(kind), outcome)
    await begin(world, a_step(kind, on_unknown=on_unknown))
    run = await world.ended()
    assert run.state is RunState.FAILED
    assert len(fake(world, kind).tried(verb(kind))) == 1
    assert world.calls() == [(kind, "unknown")]
    assert world.paged()


@KINDS
async def test_an_idempotent_call_is_sent_again_under_the_same_key(world: World, kind: str) -> None:
    fake(world, kind).script(verb(kind), Outcome.UNKNOWN_LOST)
    await begin(world, a_step(kind, idempotent=True))
    run = await world.ended()
    assert run.state is RunState.SUCCEEDED
    assert len({sent.key for sent in fake(world, kind).tried(verb(kind))}) == 1
    assert world.calls() == [(kind, "unknown"), (kind, "ok")]


@KINDS
async def test_an_undo_is_left_alone_when_the_run_succeeds(world: World, kind: str) -> None:
    await begin(world, a_step(kind, undo=True))
    await world.ended()
    assert len(fake(world, kind).sent) == 1


@KINDS
async def test_an_undo_is_sent_when_the_step_made_things_worse(world: World, kind: str) -> None:
    world.metrics.answers["p95"] = lambda _now: 9 if fake(world, kind).sent else 1
    await begin(world, a_step(kind, undo=True, verify=ONE_VERIFY))
    run = await world.ended()
    assert (run.state, run.verdict) == (RunState.ROLLED_BACK, Verdict.WORSE)
    assert world.calls() == [(kind, "ok"), (f"undo:{kind}", "ok")]
    undone = fake(world, kind).applied()[-1]
    assert undone.args.items() >= TAKEN_BACK[kind].items()


@KINDS
async def test_an_undo_is_sent_when_a_person_cancels(world: World, kind: str) -> None:
    await begin(world, a_step(kind, undo=True), {"wait": "10m"})
    await world.settle(5)
    await world.cancel(world.run())
    run = await world.ended()
    assert run.state is RunState.ROLLED_BACK
    assert world.calls() == [(kind, "ok"), (f"undo:{kind}", "ok")]


@KINDS
async def test_an_undo_is_not_sent_when_a_later_step_merely_fails(world: World, kind: str) -> None:
    await begin(world, a_step(kind, undo=True), {"check": {"query": "never", "above": 0}})
    run = await world.ended()
    assert run.state is RunState.FAILED
    assert world.calls() == [(kind, "ok")]


@KINDS
async def test_an_undo_that_nobody_can_say_of_is_not_repeated_and_reaches_a_person(
    world: World, kind: str
) -> None:
    fake(world, kind).script(verb(kind), Outcome.OK, Outcome.UNKNOWN_LOST)
    await begin(world, a_step(kind, undo=True), {"wait": "10m"})
    await world.settle(5)
    await world.cancel(world.run())
    run = await world.ended()
    assert run.state is RunState.ROLLBACK_FAILED
    assert world.calls() == [(kind, "ok"), (f"undo:{kind}", "unknown")]
    assert any("rollback failed" in title for title in world.paged())


@KINDS
async def test_a_death_between_intent_and_outcome_is_an_unknown_outcome(
    world: World, kind: str
) -> None:
    world.dying("one", before="_confirm")
    world.controller("two")
    await begin(world, a_step(kind))
    run = await world.ended()
    assert run.state is RunState.FAILED
    assert len(fake(world, kind).applied()) == 1
    assert world.calls() == [(kind, "unknown")]


@KINDS
async def test_observing_sends_nothing(world: World, kind: str) -> None:
    await begin(world, a_step(kind, undo=True), {"clear_cache": {}}, mode="observe")
    run = await world.ended()
    assert run.state is RunState.SUCCEEDED
    assert fake(world, kind).sent == []
    assert world.detector.sent == []
    assert all(row.result and row.result["observed"] for row in world.steps())


async def test_the_step_that_is_taken_back_says_how_long_its_undo_may_take(world: World) -> None:
    seen: list[float] = []
    world.commands.witness = lambda call: seen.append(call.timeout_s)
    await begin(world, a_step("command", undo=True, timeout="4m"), {"wait": "10m"})
    await world.settle(5)
    await world.cancel(world.run())
    await world.ended()
    assert seen == [240.0, 240.0]
