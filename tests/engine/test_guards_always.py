"""Guards that bind every playbook: silences, overrides, pins, owners, slots, and waivers."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from remediator.model.alert import SILENCER, Silence
from remediator.model.decision import Reason
from remediator.model.labels import Matcher
from remediator.store import controls, overrides
from remediator.store.controls import Kind
from remediator.store.overrides import WAIVABLE, Ruling
from tests.builders import (
    GPU1,
    GPU2,
    INSTANCE,
    a_playbook,
    a_restart,
    a_retune,
    a_throttle,
    an_alert,
)
from tests.fakes import NOON
from tests.world import World


async def decide(world: World, *, seconds: float = 0) -> list[str]:
    await world.fire(an_alert())
    await world.settle(seconds)
    return world.reasons()


def slow(world: World, *documents: dict[str, Any]) -> None:
    world.metrics.answers["p95"] = 0.4
    world.serve(*(documents or (a_throttle(),)))


# -- silences --------------------------------------------------------------------------------------


def a_silence(*matchers: str, by: str = "ann") -> Silence:
    return Silence(
        id="s1",
        matchers=tuple(Matcher.parse(text) for text in matchers),
        created_by=by,
        comment="new model",
        ends_at=NOON + timedelta(hours=1),
    )


async def test_what_a_person_silenced_is_left_alone_until_the_silence_ends(world: World) -> None:
    slow(world)
    world.silences.active = [a_silence('alertname="Slow"', 'instance=~".*:7861"')]
    assert await decide(world, seconds=30) == [Reason.SILENCED]
    (denial,) = world.decisions()
    assert denial["evidence"]["by"] == "ann"
    assert denial["evidence"]["matchers"] == ['alertname="Slow"', 'instance=~".*:7861"']
    assert "new model" in denial["detail"]
    assert denial["count"] == 3
    world.silences.active = []
    await world.settle(15)
    assert world.reasons() == [Reason.SILENCED, Reason.ADMITTED]


@pytest.mark.parametrize(
    "silence",
    [
        a_silence('alertname="Slow"', f'instance="{INSTANCE[GPU2]}"'),
        a_silence('alertname!="Slow"'),
        a_silence('alertname="Slow"', by=SILENCER),
    ],
    ids=["of another target", "of other alerts", "of our own"],
)
async def test_a_silence_of_something_else_or_of_a_run_denies_nothing(
    world: World, silence: Silence
) -> None:
    slow(world)
    world.silences.active = [silence]
    assert await decide(world) == [Reason.ADMITTED]


async def test_while_nobody_can_say_what_is_silenced_nothing_begins(world: World) -> None:
    slow(world)
    world.silences.down = True
    assert await decide(world, seconds=15) == [Reason.UNKNOWN]
    assert "no Alertmanager answers" in world.decisions()[0]["detail"]
    world.silences.down = False
    await world.settle(15)
    assert world.reasons()[-1] == Reason.ADMITTED


# -- a person's word -------------------------------------------------------------------------------


async def rule(world: World, scope: str, name: str, *guards: str) -> None:
    """Leave a scope alone for an hour, or waive these guards there."""
    await world.db.write(
        overrides.add,
        scope=scope,
        name=name,
        decision=Ruling.WAIVE if guards else Ruling.HANDS_OFF,
        guards=guards,
        reason="load test",
        by="ann",
        until=world.clock() + timedelta(hours=1),
    )


@pytest.mark.parametrize(
    ("scope", "name", "held"),
    [
        ("playbook", "throttle", True),
        ("target", GPU1, True),
        ("pool", "detectors", True),
        ("target", GPU2, False),
        ("pool", "others", False),
    ],
)
async def test_what_a_person_overrides_is_left_alone_for_as_long_as_they_said(
    world: World, *, scope: str, name: str, held: bool
) -> None:
    slow(world)
    await rule(world, scope, name)
    assert await decide(world) == [Reason.OVERRIDE if held else Reason.ADMITTED]
    if held:
        assert world.decisions()[0]["evidence"]["by"] == "ann"
        world.clock.advance(3600)
        await world.settle(1)
        assert world.reasons() == [Reason.OVERRIDE, Reason.ADMITTED]


async def test_the_kill_switch_is_the_first_reason_and_no_waiver_opens_it(world: World) -> None:
    slow(world)
    await rule(world, "target", GPU1, *WAIVABLE)
    await rule(world, "target", GPU1)
    await world.db.write(
        controls.put, Kind.KILL, scope="all", name="", reason="fire", by="ann", until=None
    )
    assert await decide(world) == [Reason.KILLED]
    assert "fire" in world.decisions()[0]["detail"]


async def test_a_playbook_whose_action_is_paused_does_not_begin(world: World) -> None:
    slow(world)
    await world.pause("action", "throttle")
    assert await decide(world) == [Reason.PAUSED]


async def test_a_knob_that_a_person_pinned_is_not_moved_and_others_are(world: World) -> None:
    await world.db.write(
        overrides.pin, target=GPU1, knob="max_concurrency", reason="tuned", by="ann", until=None
    )
    slow(world, a_throttle(), a_retune({"batch_size": 4}, priority=10))
    await decide(world)
    found = {row["playbook"]: row["reason"] for row in world.decisions()}
    assert found == {"throttle": Reason.PINNED, "retune": Reason.ADMITTED}
    assert world.decisions()[0]["evidence"] == {"knob": "max_concurrency", "by": "ann"}


# -- waivers ---------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_a_waived_guard_does_not_refuse_and_the_record_says_who_waived_what(
    world: World,
) -> None:
    world.serve(a_playbook(guards=[{"cooldown": "1h"}, {"budget": {"runs": 1, "per": "1h"}}]))
    await rule(world, "playbook", "tell", "cooldown", "budget")
    await decide(world, seconds=30)
    assert set(world.reasons()) == {Reason.ADMITTED}
    second = world.decisions()[1]["evidence"]["waived"]
    assert {name: said["would have been"] for name, said in second.items()} == {
        "cooldown": Reason.COOLDOWN,
        "budget": Reason.BUDGET,
    }
    assert (second["cooldown"]["by"], second["cooldown"]["why"]) == ("ann", "load test")
    assert "waived" not in world.decisions()[0]["evidence"]


async def test_what_is_not_waived_still_refuses(world: World) -> None:
    world.serve(a_playbook(guards=[{"cooldown": "1h"}, {"budget": {"runs": 1, "per": "1h"}}]))
    await rule(world, "playbook", "tell", "cooldown")
    await decide(world, seconds=30)
    assert world.reasons() == [Reason.ADMITTED, Reason.BUDGET]
    assert world.decisions()[1]["evidence"]["waived"]["cooldown"]["by"] == "ann"


async def test_a_silence_can_be_waived_and_a_condition_cannot(world: World) -> None:
    slow(world)
    world.silences.active = [a_silence('alertname="Slow"')]
    world.metrics.answers["p95"] = 0.1
    await rule(world, "target", GPU1, *WAIVABLE)
    assert await decide(world) == [Reason.REQUIRE]
    world.metrics.answers["p95"] = 0.4
    await world.settle(15)
    assert world.reasons()[-1] == Reason.ADMITTED
    assert world.decisions()[-1]["evidence"]["waived"]["silence"]["would have been"] == "silenced"


# -- one owner per knob ----------------------------------------------------------------------------


def a_holder(priority: int, **changed: Any) -> Any:
    """Return a playbook for `Slow` that sets the batch size once and holds it."""
    cool = {"guards": [{"cooldown": "1h"}]}
    return a_retune(
        {"batch_size": 4}, **{"name": "holder", "priority": priority, **cool, **changed}
    )


def a_rival(priority: int, value: float = 2, **changed: Any) -> Any:
    """Return a playbook for `Other` that wants the same knob."""
    other = {"alerts": ['alertname="Other"']}
    return a_retune({"batch_size": value}, name="rival", priority=priority, on=other, **changed)


async def hold(world: World, holder: dict[str, Any], rival: dict[str, Any]) -> None:
    """Let the holder end and hold its knob, then let the rival ask for it."""
    world.metrics.answers["p95"] = 0.1
    world.serve(holder, rival)
    await world.fire(an_alert())
    await world.ended()
    world.serve(rival)
    await world.fire(an_alert("Other"))
    await world.settle()


@pytest.mark.parametrize("priority", [10, 20])
async def test_a_knob_that_another_playbook_holds_is_not_moved_by_one_no_more_important(
    world: World, priority: int
) -> None:
    await hold(world, a_holder(20), a_rival(priority))
    assert world.reasons()[-1] == Reason.OWNED
    evidence = world.decisions()[-1]["evidence"]
    assert (evidence["knob"], evidence["playbook"], evidence["value"]) == (
        "batch_size",
        "holder",
        4,
    )
    assert (evidence["priority"], evidence["base"]) == (20, 8)


async def test_a_more_important_playbook_takes_the_knob_over_with_its_base(world: World) -> None:
    await hold(world, a_holder(20), a_rival(21))
    assert world.reasons()[-1] == Reason.ADMITTED
    await world.settle(30)
    (change,) = world.changes(still_held=True)
    assert (change["playbook"], change["base"], change["value"]) == ("rival", 8, 2)


async def test_another_knob_is_nobodys_business(world: World) -> None:
    rival = a_rival(10, steps=[{"retune": {"set": {"max_concurrency": 5}}}])
    await hold(world, a_holder(20), rival)
    assert world.reasons()[-1] == Reason.ADMITTED


async def test_what_is_being_given_back_may_be_had_by_whoever_needs_it(world: World) -> None:
    alert = an_alert()
    await hold(world, a_holder(20, on_resolve={"restore": {"every": "10m"}}), a_rival(10))
    await world.resolve(alert)
    await world.until(lambda: world.reasons()[-1] == Reason.ADMITTED)
    assert world.runs()[-1].playbook == "rival"


async def test_who_hands_over_leaves_its_knobs_to_its_successor(world: World) -> None:
    world.metrics.answers["p95"] = 0.4
    harder = a_retune({"batch_size": 2}, name="harder", on={"alerts": ['alertname="Never"']})
    first = a_holder(20)
    first["steps"] = [*first["steps"], {"escalate_to": "harder"}]
    world.serve(first, harder)
    await world.fire(an_alert())
    await world.until(lambda: any(run.playbook == "harder" for run in world.runs()))
    assert Reason.OWNED not in world.reasons()


# -- other playbooks, other targets ----------------------------------------------------------------


def waits_for(name: str, within: str = "0s") -> dict[str, Any]:
    return a_playbook(
        name="after",
        on={"alerts": ['alertname="Other"']},
        guards=[{"not_while": {"playbook": name, "within": within}}],
        priority=95,
    )


async def test_a_playbook_waits_while_another_runs_on_the_target(world: World) -> None:
    world.metrics.answers |= {"up": 0, "alive": 1}
    world.serve(a_restart(), waits_for("restart"))
    await world.fire(an_alert("Down"))
    await world.settle(5)
    await world.fire(an_alert("Other"), an_alert("Other", GPU2))
    await world.settle()
    found = {
        row["target"]: row["reason"] for row in world.decisions() if row["playbook"] == "after"
    }
    assert found == {GPU1: Reason.DEPENDENCY, GPU2: Reason.ADMITTED}


@pytest.mark.slow
async def test_a_playbook_waits_until_long_enough_after_another_acted(world: World) -> None:
    world.metrics.answers |= {"up": 0, "alive": 1}
    world.serve(a_restart(guards=[{"cooldown": "1h"}]), waits_for("restart", "10m"))
    down = an_alert("Down")
    await world.fire(down)
    restarted = await world.ended()
    await world.resolve(down)
    await world.fire(an_alert("Other"))
    await world.settle()
    assert world.reasons()[-1] == Reason.DEPENDENCY
    await world.until(lambda: world.reasons()[-1] == Reason.ADMITTED)
    assert restarted.closed_at is not None
    assert world.runs()[-1].opened_at - restarted.closed_at >= timedelta(minutes=10)


@pytest.mark.slow
async def test_a_playbook_that_only_looked_and_did_nothing_holds_nobody_back(world: World) -> None:
    world.serve(a_playbook(name="looked"), waits_for("looked", "10m"))
    await world.fire(an_alert())
    await world.ended()
    await world.fire(an_alert("Other"))
    await world.settle()
    assert world.reasons()[-1] == Reason.ADMITTED


async def test_a_pool_budget_counts_the_pool(world: World) -> None:
    budget = [{"budget": {"runs": 1, "per": "10m", "scope": "pool"}}]
    world.serve(a_playbook(guards=budget))
    await world.fire(an_alert(), an_alert(target=GPU2))
    await world.settle()
    assert world.reasons() == [Reason.ADMITTED, Reason.BUDGET]
    assert world.decisions()[1]["evidence"]["scope"] == "pool"


@pytest.mark.slow
async def test_a_slot_of_a_schedule_has_one_run_for_each_target(world: World) -> None:
    world.serve(
        a_playbook(on={"schedule": {"cron": "5 12 * * *", "when": {"query": "leak", "above": 0.5}}})
    )
    world.metrics.vectors["leak"] = {INSTANCE[GPU1]: 1, INSTANCE[GPU2]: 1}
    for _ in range(80):
        world.clock.advance(5)
        await world.tick()
    assert sorted(run.target for run in world.runs()) == [GPU1, GPU2]
    assert set(world.reasons()) == {Reason.ADMITTED, Reason.SLOT_TAKEN}
    denial = next(row for row in world.decisions() if row["reason"] == Reason.SLOT_TAKEN)
    assert denial["evidence"]["run"] in {run.id for run in world.runs()}
    assert denial["count"] == 1
