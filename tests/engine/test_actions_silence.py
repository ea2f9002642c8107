"""silence: exactly this alert, for a short while, and never longer than somebody works on it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from remediator.engine.actions.silence import refuse
from remediator.model.labels import Matcher
from remediator.model.run import RunState
from tests.builders import GPU1, INSTANCE, a_playbook, an_alert
from tests.fakes import NOON, Outcome
from tests.world import World

pytestmark = pytest.mark.slow

ALERT = {"alertname": "Slow", "instance": INSTANCE[GPU1]}


async def begin(world: World, *more: Any, silence: Any = None, **changed: Any) -> None:
    steps = [{"silence": silence or {}}, *more]
    world.serve(a_playbook(name="hush", guards=[{"cooldown": "1h"}], steps=steps, **changed))
    await world.fire(an_alert(starts_at=world.clock.now, severity="warning"))


async def test_exactly_this_alert_is_silenced_and_the_silence_ends_by_itself(world: World) -> None:
    await begin(world)
    run = await world.ended()
    assert run.state is RunState.SUCCEEDED
    (sent,) = world.silencer.applied()
    assert sent.args["matchers"] == [
        {"name": "alertname", "value": "Slow", "isRegex": False, "isEqual": True},
        {"name": "instance", "value": INSTANCE[GPU1], "isRegex": False, "isEqual": True},
    ]
    assert sent.args["ends_at"] == (NOON + timedelta(minutes=30)).isoformat()
    assert f"R{run.id} (hush)" in sent.args["comment"]
    assert len(world.silences.active) == 1


@pytest.mark.parametrize("value", ['x", job=~".*', ".*", "a|b", '"}', "~^$", "\\", "ü\n"])
async def test_a_label_is_data_whatever_it_looks_like(world: World, value: str) -> None:
    world.serve(a_playbook(name="hush", target=GPU1, steps=[{"silence": {}}]))
    await world.fire(an_alert("Slow", value))
    await world.ended()
    (sent,) = world.silencer.applied()
    assert sent.args["matchers"][1] == {
        "name": "instance",
        "value": value,
        "isRegex": False,
        "isEqual": True,
    }


async def test_more_than_four_hours_are_never_asked_for(world: World) -> None:
    await begin(world, silence={"for": "1d"})
    await world.ended()
    (sent,) = world.silencer.applied()
    assert sent.args["ends_at"] == (NOON + timedelta(hours=4)).isoformat()


@pytest.mark.parametrize(
    ("matchers", "why"),
    [
        (['alertname="Other"'], "does not match this alert"),
        (['severity="critical"', 'alertname="Slow"'], "does not match this alert"),
        (['alertname=~".*"'], "would silence everything"),
        (['alertname=~".+"', 'job!="x"'], "would silence everything"),
        (['alertname=~"\\\\w+"'], "would silence everything"),
        (['nothing=""'], "would silence everything"),
        (['alertname!~"Other"'], "would silence everything"),
    ],
)
async def test_what_would_miss_this_alert_or_hit_all_of_them_is_refused(
    world: World, matchers: list[str], why: str
) -> None:
    await begin(world, silence={"matchers": matchers})
    run = await world.ended()
    assert run.state is RunState.FAILED
    assert why in run.reason
    assert world.silencer.sent == []


async def test_matchers_of_the_playbook_take_the_place_of_the_usual_ones(world: World) -> None:
    await begin(world, silence={"matchers": ['alertname=~"Sl.w"', 'severity!="critical"']})
    await world.ended()
    (sent,) = world.silencer.applied()
    assert [(m["value"], m["isRegex"], m["isEqual"]) for m in sent.args["matchers"]] == [
        ("Sl.w", True, True),
        ("critical", False, False),
    ]


def test_what_a_schedule_found_is_no_alert_of_alertmanager() -> None:
    labels = {"alertname": "schedule:hush", "instance": "a"}
    matchers = [Matcher("instance", "=", "a")]
    assert "a schedule found this" in refuse(matchers, labels)
    assert refuse(matchers, {**labels, "alertname": "Slow"}) == ""


@pytest.mark.parametrize("outcome", [Outcome.UNKNOWN_APPLIED, Outcome.UNKNOWN_LOST])
async def test_an_unknown_outcome_is_settled_by_a_look_and_one_silence_is_made(
    world: World, outcome: Outcome
) -> None:
    world.silencer.script("silence", outcome)
    await begin(world)
    run = await world.ended()
    assert run.state is RunState.SUCCEEDED
    assert len(world.silencer.applied("silence")) == 1
    assert len(world.silences.active) == 1


async def test_a_refusal_goes_to_a_person(world: World) -> None:
    world.silencer.script("silence", Outcome.PERMANENT)
    await begin(world)
    run = await world.ended()
    assert run.state is RunState.FAILED
    assert world.paged()


@pytest.mark.parametrize("how", ["fails", "cancelled"])
async def test_an_alert_that_nobody_works_on_any_more_is_heard_again(
    world: World, how: str
) -> None:
    later = {"check": {"query": "never", "above": 0}} if how == "fails" else {"wait": "10m"}
    await begin(world, later)
    if how == "cancelled":
        await world.settle(5)
        assert len(world.silences.active) == 1
        await world.cancel(world.run())
    run = await world.ended()
    assert run.state is RunState.ROLLED_BACK
    assert world.silences.active == []
    assert world.calls() == [("silence", "ok"), ("undo:silence", "ok")]


async def test_a_death_after_the_silence_was_made_makes_no_second_one(world: World) -> None:
    world.dying("one", before="_confirm")
    world.controller("two")
    await begin(world)
    run = await world.ended()
    assert run.state is RunState.SUCCEEDED
    assert len(world.silences.active) == 1


async def test_a_run_that_comes_too_late_silences_nothing(world: World) -> None:
    world.silencer.script("silence", *[Outcome.TEMPORARY] * 4)
    await begin(world, silence={"for": "2s"})
    run = await world.ended()
    assert run.state is RunState.FAILED
    assert "by now it would be over" in run.reason


async def test_observing_silences_nothing(world: World) -> None:
    await begin(world, mode="observe")
    run = await world.ended()
    assert run.state is RunState.SUCCEEDED
    assert world.silencer.sent == []
