"""Shift load: absolute weights, room asked for just before, and given back by us or by nobody."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import pytest

from remediator.engine.stopping import stop_scope
from remediator.model.pace import Pace
from remediator.model.run import RunState
from remediator.model.verdict import ReadingStatus, Verdict
from tests.builders import a_playbook, an_alert
from tests.fakes import Outcome
from tests.world import World

ALERT = an_alert()
COOL = [{"cooldown": "1h"}]
PROOF = {"query": "p95", "below": 0.25, "within": "2m", "for": "30s", "window": "0s"}
ROOM = {"headroom": {"query": "room", "above": 0.2}}


def a_shift(weight: int = 20, *, shift: dict[str, Any] | None = None, **changed: Any) -> Any:
    step = {"shift_load": {"weight": weight, **(shift or {})}, "verify": PROOF}
    parts = {"name": "shift", "guards": COOL, "steps": [step], "on_resolve": "restore"}
    return a_playbook(**{**parts, **changed})


async def begin(world: World, document: Any = None) -> None:
    world.serve(document or a_shift())
    world.metrics.answers["p95"] = lambda _now: 0.2 if weight(world) < 100 else 0.5
    await world.fire(ALERT)


def weight(world: World) -> float:
    return world.balancer.values["weight"]


def weights(world: World) -> list[float]:
    return [s.args["values"]["weight"] for s in world.balancer.applied("set")]


@pytest.mark.slow
async def test_the_share_becomes_an_absolute_weight_and_is_proved(world: World) -> None:
    world.balancer.values["weight"] = 60
    world.serve(a_shift(20))
    world.metrics.answers["p95"] = 0.2
    await world.fire(ALERT)
    run = await world.ended()
    assert weights(world) == [12]
    assert run.verdict is Verdict.IMPROVED
    change = world.change()
    assert (change["knob"], change["base"], change["value"]) == ("weight", 60, 12)
    assert not change["reverts_itself"]


@pytest.mark.parametrize(("share", "base", "wanted"), [(0, 3, 0), (10, 3, 1), (100, 3, None)])
async def test_a_share_above_zero_never_takes_it_out(
    world: World, share: int, base: int, wanted: int | None
) -> None:
    world.balancer.values["weight"] = base
    await begin(world, a_shift(share))
    await world.settle(5)
    assert weights(world) == ([] if wanted is None else [wanted])


async def test_room_that_the_others_do_not_have_is_not_asked_of_them(world: World) -> None:
    world.metrics.answers["room"] = 0.1
    await begin(world, a_shift(shift=ROOM))
    run = await world.ended()
    assert world.balancer.sent == []
    assert run.state is RunState.FAILED
    assert "no room for it: measured 0.1, wanted > 0.2" in run.reason


@pytest.mark.parametrize("room", [None, math.nan, ReadingStatus.ERROR])
async def test_room_that_nobody_can_see_is_none(
    world: World, room: float | ReadingStatus | None
) -> None:
    world.metrics.answers["room"] = room
    await begin(world, a_shift(shift=ROOM))
    run = await world.ended()
    assert world.balancer.sent == []
    assert run.verdict is Verdict.UNKNOWN
    assert len(world.paged()) == 1


async def test_room_is_asked_for_again_when_the_answer_is_old(world: World) -> None:
    world.metrics.answers["room"] = 0.5
    world.balancer.retry_after = 120
    world.balancer.script("set", Outcome.TEMPORARY)
    await begin(world, a_shift(shift=ROOM))
    await world.settle(5)
    assert world.metrics.asked.count("room") == 1
    assert weights(world) == []
    await world.settle(120)
    assert weights(world) == [20]


@pytest.mark.slow
async def test_a_pin_at_the_balancer_is_respected(world: World) -> None:
    world.balancer.pins["weight"] = "ann"
    await begin(world)
    run = await world.ended()
    assert world.balancer.sent == []
    assert "pinned by ann" in run.reason


@pytest.mark.parametrize("lost", [Outcome.UNKNOWN_APPLIED, Outcome.UNKNOWN_LOST])
async def test_an_answer_that_is_lost_loses_neither_the_base_nor_the_way_back(
    world: World, lost: Outcome
) -> None:
    world.balancer.script("set", lost)
    await begin(world)
    await world.settle(5)
    assert weight(world) == 20
    assert (world.change()["base"], world.change()["value"]) == (100, 20)
    await world.cancel(world.run())
    await world.settle(5)
    assert weight(world) == 100


async def test_a_shift_that_made_it_worse_is_taken_back_by_setting_what_was(world: World) -> None:
    world.serve(a_shift())
    world.metrics.answers["p95"] = lambda _now: 0.5 if weight(world) == 100 else 0.9
    await world.fire(ALERT)
    run = await world.ended()
    assert (run.state, run.verdict) == (RunState.ROLLED_BACK, Verdict.WORSE)
    assert weight(world) == 100
    assert world.change()["state"] == "rolled_back"


async def test_a_second_shift_is_of_the_first_base_and_shifts_no_further_than_asked(
    world: World,
) -> None:
    await begin(world, a_shift(50))
    await world.ended()
    world.metrics.answers["p95"] = 0.5
    world.serve(a_shift(20, name="harder", priority=30))
    await world.until(lambda: weight(world) == 20)
    assert (world.change()["base"], world.change()["value"]) == (100, 20)


@pytest.mark.slow
async def test_after_the_alert_it_comes_back_in_steps_while_it_is_healthy(world: World) -> None:
    await begin(world)
    await world.ended()
    await world.resolve(ALERT)
    world.metrics.answers["p95"] = 0.1
    await world.until(lambda: world.changes(still_held=True) == [])
    assert weights(world) == [20, 40, 60, 80, 100]
    assert world.change()["state"] == "restored"


@pytest.mark.slow
async def test_without_a_way_back_declared_it_is_given_back_all_the_same(world: World) -> None:
    await begin(world, a_shift(on_resolve=None))
    await world.ended()
    await world.resolve(ALERT)
    world.metrics.answers["p95"] = 0.1
    await world.until(lambda: world.changes(still_held=True) == [])
    assert weight(world) == 100


@pytest.mark.slow
async def test_looking_after_it_needs_no_calls(world: World) -> None:
    await begin(world)
    await world.ended()
    sent = len(world.balancer.sent)
    await world.settle(3600)
    assert len(world.balancer.sent) == sent
    assert world.change()["renewals"] >= 10
    assert world.change()["state"] == "held"


@pytest.mark.slow
async def test_when_nobody_looked_after_it_for_a_lease_it_goes_back_once_it_is_healthy(
    world: World,
) -> None:
    await begin(world)
    await world.ended()
    world.metrics.answers["p95"] = 0.5
    world.clock.advance(2 * 3600)  # no controller was there
    await world.settle(300)
    assert world.change()["state"] == "overdue"
    assert weight(world) == 20
    world.metrics.answers["p95"] = 0.1  # and the alert fires on
    await world.until(lambda: weight(world) == 100)
    assert world.change()["state"] == "restored"


@pytest.mark.slow
async def test_what_is_held_for_too_long_is_never_silently_closed(world: World) -> None:
    world.pace = Pace(max_hold=timedelta(minutes=40), review=timedelta(minutes=5))
    await begin(world)
    await world.ended()
    world.metrics.answers["p95"] = 0.5
    await world.settle(3600)
    assert world.paged() == ["gpu-1: weight at 20 is held for too long"]
    assert world.changes(still_held=True) != []
    world.metrics.answers["p95"] = 0.1
    await world.until(lambda: weight(world) == 100)


@pytest.mark.slow
async def test_a_balancer_that_does_not_answer_is_tried_until_it_does_and_a_person_told_once(
    world: World,
) -> None:
    await begin(world)
    await world.ended()
    await world.resolve(ALERT)
    world.metrics.answers["p95"] = 0.1
    world.balancer.reachable = False
    await world.settle(3600)
    assert world.paged() == ["gpu-1: weight at 20 could not be given back"]
    assert world.changes(still_held=True) != []
    world.balancer.reachable = True
    await world.until(lambda: weight(world) == 100)


async def test_a_stop_gives_it_back_at_once_whatever_is_measured(world: World) -> None:
    await begin(world)
    await world.ended()
    world.metrics.answers["p95"] = 0.9
    await world.db.write(stop_scope, scope="target", name="gpu-1", by="ann", reason="enough")
    await world.settle(2)
    assert weight(world) == 100
    assert world.change()["state"] == "restored"


@pytest.mark.slow
async def test_a_stop_hurries_a_restore_that_is_under_way(world: World) -> None:
    await begin(world)
    await world.ended()
    await world.resolve(ALERT)
    world.metrics.answers["p95"] = 0.1
    await world.until(lambda: weight(world) == 40)
    world.metrics.answers["p95"] = None
    await world.db.write(stop_scope, scope="all", name="", by="ann", reason="enough")
    await world.settle(2)
    assert weight(world) == 100
    assert len(world.restores()) == 1


async def test_observed_it_sends_nothing_and_holds_nothing(world: World) -> None:
    await begin(world, a_shift(mode="observe"))
    await world.ended()
    assert world.balancer.sent == []
    assert world.changes() == []
