"""diagnose: look, keep what was seen, change nothing; and never keep a remedy waiting."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic_core import to_json

from remediator.engine.diagnosis import MOST_BYTES, bounded
from remediator.errors import TemporaryError
from remediator.model.run import PROPOSAL, RunState
from remediator.store import diagnoses
from tests.builders import a_playbook, a_restart, an_alert
from tests.fakes import Outcome
from tests.world import World

HTTP = {"http": {"endpoint": "scaler"}, "undo": "none"}


def looks(world: World) -> dict[int, dict[str, Any]]:
    found = world.db.transact(diagnoses.of_run, world.run().id, writing=False)
    return {row["pc"]: row["seen"] for row in found}


async def begin(world: World, *steps: Any, **changed: Any) -> None:
    guards = [{"cooldown": "1h"}]
    world.serve(a_playbook(name="look", guards=guards, steps=list(steps), **changed))
    await world.fire(an_alert(starts_at=world.clock.now))


async def test_a_step_keeps_roles_queries_and_the_end_of_the_log(world: World) -> None:
    world.log.lines.extend(["one", "two", "CUDA out of memory"])
    world.metrics.answers["depth"] = 7
    step = {"diagnose": {"queries": {"depth": "depth", "lost": "nothing"}, "log_lines": 2}}
    await begin(world, step)
    run = await world.ended()
    assert run.state is RunState.SUCCEEDED
    assert world.steps() == ()
    seen = looks(world)[0]
    assert seen["settings"]["settings"]["values"]["max_concurrency"] == 10
    assert seen["process"]["pid"] == 100
    assert seen["process shows"] == {"stderr": ["two", "CUDA out of memory"]}
    assert seen["query depth"] == {"query": "depth", "value": 7.0, "said": "7"}
    assert seen["query lost"]["said"] == "no data"


@pytest.mark.slow
async def test_what_cannot_be_seen_is_kept_as_words_and_fails_nothing(world: World) -> None:
    world.detector.reachable = world.process.reachable = False
    world.log.error = ZeroDivisionError("a bug in the adapter")
    await begin(world, {"diagnose": {}})
    run = await world.ended()
    assert run.state is RunState.SUCCEEDED
    seen = looks(world)[0]
    assert "does not answer" in seen["settings"]["error"]
    assert seen["process shows"] == {"error": "a bug in the adapter"}


async def test_every_run_looks_once_before_its_first_effect(world: World) -> None:
    world.endpoints.script("call", Outcome.TEMPORARY)
    await begin(world, HTTP, HTTP)
    await world.ended()
    seen = looks(world)
    assert set(seen) == {PROPOSAL}
    assert {"settings", "process", "process shows"} <= set(seen[PROPOSAL])
    first = world.steps()[0]
    assert world.db.transact(diagnoses.of_run, first.run_id, writing=False)[0]["at"] <= (
        first.started_at
    )


async def test_a_run_that_changes_nothing_needs_no_look(world: World) -> None:
    await begin(world, {"notify": {"message": "hello"}})
    await world.ended()
    assert looks(world) == {}


async def test_a_restart_keeps_what_the_dead_process_said_last(world: World) -> None:
    world.log.lines.append("Killed")
    world.process.hung = True
    world.metrics.answers["alive"] = 1
    world.serve(a_restart(guards=[{"cooldown": "1h"}]))
    await world.fire(an_alert("Down", starts_at=world.clock.now))
    await world.ended()
    assert looks(world)[PROPOSAL]["process shows"] == {"stderr": ["Killed"]}
    assert "error" in looks(world)[PROPOSAL]["settings"]


@pytest.mark.parametrize("after_commit", [False, True])
async def test_a_death_while_looking_costs_nothing_but_time(
    world: World, *, after_commit: bool
) -> None:
    world.dying("one", before="keep", after_commit=after_commit)
    world.controller("two")
    await begin(world, HTTP, {"diagnose": {}})
    run = await world.ended()
    assert run.state is RunState.SUCCEEDED
    assert set(looks(world)) == {PROPOSAL, 1}
    assert len(world.endpoints.applied()) == 1


async def test_what_does_not_answer_in_time_is_left_out(world: World) -> None:
    world.log.hangs = True
    await begin(world, {"diagnose": {}, "timeout": "20ms"})
    await world.ended()
    seen = looks(world)[0]
    assert seen["process shows"] == {"error": "no answer within 0.02s"}
    assert seen["process"]["pid"] == 100


@pytest.mark.parametrize(
    "seen",
    [
        {"log": ["x" * 200] * 5000},
        {f"query {n}": {"said": "y" * 5000} for n in range(100)},
        {f"query {n}": {"said": "y" * 600} for n in range(2000)},
        {"quotes": '"\\' * 100_000},
        {"deep": [[[["z"] * 50_000]]]},
    ],
)
def test_what_is_kept_is_bounded_whatever_was_seen(seen: dict[str, Any]) -> None:
    assert len(to_json(bounded(seen))) <= MOST_BYTES


def test_what_fits_is_kept_as_it_is_and_what_is_too_long_keeps_its_end() -> None:
    seen = bounded({"small": {"a": 1}, "log": ["first", *["x" * 100] * 1000, "last"]})
    assert seen["small"] == {"a": 1}
    assert seen["log"]["cut"].endswith('"last"]')
    assert bounded({"a": float("nan"), "b": {TemporaryError: 1}.keys()})["a"] is None
