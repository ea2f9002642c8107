"""How far a playbook may go: the most careful word counts, and what asks is asked again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from remediator.model.decision import Reason
from remediator.model.playbook import Lane, Mode
from remediator.model.run import Decided, Run, RunState
from remediator.model.target import Inventory
from remediator.store import approvals, overrides, runs
from remediator.store.database import Tx
from tests.builders import GPU1, GPU2, a_restart, a_throttle, an_alert
from tests.world import World


def slow(world: World, **changed: Any) -> None:
    world.metrics.answers["p95"] = 0.4
    world.serve(a_throttle(**changed))


def configure(world: World, **caps: Mode) -> None:
    """Let the configuration allow no more than this, by target name with a dash for each _."""
    world.inventory = Inventory(
        replace(one, caps={f"targets.{one.name}.mode": caps[key]}) if key in caps else one
        for one in world.inventory
        for key in [one.name.replace("-", "_")]
    )


async def cap(world: World, scope: str, name: str, mode: Mode) -> None:
    await world.db.write(
        overrides.cap_mode, scope=scope, name=name, mode=mode, by="ann", reason="new", until=None
    )


def test_a_lane_is_shared_by_what_may_touch_targets() -> None:
    assert [mode.lane for mode in Mode] == [Lane.OBSERVE, Lane.REAL, Lane.REAL]
    assert Mode.AUTO.lane_modes == (Mode.PROPOSE, Mode.AUTO)
    assert Mode.AUTO.at_most(Mode.PROPOSE).at_most(Mode.OBSERVE) is Mode.OBSERVE


async def test_the_configuration_may_hold_a_target_to_a_more_careful_mode(world: World) -> None:
    configure(world, gpu_1=Mode.OBSERVE)
    slow(world)
    await world.fire(an_alert(), an_alert(target=GPU2))
    await world.settle(5)
    assert {run.target: run.mode for run in world.runs()} == {GPU1: Mode.OBSERVE, GPU2: Mode.AUTO}
    assert world.detector.sent == []
    said = world.decisions()[0]["evidence"]["mode"]
    assert said["is"] == Mode.OBSERVE
    assert said["because"] == ["targets.gpu-1.mode is observe in the configuration"]
    assert "mode" not in world.decisions()[1]["evidence"]


@pytest.mark.slow
async def test_no_cap_makes_a_playbook_bolder_than_it_says(world: World) -> None:
    configure(world, gpu_1=Mode.AUTO)
    slow(world, mode="observe")
    await cap(world, "target", GPU1, Mode.PROPOSE)
    await world.fire(an_alert())
    await world.settle(5)
    assert world.run().mode is Mode.OBSERVE
    assert "mode" not in world.decisions()[0]["evidence"]


@pytest.mark.parametrize(
    ("scope", "name"), [("playbook", "throttle"), ("target", GPU1), ("pool", "detectors")]
)
async def test_a_person_may_hold_a_scope_to_a_more_careful_mode_at_any_time(
    world: World, scope: str, name: str
) -> None:
    slow(world)
    await cap(world, scope, name, Mode.PROPOSE)
    await world.fire(an_alert())
    await world.settle(5)
    run = world.run()
    assert (run.mode, run.proposed, run.holds_slot) == (Mode.PROPOSE, True, False)
    assert "ann" in world.decisions()[0]["evidence"]["mode"]["because"][0]
    assert run.plan["mode"] == Mode.PROPOSE


# -- proposals -------------------------------------------------------------------------------------


async def proposed(world: World) -> Run:
    slow(world, mode="propose")
    await world.fire(an_alert())
    await world.settle(1)
    return world.run()


async def approve(world: World, run: Run) -> None:
    def body(tx: Tx) -> None:
        (asked,) = approvals.of_run(tx, run.id)
        approvals.decide(tx, asked.id, decision=Decided.APPROVED, by="ann", reason="")

    await world.db.write(body)


async def test_one_alert_has_one_proposal_while_it_is_open_and_while_it_acts(world: World) -> None:
    run = await proposed(world)
    await world.fire(an_alert())
    await world.settle(60)
    assert len(world.runs()) == 1
    await approve(world, run)
    await world.settle(30)
    assert world.run().mode is Mode.AUTO
    assert len(world.runs()) == 1


async def test_another_alert_of_the_same_target_does_not_ask_twice(world: World) -> None:
    run = await proposed(world)
    await world.fire(an_alert(severity="critical"))
    await world.settle()
    assert world.reasons() == [Reason.ADMITTED, Reason.BUSY]
    assert world.decisions()[1]["evidence"]["run"] == run.id


@pytest.mark.slow
async def test_a_proposal_keeps_nobody_from_acting(world: World) -> None:
    await proposed(world)
    world.metrics.answers |= {"up": 0, "alive": 1}
    world.serve(a_throttle(mode="propose"), a_restart(priority=10))
    await world.fire(an_alert("Down"))
    await world.settle(1)
    assert world.runs()[-1].playbook == "restart"
    assert world.runs()[-1].holds_slot


async def test_asking_about_a_target_stops_nobody_who_acts_on_it(world: World) -> None:
    world.metrics.answers |= {"up": 0, "alive": 0, "p95": 0.4}
    world.serve(a_restart(priority=10), a_throttle(mode="propose"))
    await world.fire(an_alert("Down"))
    await world.settle(5)
    await world.fire(an_alert())
    await world.settle(5)
    acting, asking = world.runs()
    assert (acting.playbook, acting.stop_reason) == ("restart", None)
    assert (asking.playbook, asking.mode) == ("throttle", Mode.PROPOSE)
    assert asking.state.is_open


async def test_who_is_approved_is_asked_again_whether_it_is_still_true(world: World) -> None:
    run = await proposed(world)
    world.metrics.answers["p95"] = 0.1
    await approve(world, run)
    await world.settle(1)
    assert world.run().state is RunState.CANCELLED
    assert world.reasons() == [Reason.ADMITTED, Reason.REQUIRE]
    assert world.decisions()[1]["evidence"]["value"] == 0.1
    assert world.detector.sent == []


async def test_who_is_approved_is_not_counted_against_itself(world: World) -> None:
    world.metrics.answers["p95"] = 0.4
    guards = [
        {"budget": {"runs": 1, "per": "1h"}},
        {"cooldown": "1h"},
        {"blast_radius": {"at_most": 1}},
        {"not_while": {"playbook": "throttle"}},
    ]
    world.serve(a_throttle(mode="propose", guards=guards))
    await world.fire(an_alert())
    await world.settle(1)
    await approve(world, world.run())
    await world.settle(1)
    assert world.run().holds_slot
    assert world.reasons() == [Reason.ADMITTED, Reason.ADMITTED]
    assert world.decisions()[1]["run_id"] == world.run().id


@pytest.mark.slow
async def test_who_is_approved_while_another_acts_waits_for_the_slot(world: World) -> None:
    run = await proposed(world)
    world.metrics.answers |= {"up": 0, "alive": 1}
    world.serve(a_throttle(mode="propose"), a_restart())
    down = an_alert("Down")
    await world.fire(down)
    await world.settle(1)
    await approve(world, run)
    await world.settle(1)
    assert world.reasons()[-1] == Reason.SUPERSEDED
    await world.resolve(down)
    await world.until(lambda: world.runs()[0].holds_slot)


@pytest.mark.slow
async def test_who_is_approved_makes_a_less_important_run_give_way(world: World) -> None:
    run = await proposed(world)
    world.metrics.answers |= {"up": 0, "alive": 0}
    world.serve(a_restart(priority=10))
    await world.fire(an_alert("Down"))
    await world.settle(1)
    await approve(world, run)
    await world.until(lambda: world.runs()[0].holds_slot)
    assert (world.runs()[1].stop_reason or "").startswith("preempted")


async def test_an_approval_is_void_where_a_person_allows_no_more_than_observing(
    world: World,
) -> None:
    run = await proposed(world)
    await cap(world, "target", GPU1, Mode.OBSERVE)
    await approve(world, run)
    await world.settle(1)
    assert world.runs()[0].state is RunState.CANCELLED
    assert Reason.OVERRIDE in world.reasons()
    assert world.detector.sent == []


async def test_who_said_no_is_not_asked_again_about_the_same_episode(world: World) -> None:
    run = await proposed(world)

    def body(tx: Tx) -> None:
        (asked,) = approvals.of_run(tx, run.id)
        approvals.decide(tx, asked.id, decision=Decided.REJECTED, by="ann", reason="known")

    await world.db.write(body)
    await world.settle(60)
    assert len(world.runs()) == 1
    assert world.reasons() == [Reason.ADMITTED, Reason.OVERRIDE]
    assert "ann said no" in world.decisions()[1]["detail"]


async def test_an_observed_run_is_beside_the_real_ones(world: World) -> None:
    # What would have been done neither takes the slot nor counts for who really acts.
    world.metrics.answers["p95"] = 0.4
    budget = [{"budget": {"runs": 1, "per": "1h"}}, {"cooldown": "1h"}]
    world.serve(a_throttle(mode="observe", guards=budget))
    await world.fire(an_alert())
    await world.settle(5)
    world.serve(a_throttle(guards=budget))
    await world.settle(20)
    assert {run.mode for run in world.runs()} == {Mode.OBSERVE, Mode.AUTO}
    both = [await world.db.read(runs.acting_run, GPU1, mode) for mode in (Mode.OBSERVE, Mode.AUTO)]
    assert None not in both
