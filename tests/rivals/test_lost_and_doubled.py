"""What other controllers lose or do twice: each test is a complaint of their users, as a promise.

Runs that hang for ever when their process dies, alerts that vanish between a queue and a crash,
re-sends that start a second run, a stuck row that blocks all others.
"""

from __future__ import annotations

import asyncio

import pytest

from remediator.engine import intake
from remediator.errors import StoreUnavailableError
from remediator.model.decision import Reason
from remediator.model.run import RunState, StepStatus
from tests.builders import GPU1, GPU2, a_playbook, a_restart, a_throttle, an_alert
from tests.fakes import Outcome
from tests.journals import DeathPlan, DyingDatabase
from tests.world import World

# Each tells a long story; together they are a proof and no quick look.
pytestmark = pytest.mark.slow

HOUR = 3600.0


def slow(world: World) -> None:
    """Serve the throttle playbook and let every target be slow until it is throttled."""
    world.serve(a_throttle())
    world.metrics.answers["p95"] = lambda _now: 0.06 * world.detector.value()


def dead(world: World) -> None:
    """Serve the restart playbook and let the first target be down until it is started anew."""
    world.serve(a_restart())
    first = world.process.pid
    for query in ("up", "alive"):
        world.metrics.answers[query] = lambda _now: int(world.process.pid != first)


# -- runs stuck in "running" -------------------------------------------------------------------


@pytest.mark.parametrize("body", ["begin", "_confirm", "measure", "_close_done"])
async def test_a_run_whose_process_died_ends_in_the_next_process_and_frees_its_target(
    world: World, body: str
) -> None:
    slow(world)
    world.dying("first", before=body)
    await world.fire(an_alert())
    await world.settle(60)
    assert world.run().state.is_open
    world.controller("second")
    run = await world.ended()
    assert run.state is RunState.SUCCEEDED
    assert not run.holds_slot
    assert world.detector.value() == 4


async def test_a_run_that_waits_for_something_that_never_comes_gives_up_and_says_so(
    world: World,
) -> None:
    dead(world)
    world.detector.warm_after = None
    await world.fire(an_alert("Down"))
    await world.tick()
    await world.until(lambda: not world.run().state.is_open, within=HOUR)
    assert world.run().state is not RunState.SUCCEEDED
    assert "not ready in time" in world.run().reason
    assert world.paged() != []


async def test_a_run_that_keeps_breaking_us_is_given_up_and_its_target_is_free(
    world: World,
) -> None:
    slow(world)
    world.detector.script("set", *[Outcome.CRASH] * 50)
    await world.fire(an_alert())
    await world.tick()
    await world.until(lambda: not world.run().state.is_open, within=HOUR)
    assert not world.run().holds_slot
    assert {row.status for row in world.steps()} == {StepStatus.UNKNOWN}
    assert world.paged() != []


# -- lost --------------------------------------------------------------------------------------


async def test_a_webhook_that_could_not_be_stored_is_refused_and_its_resend_is_not_a_repeat(
    world: World,
) -> None:
    slow(world)
    broken = DyingDatabase(
        world.url, clock=world.clock, plan=DeathPlan(at=1, after_commit=False, body="_accept")
    )
    delivery = intake.Delivery(
        body=b"{}", receiver="remediator", group_key="g", truncated=0, alerts=(an_alert(),)
    )
    with pytest.raises(StoreUnavailableError):
        await intake.accept(broken, delivery, world.pace)
    broken.close()
    await world.settle(30)
    assert world.runs() == []
    # What remembers the webhook is written with it or not at all.
    await intake.accept(world.db, delivery, world.pace)
    run = await world.ended()
    assert run.state is RunState.SUCCEEDED


async def test_one_alert_that_nobody_can_decide_about_holds_up_none_of_the_hundred_behind_it(
    crowd: World,
) -> None:
    stuck = a_playbook(
        name="stuck",
        on={"alerts": ['alertname="Stuck"']},
        guards=[{"require": {"query": "bug", "above": 0}}],
    )
    crowd.serve(stuck, a_playbook())

    def breaks(_now: object) -> float:
        raise ZeroDivisionError

    crowd.metrics.answers["bug"] = breaks
    await crowd.fire(an_alert("Stuck"))
    others = [an_alert("Slow", crowd.targets[n % 12], number=str(n)) for n in range(100)]
    await crowd.fire(*others)
    await crowd.settle(2)
    decided = {row["alert_id"] for row in crowd.decisions()}
    assert len(decided) == 100


