"""What bursts through the limits of other controllers, and what grows without one.

A limiter that counts after it has acted, a breaker that divides by the wrong number or by zero, a
counter that starts anew with the process, a journal that only grows.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select

from remediator.model.decision import Reason
from remediator.model.target import Inventory
from remediator.store import retention
from remediator.store.database import Tx
from remediator.store.tables import metadata
from tests.builders import a_playbook, a_restart, an_alert
from tests.rivals.conftest import CROWD
from tests.world import World

# Each tells a long story; together they are a proof and no quick look.
pytestmark = pytest.mark.slow

HOUR = 3600.0
UP = "min by (instance) (up)"


def several_down(world: World, *down: str, **guard: Any) -> None:
    """Serve the restart playbook with one guard; these targets are down and all others up."""
    world.serve(a_restart(guards=[guard]))
    world.metrics.answers.update(alive=1)
    up = {target.instance: float(target.name not in down) for target in world.inventory}
    world.metrics.vectors[UP] = up


def admitted(world: World) -> list[str]:
    """Return the targets that a run was opened for."""
    return sorted(run.target for run in world.runs())


# -- a burst -----------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["playbook", "pool", "global"])
async def test_twelve_alerts_at_one_moment_do_not_burst_through_a_budget_of_three(
    crowd: World, scope: str
) -> None:
    crowd.serve(a_playbook(guards=[{"budget": {"runs": 3, "per": "1h", "scope": scope}}]))
    crowd.controller("one")
    crowd.controller("two")
    await crowd.fire(*(an_alert(target=name) for name in CROWD))
    await asyncio.gather(*(one.reconciler.dispatch() for one in crowd.controllers))
    await crowd.settle(60)
    assert len(crowd.runs()) == 3
    assert Counter(crowd.reasons())[Reason.BUDGET] >= 9


async def test_a_budget_that_is_spent_is_spent_after_a_restart_too(crowd: World) -> None:
    crowd.serve(a_playbook(guards=[{"budget": {"runs": 1, "per": "1h", "scope": "playbook"}}]))
    first = crowd.controller("first")
    await crowd.fire(an_alert(target="gpu-1"))
    await crowd.settle(5)
    crowd.controllers.remove(first)
    first.db.close()
    crowd.controller("second")
    await crowd.fire(an_alert(target="gpu-2"))
    await crowd.settle(60)
    assert admitted(crowd) == ["gpu-1"]


async def test_a_fault_of_all_targets_at_once_disturbs_only_as_many_as_are_allowed(
    crowd: World,
) -> None:
    several_down(crowd, blast_radius={"share": 0.25})
    await crowd.fire(*(an_alert("Down", name) for name in CROWD))
    await crowd.settle(1)
    assert len(crowd.runs()) == 3
    assert crowd.reasons().count(Reason.BLAST_RADIUS) == 9


async def test_a_storm_is_left_to_a_person_who_is_told_once(crowd: World) -> None:
    several_down(crowd, storm={"at_most": 5})
    await crowd.fire(*(an_alert("Down", name) for name in CROWD))
    await crowd.settle(120)
    assert crowd.runs() == []
    assert set(crowd.reasons()) == {Reason.STORM}
    assert len(crowd.messages()) == 1


# -- the denominator ---------------------------------------------------------------------------


async def test_a_share_is_of_the_targets_own_pool_and_not_of_everything(crowd: World) -> None:
    crowd.inventory = Inventory(
        replace(target, pool="small" if target.name in {"gpu-1", "gpu-2"} else "large")
        for target in crowd.inventory
    )
    several_down(crowd, blast_radius={"share": 0.5})
    await crowd.fire(an_alert("Down", "gpu-1"), an_alert("Down", "gpu-2"))
    await crowd.settle(1)
    assert admitted(crowd) == ["gpu-1"], "half of two, not half of twelve"


async def test_a_pool_of_one_may_be_disturbed_by_share_and_never_by_capacity(
    crowd: World,
) -> None:
    crowd.inventory = Inventory(
        replace(target, pool=target.name if target.name == "gpu-1" else "others")
        for target in crowd.inventory
    )
    several_down(crowd, healthy_others={"at_least": 1})
    await crowd.fire(an_alert("Down", "gpu-1"))
    await crowd.settle(1)
    assert crowd.reasons() == [Reason.CAPACITY]
    several_down(crowd, blast_radius={"share": 0.01})
    await crowd.settle(20)
    assert admitted(crowd) == ["gpu-1"]


@pytest.mark.parametrize("answer", [{}, {"somebody else": 1.0}], ids=["nothing", "strangers"])
async def test_an_empty_answer_never_means_that_all_others_are_well(
    crowd: World, answer: dict[str, float]
) -> None:
    several_down(crowd, healthy_others={"at_least": 1})
    crowd.metrics.vectors[UP] = answer
    await crowd.fire(an_alert("Down", "gpu-1"))
    await crowd.settle(60)
    assert crowd.runs() == []
    assert set(crowd.reasons()) <= {Reason.UNKNOWN, Reason.CAPACITY}


async def test_a_prometheus_that_is_gone_never_means_that_all_others_are_well(
    crowd: World,
) -> None:
    several_down(crowd, healthy_others={"at_least": 1})
    crowd.metrics.down = True
    await crowd.fire(an_alert("Down", "gpu-1"))
    await crowd.settle(60)
    assert crowd.runs() == []


async def test_capacity_that_runs_are_taking_away_is_not_counted_twice(crowd: World) -> None:
    several_down(crowd, healthy_others={"at_least": 10})
    for detector in crowd.detectors.values():
        detector.inflight = 1
    await crowd.fire(*(an_alert("Down", name) for name in CROWD))
    await crowd.settle(1)
    # The second leaves ten others alone, a third would leave nine.
    assert len(crowd.runs()) == 2


async def test_when_all_are_down_nobody_waits_for_others_to_be_up(crowd: World) -> None:
    several_down(crowd, *CROWD, healthy_others={"at_least": 1})
    await crowd.fire(an_alert("Down", "gpu-1"))
    await crowd.settle(1)
    assert admitted(crowd) == ["gpu-1"]


# -- what grows --------------------------------------------------------------------------------


def sizes(world: World) -> dict[str, int]:
    """Return how many rows each table has, without the empty ones."""

    def body(tx: Tx) -> dict[str, int]:
        counts = {
            table.name: tx.conn.execute(select(func.count()).select_from(table)).scalar_one()
            for table in metadata.sorted_tables
        }
        return {name: count for name, count in counts.items() if count}

    return world.db.transact(body, writing=False)


async def test_an_alert_that_is_denied_and_sent_again_for_hours_stays_a_handful_of_rows(
    world: World,
) -> None:
    world.serve(a_playbook(guards=[{"require": {"query": "p95", "above": 0.25}}]))
    world.metrics.answers["p95"] = 0.1
    world.pace = replace(world.pace, review=timedelta(minutes=1))
    alert = an_alert(starts_at=world.clock())
    for _ in range(12):
        await world.fire(alert)
        await world.settle(300)
    assert world.reasons() == [Reason.REQUIRE]
    assert world.decisions()[0]["count"] >= 60
    grown = {name: count for name, count in sizes(world).items() if count > 3}
    assert grown.keys() <= {"deliveries"}, grown


async def test_what_is_over_is_forgotten_and_leaves_nothing_behind(world: World) -> None:
    world.serve(a_restart())
    first = world.process.pid
    for query in ("up", "alive"):
        world.metrics.answers[query] = lambda _now: int(world.process.pid != first)
    alert = an_alert("Down", starts_at=world.clock())
    await world.fire(alert)
    await world.ended()
    await world.resolve(alert)
    await world.settle(60)
    world.clock.advance(world.pace.retention.total_seconds() + 1)
    while await world.db.write(retention.forget, older_than=world.pace.retention):
        pass
    assert sizes(world).keys() <= {"fences", "signs"}


async def test_a_process_remembers_nothing_of_the_runs_it_has_driven(crowd: World) -> None:
    crowd.serve(a_playbook())
    by = crowd.controller("one")
    for _ in range(5):
        alerts = [an_alert(target=name, starts_at=crowd.clock()) for name in CROWD]
        await crowd.fire(*alerts)
        await crowd.settle(5)
        await crowd.resolve(*alerts)
    assert len(crowd.runs()) >= len(CROWD)
    assert by.reconciler.driving == {}
    assert by.reconciler._drives == set()
