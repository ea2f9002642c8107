"""Every alert ends in a decision that says why, with the query and the value it rests on."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from remediator.engine.dispatch import WATCHDOG
from remediator.model.decision import LASTING, Denied, Reason
from remediator.model.run import RunKind, RunState
from remediator.model.verdict import ReadingStatus, Verdict
from tests.builders import GPU1, GPU2, a_playbook, a_restart, a_retune, a_throttle, an_alert
from tests.fakes import Refuse
from tests.world import World

NOTHING: list[object] = []


async def decide(world: World, *, seconds: float = 0) -> list[str]:
    await world.fire(an_alert())
    await world.settle(seconds)
    return world.reasons()


async def test_a_slow_target_is_admitted_with_the_measured_evidence(world: World) -> None:
    world.serve(a_throttle())
    world.metrics.answers["p95"] = 0.4
    assert await decide(world) == [Reason.ADMITTED]
    (decision,) = world.decisions()
    (reading,) = decision["evidence"]["readings"]
    assert (reading["query"], reading["value"]) == ("p95", 0.4)
    assert decision["run_id"] == world.run().id


async def test_an_alert_that_no_matcher_meets_is_denied_for_good(world: World) -> None:
    world.serve(a_restart())
    assert await decide(world, seconds=60) == [Reason.NO_PLAYBOOK]
    assert world.decisions()[0]["count"] == 1
    assert world.runs() == NOTHING


async def test_a_target_that_nobody_knows_is_denied_and_the_known_ones_are_named(
    world: World,
) -> None:
    world.serve(a_throttle())
    await world.fire(an_alert(target="10.0.0.9:1"))
    await world.settle(60)
    (decision,) = world.decisions()
    assert decision["reason"] == Reason.NO_TARGET
    assert decision["evidence"] == {"wanted": "10.0.0.9:1", "known": f"{GPU1}, {GPU2}"}
    assert decision["count"] == 1


@pytest.mark.parametrize(
    "target", ["${{ alert.labels.rack }}", "${{ alert.labels.instance - 1 }}", "${{ 1 / 0 }}"]
)
async def test_a_template_that_cannot_be_filled_in_is_denied_and_stops_nobody_else(
    world: World, target: str
) -> None:
    world.serve(a_playbook(name="broken", target=target, priority=99), a_throttle())
    world.metrics.answers["p95"] = 0.4
    assert await decide(world) == [Reason.TEMPLATE, Reason.ADMITTED]
    assert target in world.decisions()[0]["detail"]


async def test_a_template_inside_a_step_that_cannot_be_filled_in_is_denied(world: World) -> None:
    world.serve(a_playbook(steps=[{"notify": {"message": "${{ alert.labels.rack }}"}}]))
    assert await decide(world) == [Reason.TEMPLATE]


async def test_an_alert_that_was_over_before_it_was_looked_at_says_so(world: World) -> None:
    world.serve(a_throttle())
    alert = an_alert()
    await world.fire(alert)
    await world.resolve(alert)
    await world.settle(60)
    assert world.reasons() == [Reason.RESOLVED]
    assert world.metrics.asked == []


async def test_the_watchdog_is_a_heartbeat_and_no_problem(world: World) -> None:
    world.serve(a_throttle())
    await world.fire(an_alert(WATCHDOG))
    await world.settle()
    assert world.reasons() == [Reason.WATCHDOG]


async def test_of_two_playbooks_for_one_alert_the_lower_is_superseded(world: World) -> None:
    world.serve(a_throttle(), a_throttle(name="other", priority=30))
    world.metrics.answers["p95"] = 0.4
    await decide(world)
    found = [(row["playbook"], row["reason"]) for row in world.decisions()]
    assert found == [("other", Reason.ADMITTED), ("throttle", Reason.SUPERSEDED)]


async def test_an_equal_playbook_finds_the_target_busy(world: World) -> None:
    world.serve(a_throttle())
    world.metrics.answers["p95"] = 0.4
    await decide(world)
    await world.fire(an_alert(severity="critical"))
    await world.settle()
    assert world.reasons() == [Reason.ADMITTED, Reason.BUSY]
    assert world.decisions()[1]["evidence"]["run"] == world.run().id


async def test_what_does_not_hold_any_more_is_not_acted_on(world: World) -> None:
    world.serve(a_throttle())
    world.metrics.answers["p95"] = 0.2
    assert await decide(world) == [Reason.REQUIRE]
    evidence = world.decisions()[0]["evidence"]
    assert (evidence["value"], evidence["wanted"]) == (0.2, "> 0.25")
    assert world.runs() == NOTHING


@pytest.mark.slow
@pytest.mark.parametrize(
    "answer",
    [None, float("nan"), ReadingStatus.EMPTY, ReadingStatus.MANY, ReadingStatus.ERROR],
    ids=["no data", "NaN", "empty", "several series", "an error"],
)
async def test_what_cannot_be_measured_is_unknown_and_never_acted_on(
    world: World, answer: float | ReadingStatus | None
) -> None:
    world.serve(a_throttle())
    world.metrics.answers["p95"] = answer
    assert await decide(world, seconds=60) == [Reason.UNKNOWN]
    assert world.decisions()[0]["count"] == 5
    assert world.runs() == NOTHING
    assert world.detector.sent == []


async def test_evidence_that_grew_old_while_it_was_asked_for_is_refused(world: World) -> None:
    world.serve(a_throttle())
    world.metrics.answers["p95"] = 0.4
    world.metrics.takes = world.pace.evidence_max_age.total_seconds() + 1
    assert await decide(world) == [Reason.STALE_EVIDENCE]
    assert world.runs() == NOTHING


@pytest.mark.slow
async def test_a_playbook_that_just_ran_here_cools_down(world: World) -> None:
    world.serve(a_playbook(guards=[{"cooldown": "5m"}]))
    await decide(world, seconds=290)
    assert world.reasons() == [Reason.ADMITTED, Reason.COOLDOWN]
    await world.settle(20)
    assert world.reasons()[:3] == [Reason.ADMITTED, Reason.COOLDOWN, Reason.ADMITTED]


@pytest.mark.slow
async def test_a_cooldown_can_be_longer_after_a_run_that_did_not_help(world: World) -> None:
    world.serve(
        a_retune({"batch_size": 4}, guards=[{"cooldown": {"improved": "1m", "otherwise": "1h"}}])
    )
    world.metrics.answers["p95"] = 0.1
    alert = an_alert()
    await world.fire(alert)
    await world.until(lambda: len(world.runs(kind=RunKind.REMEDY)) == 2)
    helped, again = world.runs(kind=RunKind.REMEDY)
    assert helped.verdict is Verdict.IMPROVED
    assert helped.closed_at is not None
    assert timedelta(minutes=1) <= again.opened_at - helped.closed_at < timedelta(minutes=2)
    world.metrics.answers["p95"] = 0.4
    await world.until(lambda: world.runs(kind=RunKind.REMEDY)[-1].state is RunState.ROLLED_BACK)
    count = len(world.runs(kind=RunKind.REMEDY))
    await world.settle(3000)
    assert len(world.runs(kind=RunKind.REMEDY)) == count
    assert world.decisions()[-1]["evidence"]["cooldown_s"] == 3600


async def test_a_cooldown_on_one_target_does_not_hold_another(world: World) -> None:
    world.serve(a_playbook(guards=[{"cooldown": "5m"}]))
    await world.fire(an_alert())
    await world.settle(30)
    await world.fire(an_alert(target=GPU2))
    await world.settle()
    assert world.reasons()[-1] == Reason.ADMITTED
    assert world.runs()[-1].target == GPU2


@pytest.mark.parametrize(
    ("scope", "same_target", "same_playbook", "wanted"),
    [
        ("target", True, False, Reason.BUDGET),
        ("target", False, True, Reason.ADMITTED),
        ("playbook", False, True, Reason.BUDGET),
        ("playbook", True, False, Reason.ADMITTED),
        ("global", False, False, Reason.BUDGET),
    ],
)
async def test_a_budget_counts_what_its_scope_says(
    world: World, *, scope: str, same_target: bool, same_playbook: bool, wanted: Reason
) -> None:
    budget = [{"budget": {"runs": 1, "per": "10m", "scope": scope}}]
    world.serve(
        a_playbook(name="first", on={"alerts": ['alertname="First"']}, guards=budget),
        a_playbook(name="second", on={"alerts": ['alertname="Second"']}, guards=budget),
    )
    first = an_alert("First")
    await world.fire(first)
    await world.settle()
    await world.resolve(first)
    target = GPU1 if same_target else GPU2
    await world.fire(an_alert("First" if same_playbook else "Second", target, again="yes"))
    await world.settle()
    assert world.reasons() == [Reason.ADMITTED, wanted]


async def test_a_budget_has_room_again_when_its_window_has_passed(world: World) -> None:
    world.serve(a_playbook(guards=[{"budget": {"runs": 1, "per": "2m"}}]))
    await decide(world, seconds=100)
    assert world.reasons() == [Reason.ADMITTED, Reason.BUDGET]
    await world.settle(60)
    assert world.reasons()[2] == Reason.ADMITTED


@pytest.mark.parametrize(
    ("scope", "name", "held"),
    [
        ("all", "", True),
        ("playbook", "throttle", True),
        ("playbook", "restart", False),
        ("target", GPU1, True),
        ("target", GPU2, False),
    ],
)
async def test_a_pause_holds_its_scope_and_nothing_else(
    world: World, *, scope: str, name: str, held: bool
) -> None:
    world.serve(a_throttle())
    world.metrics.answers["p95"] = 0.4
    await world.pause(scope, name)
    assert await decide(world) == [Reason.PAUSED if held else Reason.ADMITTED]
    await world.resume(scope, name)
    await world.settle(20)
    assert world.reasons()[-1] == Reason.ADMITTED


async def test_who_is_blind_starts_nothing(world: World) -> None:
    world.serve(a_throttle())
    world.metrics.answers["p95"] = 0.4
    world.pace = replace(world.pace, watchdog_within=timedelta(minutes=1))
    await world.settle(1)
    world.clock.advance(100)
    assert await decide(world) == [Reason.BLIND]
    await world.fire(an_alert(WATCHDOG))
    await world.settle(20)
    assert world.reasons() == [Reason.BLIND, Reason.WATCHDOG, Reason.ADMITTED]


async def test_repeats_of_one_denial_are_counted_and_only_a_new_reason_is_news(
    world: World,
) -> None:
    world.serve(a_throttle())
    world.metrics.answers["p95"] = 0.2
    await decide(world, seconds=60)
    world.metrics.answers["p95"] = None
    await world.settle(30)
    world.metrics.answers["p95"] = 0.2
    await world.settle(15)
    found = [(row["reason"], row["count"]) for row in world.decisions()]
    assert found == [(Reason.REQUIRE, 5), (Reason.UNKNOWN, 2), (Reason.REQUIRE, 1)]


async def test_a_denial_is_looked_at_again_while_the_alert_fires_and_no_longer(
    world: World,
) -> None:
    world.serve(a_throttle())
    world.metrics.answers["p95"] = 0.2
    alert = an_alert()
    await world.fire(alert)
    await world.settle(30)
    asked = len(world.metrics.asked)
    assert asked == 3
    await world.resolve(alert)
    await world.settle(120)
    assert len(world.metrics.asked) == asked


async def test_a_resend_of_what_is_worked_on_asks_nothing_and_opens_nothing(world: World) -> None:
    world.serve(a_throttle())
    world.metrics.answers["p95"] = 0.4
    for _ in range(5):
        await decide(world, seconds=1)
    assert len(world.runs()) == 1
    assert world.reasons() == [Reason.ADMITTED]


async def test_a_new_playbook_takes_up_an_alert_that_had_none(world: World) -> None:
    await decide(world)
    world.serve(a_playbook())
    await world.settle(60)
    assert world.reasons() == [Reason.NO_PLAYBOOK]
    await world.controllers[0].reconciler.playbooks_changed()
    await world.settle()
    assert world.reasons() == [Reason.NO_PLAYBOOK, Reason.ADMITTED]


@pytest.mark.slow
async def test_an_alert_that_breaks_its_decision_does_not_hold_up_the_others(
    world: World,
) -> None:
    world.serve(a_throttle())
    world.metrics.answers["p95"] = 0.4

    def broken(_now: object) -> float:
        raise ZeroDivisionError

    world.serve(
        a_throttle(name="broken", guards=[{"require": {"query": "bug", "above": 0}}]),
        a_throttle(name="fine", on={"alerts": ['alertname="Other"']}),
    )
    world.metrics.answers["bug"] = broken
    await world.fire(an_alert())
    await world.fire(an_alert("Other", GPU2))
    await world.settle(5)
    assert [run.playbook for run in world.runs()] == ["fine"]
    world.metrics.answers["bug"] = 1
    await world.settle(20)
    assert [run.playbook for run in world.runs()] == ["fine", "broken"]


def test_lasting_reasons_are_not_looked_at_again_and_all_others_are() -> None:
    for reason in Reason:
        assert Denied(reason, "").is_transient is (reason not in LASTING)


def test_each_reason_is_met_in_a_test_of_the_engine() -> None:
    tests = Path(__file__).parent.glob("test_*.py")
    source = "".join(path.read_text(encoding="utf-8") for path in tests)
    assert [reason for reason in Reason if f"Reason.{reason.name}" not in source] == []


async def test_a_refused_call_is_told_with_the_reason_the_target_gave(world: World) -> None:
    world.serve(a_throttle(guards=[{"cooldown": "5m"}]))
    world.metrics.answers["p95"] = 0.4
    world.detector.script("set", Refuse("unauthorized"))
    await decide(world, seconds=1)
    assert world.calls() == [("set", "failed")]
    assert "refused: unauthorized" in world.run().reason
