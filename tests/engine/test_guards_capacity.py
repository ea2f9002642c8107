"""Guards that look at the other targets: every count has a right denominator and a defined zero."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from remediator.engine.evidence import Evidence
from remediator.engine.guards import capacity
from remediator.engine.guards.facts import Facts
from remediator.model.decision import Reason
from remediator.model.guard import BlastRadius, HealthyOthers, Storm
from remediator.model.pace import Pace
from remediator.model.playbook import Mode, Playbook
from remediator.model.target import Inventory, Target
from remediator.model.verdict import Vector
from tests.builders import GPU1, GPU2, GPU3, INSTANCE, a_playbook, a_restart, an_alert
from tests.fakes import NOON
from tests.world import World, a_world

UP = "min by (instance) (up)"


def facts(
    *,
    pools: Mapping[str, str] | None = None,
    up: Mapping[str, float] | None = None,
    error: str = "",
    **known: Any,
) -> Facts:
    """Return facts about the first target of `pools` (name: pool), with who is up."""
    pools = pools or {"a": "p", "b": "p", "c": "p"}
    targets = [Target(name=name, instance=f"{name}:1", pool=pool) for name, pool in pools.items()]
    values = tuple(({"instance": f"{name}:1"}, value) for name, value in (up or {}).items())
    vector = Vector(query=UP, at=NOON, values=values, error=error)
    return Facts(
        now=NOON,
        plan=Playbook.model_validate(a_playbook()),
        mode=Mode.AUTO,
        target=targets[0],
        inventory=Inventory(targets),
        labels={},
        pace=Pace(),
        evidence=Evidence(asked_at=NOON, vectors={UP: vector}),
        **known,
    )


def reason(denied: Any) -> Reason | None:
    return None if denied is None else denied.reason


def others(at_least: int = 1, **spec: Any) -> HealthyOthers:
    return HealthyOthers(at_least=at_least, **spec)


ALL_UP = {"a": 1, "b": 1, "c": 1}


@pytest.mark.parametrize(
    ("at_least", "up", "disturbed", "wanted"),
    [
        (2, ALL_UP, {}, None),
        (3, ALL_UP, {}, Reason.CAPACITY),  # this one does not count for itself
        (2, ALL_UP, {"b"}, Reason.CAPACITY),  # nor does one that a run is at
        (2, ALL_UP, {"a"}, None),
        (1, {"a": 1, "b": 0, "c": 0}, {}, Reason.CAPACITY),
        (1, {"a": 1, "b": 1}, {}, None),
        (2, {"a": 1, "b": 1}, {}, Reason.CAPACITY),  # c is not measured: not known to be well
        (1, {"x": 1}, {}, Reason.CAPACITY),  # healthy, but nobody that we know
    ],
)
def test_only_others_that_are_healthy_and_left_alone_count(
    at_least: int, up: dict[str, float], disturbed: set[str], wanted: Reason | None
) -> None:
    known = facts(up=up, disturbed=frozenset(disturbed))
    assert reason(capacity.healthy_others(others(at_least), known)) is wanted


def test_a_target_that_is_down_already_needs_no_others() -> None:
    assert capacity.healthy_others(others(), facts(up={"a": 0, "b": 0, "c": 0})) is None


def test_a_target_that_is_not_measured_is_not_known_to_be_down() -> None:
    denied = capacity.healthy_others(others(), facts(up={"b": 0, "c": 0}))
    assert reason(denied) is Reason.CAPACITY


@pytest.mark.parametrize(
    "known", [facts(up={}), facts(error="timeout"), facts(up={"a": 0}, error="e")]
)
def test_no_answer_about_the_others_refuses(known: Facts) -> None:
    denied = capacity.healthy_others(others(), known)
    assert reason(denied) is Reason.UNKNOWN
    assert denied is not None
    assert denied.evidence["query"] == UP


@pytest.mark.parametrize("pools", [{"a": ""}, {"a": "p"}, {"a": "p", "b": "q"}])
def test_a_pool_of_one_has_no_others(pools: dict[str, str]) -> None:
    denied = capacity.healthy_others(others(), facts(pools=pools, up={"a": 1, "b": 1}))
    assert reason(denied) is Reason.CAPACITY


def test_another_pool_counts_its_own_targets() -> None:
    known = facts(pools={"a": "p", "b": "q", "c": "q"}, up=ALL_UP)
    assert capacity.healthy_others(others(2, pool="q"), known) is None
    assert reason(capacity.healthy_others(others(pool="nobody"), known)) is Reason.CAPACITY


def test_a_capacity_denial_carries_the_query_and_every_value() -> None:
    denied = capacity.healthy_others(others(3), facts(up={"a": 1, "b": 1, "c": 0}))
    assert denied is not None
    assert denied.evidence["query"] == UP
    assert denied.evidence["values"] == {"a": 1, "b": 1, "c": 0}
    assert (denied.evidence["healthy"], denied.evidence["at_least"]) == (["b"], 3)


def a_pool(count: int) -> dict[str, str]:
    return {f"t{number}": "p" for number in range(count)}


@pytest.mark.parametrize(
    ("bound", "size", "disturbed", "allowed"),
    [
        ({"at_most": 1}, 3, 0, True),
        ({"at_most": 1}, 3, 1, False),
        ({"at_most": 2}, 3, 1, True),
        ({"share": 0.1}, 3, 0, True),  # rounded down, but never to none
        ({"share": 0.1}, 3, 1, False),
        ({"share": 0.29}, 100, 28, True),  # 29 of 100, though 0.29 * 100 is less in binary
        ({"share": 0.29}, 100, 29, False),
        ({"share": 1}, 2, 1, True),
    ],
)
def test_no_more_targets_are_acted_on_at_once_than_the_playbook_allows(
    *, bound: dict[str, Any], size: int, disturbed: int, allowed: bool
) -> None:
    names = frozenset(f"t{number}" for number in range(1, disturbed + 1))
    known = facts(pools=a_pool(size), disturbed=names)
    denied = capacity.blast_radius(BlastRadius(**bound), known)
    assert reason(denied) is (None if allowed else Reason.BLAST_RADIUS)


def test_the_share_is_of_the_pool_and_not_of_all_targets() -> None:
    pools = {"a": "p", "b": "p", **{f"x{number}": "q" for number in range(98)}}
    known = facts(pools=pools, disturbed=frozenset({"b"}))
    denied = capacity.blast_radius(BlastRadius(share=0.5), known)
    assert denied is not None
    assert (denied.evidence["targets"], denied.evidence["at_most"]) == (2, 1)


def test_runs_in_other_pools_do_not_count() -> None:
    known = facts(pools={"a": "p", "b": "q"}, disturbed=frozenset({"b"}))
    assert capacity.blast_radius(BlastRadius(at_most=1), known) is None


def test_a_pool_that_nobody_is_in_refuses_instead_of_dividing_by_nothing() -> None:
    denied = capacity.blast_radius(BlastRadius(share=0.5, pool="gone"), facts())
    assert reason(denied) is Reason.BLAST_RADIUS


def test_a_storm_is_more_targets_of_the_pool_in_trouble_than_allowed() -> None:
    pools = {"a": "p", "b": "p", "c": "p", "d": "q"}
    known = facts(pools=pools, in_trouble=frozenset({"a", "b", "d"}))
    assert capacity.storm(Storm(at_most=2), known) is None
    denied = capacity.storm(Storm(at_most=1), known)
    assert denied is not None
    assert denied.reason is Reason.STORM
    assert denied.evidence["in_trouble"] == ["a", "b"]


# -- the same, through the journal and a controller ------------------------------------------------

THREE = (GPU1, GPU2, GPU3)


def down(world: World) -> None:
    world.metrics.answers |= {"up": 0, "alive": 0}
    world.metrics.vectors[UP] = {INSTANCE[name]: 1 for name in THREE}


async def test_a_restart_waits_while_the_only_other_target_is_restarted(world: World) -> None:
    down(world)
    world.serve(a_restart(guards=[{"healthy_others": {"at_least": 1}}]))
    await world.fire(an_alert("Down"), an_alert("Down", GPU2))
    await world.settle()
    assert [run.target for run in world.runs()] == [GPU1]
    assert world.reasons() == [Reason.ADMITTED, Reason.CAPACITY]
    (reading,) = world.decisions()[0]["evidence"]["series"]
    assert reading["values"] == {INSTANCE[name]: 1 for name in THREE}


@pytest.mark.parametrize("answer", [{}, {"elsewhere:1": 1.0}], ids=["empty", "others only"])
async def test_prometheus_that_knows_none_of_the_pool_refuses(
    world: World, answer: dict[str, float]
) -> None:
    down(world)
    world.metrics.vectors[UP] = answer
    world.serve(a_restart(guards=[{"healthy_others": {"at_least": 1}}]))
    await world.fire(an_alert("Down"))
    await world.settle()
    assert world.reasons() == [Reason.CAPACITY if answer else Reason.UNKNOWN]
    assert world.runs() == []


@pytest.mark.slow
async def test_what_is_in_a_pool_is_restarted_one_at_a_time(tmp_path: Path) -> None:
    with a_world(tmp_path, targets=THREE) as world:
        down(world)
        world.metrics.answers["alive"] = 1
        world.serve(a_restart(guards=[{"blast_radius": {"at_most": 1}}]))
        await world.fire(*(an_alert("Down", name) for name in THREE))
        await world.settle(20)
        assert world.reasons() == [Reason.ADMITTED, Reason.BLAST_RADIUS, Reason.BLAST_RADIUS]
        for count, name in enumerate(THREE, start=1):
            await world.until(lambda count=count: len(world.runs()) == count)  # type: ignore[misc]
            assert world.runs()[-1].target == name
            await world.resolve(an_alert("Down", name))
        spans = [(run.opened_at, run.closed_at) for run in world.runs()]
        for (_, closed), (opened, _) in pairwise(spans):
            assert closed is not None
            assert closed <= opened


async def test_a_storm_is_nobodys_run_and_one_call_to_a_person(tmp_path: Path) -> None:
    with a_world(tmp_path, targets=THREE) as world:
        down(world)
        world.serve(a_restart(guards=[{"storm": {"at_most": 2}}]))
        await world.fire(*(an_alert("Down", name) for name in THREE))
        await world.settle(120)
        assert world.runs() == []
        assert set(world.reasons()) == {Reason.STORM}
        assert world.paged() == ["detectors: needs a person"]


async def test_a_storm_that_has_passed_lets_the_rest_be_mended(tmp_path: Path) -> None:
    with a_world(tmp_path, targets=THREE) as world:
        down(world)
        world.serve(a_restart(guards=[{"storm": {"at_most": 2}}]))
        alerts = [an_alert("Down", name) for name in THREE]
        await world.fire(*alerts)
        await world.settle(30)
        await world.resolve(alerts[2])
        await world.settle(30)
        assert {run.target for run in world.runs()} == {GPU1, GPU2}


async def test_alerts_of_one_target_and_of_unknown_ones_are_no_storm(world: World) -> None:
    down(world)
    world.serve(a_restart(guards=[{"storm": {"at_most": 1}}]))
    strangers = [an_alert("Down", f"10.0.0.{number}:1") for number in range(5)]
    await world.fire(an_alert("Down"), an_alert("Slow"), an_alert("Watchdog", GPU2), *strangers)
    await world.settle()
    assert [run.target for run in world.runs()] == [GPU1]


async def test_a_storm_knows_targets_by_the_playbooks_own_rule(world: World) -> None:
    down(world)
    world.serve(a_restart(target="${{ alert.labels.host }}", guards=[{"storm": {"at_most": 1}}]))
    alerts = [an_alert("Down", f"pod-{name}", host=name) for name in (GPU1, GPU2)]
    await world.fire(*alerts)
    await world.settle()
    assert set(world.reasons()) == {Reason.STORM}