async def test_a_run_that_cannot_be_driven_holds_up_no_other_target(world: World) -> None:
    slow(world)
    world.detectors[GPU1].script("set", *[Outcome.CRASH] * 50)
    await world.fire(an_alert(target=GPU1))
    await world.fire(an_alert(target=GPU2))
    await world.settle(1)
    (sent,) = world.detectors[GPU2].applied("set")
    assert sent.at <= world.clock()


# -- done twice --------------------------------------------------------------------------------


async def test_a_receiver_so_slow_that_the_webhook_is_sent_five_times_starts_one_run(
    world: World,
) -> None:
    dead(world)
    world.controller("one")
    world.controller("two")
    alert = an_alert("Down", starts_at=world.clock())
    await asyncio.gather(*(world.fire(alert) for _ in range(5)))
    await asyncio.gather(*(one.tick() for one in world.controllers))
    await world.settle(300)
    assert len(world.runs()) == 1
    assert len(world.process.applied("stop")) == len(world.process.applied("start")) == 1


async def test_two_alertmanagers_that_both_send_start_one_run(world: World) -> None:
    dead(world)
    alert = an_alert("Down", starts_at=world.clock())
    for peer in ("a", "b"):
        await intake.accept(
            world.db,
            intake.Delivery(
                body=peer.encode(),
                receiver="remediator",
                group_key=f"group of {peer}",
                truncated=0,
                alerts=(alert,),
            ),
            world.pace,
        )
        await world.settle(2)
    await world.settle(300)
    assert len(world.runs()) == 1
    assert len(world.process.applied("stop")) == 1


async def test_a_restart_of_prometheus_that_fires_everything_anew_restarts_nothing_twice(
    world: World,
) -> None:
    dead(world)
    alert = an_alert("Down", starts_at=world.clock())
    await world.fire(alert)
    await world.settle(2)
    await world.resolve(alert)
    await world.fire(an_alert("Down", starts_at=world.clock()))
    await world.settle(300)
    assert len(world.process.applied("stop")) == 1


async def test_a_call_without_an_answer_that_cannot_be_repeated_is_not_repeated(
    world: World,
) -> None:
    dead(world)
    world.process.script("stop", Outcome.UNKNOWN_APPLIED)
    await world.fire(an_alert("Down"))
    await world.settle(300)
    assert len(world.process.tried("stop")) == 1
    assert world.process.running, "what was stopped must not stay stopped"
    assert world.paged() != []


async def test_two_controllers_that_decide_at_the_same_moment_open_one_run(
    world: World,
) -> None:
    slow(world)
    world.controller("one")
    world.controller("two")
    await world.fire(an_alert())
    await asyncio.gather(*(one.reconciler.dispatch() for one in world.controllers))
    assert len(world.runs()) == 1


# -- groups of alerts --------------------------------------------------------------------------


async def test_every_alert_of_a_group_is_looked_at_and_not_only_the_first(crowd: World) -> None:
    crowd.serve(a_playbook(), a_playbook(name="hot", on={"alerts": ['alertname="Hot"']}))
    over = an_alert("Slow", "gpu-4", starts_at=crowd.clock())
    await crowd.fire(over)
    await crowd.settle(1)
    opened = len(crowd.runs())
    await crowd.fire(
        an_alert("Nobody knows it", "gpu-1"),
        an_alert("Slow", "gpu-2", starts_at=crowd.clock()),
        an_alert("Hot", "gpu-3", starts_at=crowd.clock()),
        an_alert("Slow", "gpu-4", firing=False, ends_at=crowd.clock()),
    )
    await crowd.settle(1)
    assert {(run.playbook, run.target) for run in crowd.runs()[opened:]} == {
        ("tell", "gpu-2"),
        ("hot", "gpu-3"),
    }
    assert crowd.reasons().count(Reason.NO_PLAYBOOK) == 1


async def test_many_alerts_about_one_target_are_one_run_and_the_others_are_seen_to_wait(
    world: World,
) -> None:
    slow(world)
    await world.fire(*(an_alert(core=str(number)) for number in range(8)))
    await world.settle(1)
    assert len(world.runs()) == 1
    assert sorted(world.reasons()) == [Reason.ADMITTED, *[Reason.BUSY] * 7]
