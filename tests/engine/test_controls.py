"""Controls: pause by pool and action, stop, the kill switch, hands off, pins; with the intent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from remediator.engine import stopping
from remediator.model.decision import Reason
from remediator.model.playbook import Mode
from remediator.model.run import Phase, RunState, StepStatus
from remediator.store import controls, overrides
from remediator.store.controls import Kind
from remediator.store.database import Database, Tx
from remediator.store.overrides import Ruling
from tests.builders import GPU1, GPU2, a_restart, a_retune, a_throttle, an_alert
from tests.fakes import Outcome
from tests.journals import Interrupted
from tests.world import World

# Each tells a long story; together they are a proof and no quick look.
pytestmark = pytest.mark.slow

SLOW, DOWN = an_alert("Slow"), an_alert("Down")
COOL = [{"cooldown": "1h"}]
ON_DOWN = {"alerts": ['alertname="Down"']}
HOUR = timedelta(hours=1)


async def throttling(world: World, **parts: Any) -> None:
    """Bring a throttle to where it waits for its first proof."""
    world.serve(a_throttle(**{"guards": COOL, **parts}))
    world.metrics.answers["p95"] = 0.5
    await world.fire(SLOW)
    await world.settle(1)
    assert world.detector.value() == 5


async def held(world: World) -> None:
    """Leave a ceiling held after its run."""
    await throttling(world)
    world.metrics.answers["p95"] = 0.2
    await world.ended()
    assert world.change()["state"] == "held"


async def kill(world: World) -> stopping.Stopped:
    return await world.db.write(stopping.kill, by="ann", reason="enough")


async def stop(world: World, scope: str = "all", name: str = "") -> stopping.Stopped:
    return await world.db.write(
        stopping.stop_scope, scope=scope, name=name, by="ann", reason="enough"
    )


async def unkill(world: World) -> None:
    def body(tx: Tx) -> int:
        return controls.lift(tx, controls.in_force(tx, Kind.KILL), by="ann")

    assert await world.db.write(body) == 1


async def hands_off(world: World, scope: str = "target", name: str = GPU1) -> None:
    await world.db.write(
        overrides.add,
        scope=scope,
        name=name,
        decision=Ruling.HANDS_OFF,
        guards=(),
        reason="mine",
        by="ann",
        until=world.clock() + HOUR,
    )


async def pin(world: World, knob: str = "max_concurrency") -> None:
    await world.db.write(
        overrides.pin, target=GPU1, knob=knob, reason="measured by hand", by="ann", until=None
    )


# -- pause -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scope", "name", "acts"),
    [
        ("pool", "detectors", False),
        ("pool", "others", True),
        ("pool", "", True),
        ("action", "throttle", False),
        ("action", "restart", True),
        ("target", GPU2, True),
    ],
)
async def test_a_pause_holds_exactly_its_scope(
    world: World, scope: str, name: str, *, acts: bool
) -> None:
    await world.pause(scope, name)
    world.serve(a_throttle(guards=COOL))
    world.metrics.answers["p95"] = 0.5
    await world.fire(SLOW)
    await world.settle(1)
    assert (world.detector.sent != []) is acts
    assert world.reasons() == ([Reason.ADMITTED] if acts else [Reason.PAUSED])


@pytest.mark.parametrize(("scope", "name"), [("pool", "detectors"), ("action", "throttle")])
async def test_a_run_that_acts_stops_at_its_next_step_when_its_scope_is_paused(
    world: World, scope: str, name: str
) -> None:
    await throttling(world)
    await world.pause(scope, name)
    run = await world.ended()
    assert run.reason.startswith(f"paused: {scope} {name} is paused by ann")
    assert len(world.detector.applied("set")) == 1
    assert world.change()["state"] == "held"


async def test_a_pause_never_loosens_what_is_held(world: World) -> None:
    await held(world)
    await world.pause(seconds=7200)
    await world.settle(7000)
    assert world.detector.value() == 5


async def test_a_restore_goes_on_while_paused_when_it_measures_healthy(world: World) -> None:
    await held(world)
    await world.pause(seconds=7200)
    await world.resolve(SLOW)
    world.metrics.answers["p95"] = 0.1
    await world.until(lambda: world.changes(still_held=True) == [])
    assert world.detector.value() == 10


# -- stop ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scope", "name"),
    [("all", ""), ("target", GPU1), ("pool", "detectors"), ("playbook", "throttle")],
)
async def test_a_stop_takes_back_what_an_open_run_did(world: World, scope: str, name: str) -> None:
    await throttling(world)
    stopped = await stop(world, scope, name)
    assert (stopped.runs, stopped.changes) == ((1,), ())
    await world.settle(1)
    assert world.run().state is RunState.ROLLED_BACK
    assert world.run().reason == "stopped by ann: enough"
    assert world.detector.value() == 10


async def test_a_stop_gives_back_at_once_what_is_held_whatever_is_measured(world: World) -> None:
    await held(world)
    world.metrics.answers["p95"] = 0.9
    stopped = await stop(world, "target", GPU1)
    assert stopped.changes == (world.change()["id"],)
    await world.settle(5)
    assert world.detector.value() == 10
    assert world.changes(still_held=True) == []


async def test_a_stop_of_another_scope_stops_nothing(world: World) -> None:
    await throttling(world)
    assert await stop(world, "target", GPU2) == stopping.Stopped(runs=(), changes=())
    assert await stop(world, "pool", "others") == stopping.Stopped(runs=(), changes=())


async def test_a_stop_goes_back_to_the_base_also_what_an_earlier_run_had_set(world: World) -> None:
    await held(world)
    world.serve(a_throttle(name="second", on=ON_DOWN, priority=30, guards=COOL))
    world.metrics.answers["p95"] = 0.5
    await world.fire(DOWN)
    await world.settle(1)
    assert world.detector.value() < 5
    await stop(world)
    await world.settle(60)
    assert world.detector.value() == 10
    assert world.changes(still_held=True) == []


async def test_a_stop_that_comes_as_the_run_succeeds_still_takes_it_back(world: World) -> None:
    db = Interrupted(world.url, clock=world.clock)
    world.controller("one", db=db)
    await throttling(world)
    world.metrics.answers["p95"] = 0.2
    db.before = "_close_done"
    db.then = lambda: Database.transact(
        db, stopping.stop_scope, scope="all", name="", by="ann", reason="enough"
    )
    run = await world.ended()
    assert run.state is RunState.ROLLED_BACK
    assert world.detector.value() == 10


async def test_no_pause_keeps_a_stop_from_taking_back(world: World) -> None:
    await throttling(world)
    await world.pause()
    await stop(world)
    await world.settle(1)
    assert world.detector.value() == 10


# -- the kill switch -------------------------------------------------------------------------------


async def test_the_kill_switch_stops_takes_back_and_lets_nothing_begin(world: World) -> None:
    await throttling(world, guards=[])
    await kill(world)
    await world.settle(120)
    assert world.run().state is RunState.ROLLED_BACK
    assert world.detector.value() == 10
    assert world.reasons()[-1] == Reason.KILLED
    assert len(world.detector.applied("set")) == 1


async def test_when_it_is_lifted_remediation_goes_on(world: World) -> None:
    await throttling(world, guards=[])
    await kill(world)
    await world.settle(30)
    await unkill(world)
    await world.settle(30)
    assert world.reasons()[-1] == Reason.ADMITTED
    assert world.detector.value() == 5


async def test_it_never_traps_a_drain(world: World) -> None:
    world.serve(a_restart(guards=COOL))
    world.metrics.answers.update(up=0, alive=0)
    world.detector.inflight = 2
    await world.fire(DOWN)
    await world.settle(2)
    assert world.detector.draining
    await kill(world)
    await world.settle(2)
    assert not world.detector.draining


async def test_a_call_in_flight_is_recorded_when_the_switch_is_pulled(world: World) -> None:
    db = Interrupted(world.url, clock=world.clock)
    world.controller("one", db=db)
    db.before = "_confirm"
    db.then = lambda: Database.transact(db, stopping.kill, by="ann", reason="enough")
    world.serve(a_throttle(guards=COOL))
    world.metrics.answers["p95"] = 0.5
    await world.fire(SLOW)
    run = await world.ended()
    assert run.state is RunState.ROLLED_BACK
    assert world.steps()[0].status is StepStatus.OK
    assert world.detector.value() == 10


async def test_pulled_twice_it_is_one_switch(world: World) -> None:
    await kill(world)
    await kill(world)
    assert len(await world.db.read(controls.in_force, Kind.KILL)) == 1


async def test_a_rollback_that_fails_under_the_kill_switch_reaches_a_person(world: World) -> None:
    await throttling(world)
    world.detector.script("release", Outcome.PERMANENT)
    await kill(world)
    run = await world.ended()
    assert run.state is RunState.ROLLBACK_FAILED
    assert world.paged() == ["throttle on gpu-1: rollback failed"]


# -- override and pin ------------------------------------------------------------------------------


async def test_hands_off_denies_and_stops_what_acts_but_leaves_what_is_held(world: World) -> None:
    await throttling(world, guards=[])
    await hands_off(world)
    run = await world.ended()
    assert run.reason == "override: ann said hands off: mine"
    assert world.change()["state"] == "held"
    await world.settle(30)
    assert world.reasons()[-1] == Reason.OVERRIDE
    assert len(world.detector.applied("set")) == 1


async def test_hands_off_of_another_target_says_nothing_here(world: World) -> None:
    await hands_off(world, name=GPU2)
    await throttling(world)
    assert world.reasons() == [Reason.ADMITTED]
    assert len(world.detector.applied("set")) == 1


async def test_a_pinned_knob_is_not_moved_and_the_denial_says_by_whom(world: World) -> None:
    await pin(world)
    world.serve(a_throttle(guards=COOL))
    world.metrics.answers["p95"] = 0.5
    await world.fire(SLOW)
    await world.settle(1)
    assert world.reasons() == [Reason.PINNED]
    assert "ann" in world.decisions()[0]["detail"]


async def test_a_pin_takes_over_what_is_held_without_touching_the_target(world: World) -> None:
    await held(world)
    sent = len(world.detector.sent)
    await pin(world)
    await world.settle(600)
    assert world.change()["state"] == "yielded"
    assert len(world.detector.sent) == sent


async def test_a_pin_in_mid_run_stops_the_next_move_of_that_knob(world: World) -> None:
    await throttling(world)
    await pin(world)
    run = await world.ended()
    assert run.reason == "pinned: max_concurrency is pinned by ann: measured by hand"
    assert len(world.detector.applied("set")) == 1


async def test_a_pin_of_one_knob_leaves_the_others_alone(world: World) -> None:
    await pin(world)
    world.serve(a_retune({"batch_size": 4}, guards=COOL))
    world.metrics.answers["p95"] = 0.1
    await world.fire(SLOW)
    await world.ended()
    assert world.detector.value("batch_size") == 4


async def test_a_pin_ends_a_restore_of_that_knob(world: World) -> None:
    await held(world)
    await world.resolve(SLOW)
    world.metrics.answers["p95"] = 0.1
    await world.until(lambda: world.detector.value() == 6)
    await pin(world)
    await world.settle(600)
    assert world.detector.value() == 6
    assert not any(run.state.is_open for run in world.runs())


# -- modes -----------------------------------------------------------------------------------------


async def test_a_mode_cap_makes_it_ask_and_the_newest_word_counts(world: World) -> None:
    async def cap(mode: Mode) -> None:
        await world.db.write(
            overrides.cap_mode,
            scope="pool",
            name="detectors",
            mode=mode,
            by="ann",
            reason="new model",
            until=None,
        )

    await cap(Mode.OBSERVE)
    await cap(Mode.PROPOSE)
    world.serve(a_throttle(guards=COOL))
    world.metrics.answers["p95"] = 0.5
    await world.fire(SLOW)
    await world.settle(1)
    assert (world.run().mode, world.detector.sent) == (Mode.PROPOSE, [])


# -- with the intent -------------------------------------------------------------------------------


SET: list[Callable[[World], Awaitable[Any]]] = [
    lambda world: world.pause(),
    lambda world: world.pause("pool", "detectors"),
    lambda world: world.pause("action", "throttle"),
    kill,
    hands_off,
    pin,
]


@pytest.mark.parametrize("control", SET, ids=["all", "pool", "action", "kill", "hands off", "pin"])
@pytest.mark.parametrize(
    "after", [40, *(pytest.param(at, marks=pytest.mark.slow) for at in (0, 80, 120, 160, 200))]
)
async def test_once_it_is_set_no_process_commits_a_further_forward_intent(
    world: World, control: Callable[[World], Awaitable[Any]], after: int
) -> None:
    world.controller("one")
    world.controller("two")
    world.serve(a_throttle(guards=[], step={"verify": None}), a_restart(guards=[], priority=10))
    world.metrics.answers.update(p95=0.5, alive=0)
    await world.fire(SLOW, an_alert("Slow", GPU2))
    await world.settle(after)
    before = await _forward(world)
    await control(world)
    await world.settle(300)
    concerned = {GPU1} if control in {hands_off, pin} else {GPU1, GPU2}
    later = [one for one in await _forward(world) if one not in before and one[0] in concerned]
    assert later == []


async def _forward(world: World) -> list[tuple[str, int]]:
    return [
        (run.target, step.id)
        for run in world.runs()
        for step in world.steps(run)
        if step.phase is Phase.FORWARD and run.kind == "remedy"
    ]
