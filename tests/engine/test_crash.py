"""The process dies at every boundary of the journal, and another one takes over.

Each scenario is played once for each transaction that writes anything: dying just before it commits
and, where it writes an intent, just after. The call to the target that lies between two
transactions has then happened, or not.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from remediator.model.pace import Pace
from remediator.model.run import RunKind, RunState
from tests.builders import a_restart, a_throttle, an_alert
from tests.fakes import Outcome
from tests.journals import DeathPlan, DyingDatabase
from tests.world import World, a_world

pytestmark = pytest.mark.slow

QUICK = Pace(
    scrape=timedelta(seconds=1),
    evaluation=timedelta(seconds=1),
    hold_down=timedelta(seconds=1),
    lease=timedelta(seconds=30),
)
PROOF = {"below": 0.25, "within": "60s", "for": "2s", "every": "1s", "window": "0s"}
ALERT = an_alert()
COOL = [{"cooldown": "10h"}]
# More than any scenario has; reaching it means that a scenario does not end.
FAR_TOO_MANY = 200


def quick_throttle(**knobs: Any) -> dict[str, Any]:
    return a_throttle(
        guards=COOL,
        knobs={"window": "0s", **knobs},
        step={"verify": {"query": "p95", **PROOF}},
        on_resolve={"restore": {"every": "2s", "hold": "2s", "step": 2}},
    )


@dataclass(frozen=True)
class Scenario:
    """A story: what is served and fired, before and after the process that dies has started."""

    before: Callable[[World], Awaitable[None]]
    begin: Callable[[World], Awaitable[None]]
    check: Callable[[World], None]


async def nothing(_world: World) -> None:
    """Do nothing."""


# -- throttle --------------------------------------------------------------------------------------


async def slow(world: World) -> None:
    world.serve(quick_throttle())
    world.metrics.answers["p95"] = lambda _now: 0.06 * world.detector.value()
    await world.fire(ALERT)


def throttled(world: World) -> None:
    assert world.run().state is RunState.SUCCEEDED, world.run().reason
    change = world.change()
    assert (change["base"], change["value"], change["closed_at"]) == (10, 4, None)
    assert world.detector.value() == 4
    values = [s.args["values"]["max_concurrency"] for s in run_sends(world, "set")]
    assert values == [5, 4]


# -- rollback --------------------------------------------------------------------------------------


async def harmful(world: World) -> None:
    world.serve(quick_throttle(throughput="useful"))
    world.metrics.answers["p95"] = lambda _now: 0.4 + 0.2 * (10 - world.detector.value())
    world.metrics.answers["useful"] = lambda _now: world.detector.value()
    await world.fire(ALERT)


def rolled_back(world: World) -> None:
    assert world.run().state is RunState.ROLLED_BACK, world.run().reason
    assert world.detector.value() == 10
    assert world.detector.leases == {}
    assert world.change()["state"] == "rolled_back"
    assert len(world.detector.applied("release")) == 1
    assert world.paged() == ["throttle on gpu-1: needs a person"]


# -- restore ---------------------------------------------------------------------------------------


async def held(world: World) -> None:
    await slow(world)
    healthy = world.controller("healthy")
    await world.ended()
    world.controllers.remove(healthy)
    healthy.db.close()


async def over(world: World) -> None:
    world.metrics.answers["p95"] = 0.1
    await world.resolve(ALERT)


def restored(world: World) -> None:
    assert world.change()["state"] == "restored"
    assert world.detector.value() == 10
    assert world.detector.leases == {}
    values = [s.args["values"]["max_concurrency"] for s in run_sends(world, "set")]
    assert values == [5, 4, 6, 8]
    assert len(world.detector.applied("release")) == 1


# -- restart ---------------------------------------------------------------------------------------


async def down(world: World, on_unknown: str = "escalate") -> None:
    verify = {"query": "alive", **PROOF, "above": 0}
    del verify["below"]
    world.serve(a_restart(guards=COOL, step={"verify": verify, "on_unknown": on_unknown}))
    world.metrics.answers["alive"] = lambda _now: int(world.process.responds)
    await world.fire(an_alert("Down", starts_at=world.clock.now))


async def down_with_probe(world: World) -> None:
    await down(world, "probe")


def restarted_once_or_told(world: World) -> None:
    ended_well(world)
    state = world.run().state
    assert state in {RunState.SUCCEEDED, RunState.ROLLED_BACK}, world.run().reason
    if state is RunState.ROLLED_BACK:
        assert world.paged() == ["restart on gpu-1: needs a person"]


def restarted_once(world: World) -> None:
    ended_well(world)
    assert world.run().state is RunState.SUCCEEDED, world.run().reason
    assert world.process.pid == 101


def ended_well(world: World) -> None:
    assert len(world.process.tried("stop")) <= 1
    assert len(world.process.applied("start")) >= len(world.process.applied("stop"))
    assert world.process.running
    assert not world.detector.draining
    assert world.process.pid in {100, 101}


async def stuck_start(world: World) -> None:
    world.process.script("start", Outcome.PERMANENT)
    await down_with_probe(world)


SCENARIOS = {
    "throttle": Scenario(nothing, slow, throttled),
    "rollback": Scenario(nothing, harmful, rolled_back),
    "restore": Scenario(held, over, restored),
    "restart": Scenario(nothing, down, restarted_once_or_told),
    "restart with a probe": Scenario(nothing, down_with_probe, restarted_once),
    "unwinding a restart": Scenario(nothing, stuck_start, ended_well),
}


def run_sends(world: World, verb: str) -> list[Any]:
    return [s for s in world.detector.applied(verb) if s.key.startswith("run-")]


def all_done(world: World) -> bool:
    every = world.runs()
    if not every or any(run.state.is_open for run in every):
        return False
    fires = any(row["state"] == "restoring" for row in world.changes(still_held=True))
    restoring = any(run.kind is RunKind.RESTORE for run in every)
    resolved = world.metrics.answers.get("p95") == 0.1
    return not fires and (restoring or not resolved)


async def play(folder: Path, scenario: Scenario, plan: DeathPlan) -> World:
    """Play a scenario with a process that dies as planned; another takes over if it did."""
    with a_world(folder, pace=QUICK) as world:
        await scenario.before(world)
        one = world.controller("one", db=DyingDatabase(world.url, clock=world.clock, plan=plan))
        await scenario.begin(world)
        await world.until(lambda: one.dead or all_done(world), within=300)
        if one.dead:
            world.controllers.remove(one)
            one.db.close()
            world.controller("two")
        await world.until(lambda: all_done(world), within=600)
        await world.settle(5)
        scenario.check(world)
        sound(world)
    return world


def sound(world: World) -> None:
    """Check what holds whatever happened."""
    for run in world.runs():
        assert all(row.status != "started" for row in world.steps(run)), world.story()
    assert world.decisions()[0]["reason"] == "admitted"
    assert sum(run.kind is RunKind.REMEDY for run in world.runs()) == 1
    keys = [m["key"] for m in world.messages()]
    assert len(set(keys)) == len(keys)


# A restart must never be sent twice, so its effects are in the fast tests; all takes a minute.
EVERY = [
    pytest.param(name, marks=() if name == "restart" else pytest.mark.real) for name in SCENARIOS
]


@pytest.mark.real
@pytest.mark.parametrize("name", SCENARIOS)
async def test_whenever_it_dies_the_story_ends_as_it_should_and_nothing_is_done_twice(
    tmp_path: Path, name: str
) -> None:
    n = await enumerate_deaths(tmp_path, name, lambda n: DeathPlan(at=n, after_commit=False))
    assert n > 10


@pytest.mark.parametrize("name", EVERY)
async def test_whenever_it_dies_between_intent_and_effect_the_story_ends_as_it_should(
    tmp_path: Path, name: str
) -> None:
    n = await enumerate_deaths(
        tmp_path, name, lambda n: DeathPlan(at=n, after_commit=True, body="begin")
    )
    assert n > 2


async def enumerate_deaths(folder: Path, name: str, plan_of: Callable[[int], DeathPlan]) -> int:
    """Play a scenario once for each boundary, until one play ends without a death."""
    for n in range(1, FAR_TOO_MANY):
        plan = plan_of(n)
        await play(folder / str(n), SCENARIOS[name], plan)
        if not plan.dead:
            return n
    raise AssertionError(f"{name} has no end")
