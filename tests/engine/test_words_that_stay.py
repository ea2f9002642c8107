"""What people said outlives what came after it; what keeps happening is said once."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from remediator.engine import stopping
from remediator.model.decision import Reason
from remediator.model.playbook import Mode
from remediator.model.run import Decided
from remediator.store import controls, overrides
from remediator.store.controls import Kind
from remediator.store.tables import controls as table
from tests.builders import GPU1, GPU2, INSTANCE, a_retune, a_throttle, an_alert
from tests.world import World

# Each tells a long story; together they are a proof and no quick look.
pytestmark = pytest.mark.slow

ASK = {"mode": "propose", "approval": {"within": "30s"}}


def asking(**changed: Any) -> dict[str, Any]:
    """Return a playbook that asks for half a minute before it does anything."""
    return a_retune({"batch_size": 4}, **{**ASK, **changed})


async def test_a_no_is_remembered_when_everything_is_stopped_after_it(world: World) -> None:
    world.serve(asking(approval={"within": "30m"}))
    await world.fire(an_alert())
    await world.settle(1)
    assert await world.decide(world.run(), Decided.REJECTED)
    await world.db.write(stopping.stop_scope, scope="all", name="", by="ann", reason="enough")
    await world.settle(300)
    assert world.reasons()[-1] == Reason.OVERRIDE
    assert len(world.runs()) == 1


async def test_a_no_that_led_to_another_step_is_no_refusal_of_the_playbook(world: World) -> None:
    steps = [
        {"approve": {"message": "now?", "on_reject": "later"}},
        {"retune": {"set": {"batch_size": 2}}},
        {"notify": {"message": "not now"}, "name": "later"},
    ]
    world.serve(asking(mode="auto", steps=steps))
    await world.fire(an_alert())
    await world.settle(1)
    assert await world.decide(world.run(), Decided.REJECTED)
    await world.settle(60)
    assert Reason.OVERRIDE not in world.reasons()


@pytest.mark.parametrize("then", ["escalate", "stop"])
async def test_what_nobody_answers_is_asked_once_an_episode_and_hold(
    world: World, then: str
) -> None:
    world.serve(asking(approval={"within": "30s", "on_timeout": then}))
    await world.fire(an_alert())
    await world.settle(600)
    assert len(world.runs()) == 1
    denied = world.decisions()[-1]
    assert denied["reason"] == Reason.COOLDOWN
    assert "nobody answered run R1" in denied["detail"]
    world.clock.advance(world.pace.max_hold.total_seconds())
    await world.settle(1)
    assert len(world.runs()) == 2


async def test_another_episode_is_another_question(world: World) -> None:
    world.serve(asking())
    await world.fire(an_alert())
    await world.settle(60)
    await world.resolve(an_alert())
    world.clock.advance(600)
    await world.fire(an_alert())
    await world.settle(1)
    assert len(world.runs()) == 2


async def test_a_demotion_leaves_the_more_careful_cap_that_a_person_set(world: World) -> None:
    world.serve(a_retune({"batch_size": 4}, guards=[{"breaker": {"failures": 1, "reset": "3m"}}]))
    world.metrics.answers["p95"] = 0.5
    await world.fire(an_alert())
    await world.until(lambda: len(world.runs()) == 2)
    for scope, name in (("playbook", "retune"), ("target", GPU1)):
        await world.db.write(
            overrides.cap_mode,
            scope=scope,
            name=name,
            mode=Mode.OBSERVE,
            by="ann",
            reason="no more",
            until=None,
        )
    await world.until(lambda: any("may only propose" in row["title"] for row in world.messages()))
    caps = await world.db.read(overrides.mode_caps, playbook="retune", target=GPU1)
    assert [(one.by, one.mode) for one in caps] == [
        ("ann", Mode.OBSERVE),
        ("ann", Mode.OBSERVE),
        ("breaker", Mode.PROPOSE),
    ]


async def test_a_denial_names_the_control_it_rests_on(world: World) -> None:
    world.serve(a_throttle())
    world.metrics.answers["p95"] = 0.5
    await world.pause("target", GPU1)
    await world.fire(an_alert())
    await world.settle(1)
    (pause,) = await world.db.read(controls.in_force, Kind.PAUSE)
    assert pause.until is not None
    assert world.decisions()[-1]["evidence"] == {
        "control": pause.id,
        "scope": "target",
        "name": GPU1,
        "by": "ann",
        "until": pause.until.isoformat(),
    }
    await world.db.write(stopping.pull, by="ben", reason="fire")
    await world.settle(20)
    killed = world.decisions()[-1]
    assert (killed["reason"], killed["evidence"]["by"]) == (Reason.KILLED, "ben")


async def test_reasons_that_come_and_go_leave_a_few_rows(world: World) -> None:
    world.serve(a_throttle())
    start = world.clock()
    world.metrics.answers["p95"] = lambda at: 0.1 if (at - start).seconds // 15 % 2 else None
    await world.fire(an_alert())
    for _ in range(100):
        world.clock.advance(15)
        await world.tick()
    found = world.decisions()
    assert len(found) == 4
    assert sum(row["count"] for row in found) >= 100


async def test_lifted_controls_are_forgotten_with_everything_else(world: World) -> None:
    for _ in range(3):
        await world.db.write(overrides.pin, target=GPU1, knob="k", reason="x", by="ann", until=None)
    await world.db.write(
        overrides.reset_breaker, playbook="p", target_class="c", by="ann", reason="x"
    )
    world.clock.advance((world.pace.retention + timedelta(days=1)).total_seconds())
    await world.controller().reconciler.forget()
    left = world._rows(table.select())
    assert [row["kind"] for row in left] == ["pin"]


@pytest.mark.parametrize("others", [{GPU2: float("nan")}, {}])
async def test_what_gives_no_number_is_not_healthy(world: World, others: dict[str, float]) -> None:
    well = {INSTANCE[GPU1]: 1.0, **{INSTANCE[name]: value for name, value in others.items()}}
    world.metrics.vectors["well"] = well
    world.serve(
        a_retune({"batch_size": 4}, guards=[{"healthy_others": {"at_least": 1, "healthy": "well"}}])
    )
    await world.fire(an_alert())
    await world.settle(1)
    assert world.reasons() == [Reason.CAPACITY]


async def test_a_target_whose_own_health_is_no_number_is_not_taken_for_down(world: World) -> None:
    world.metrics.vectors["well"] = {INSTANCE[GPU1]: float("nan"), INSTANCE[GPU2]: 0.0}
    world.serve(
        a_retune({"batch_size": 4}, guards=[{"healthy_others": {"at_least": 1, "healthy": "well"}}])
    )
    await world.fire(an_alert())
    await world.settle(1)
    assert world.reasons() == [Reason.CAPACITY]
