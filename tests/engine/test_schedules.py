"""Schedules: what a playbook finds by itself is decided about as an alert is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from math import nan
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remediator.engine.schedules import slot_of
from remediator.model.playbook import Schedule
from remediator.model.run import Decided, RunState
from tests.builders import GPU1, GPU2, INSTANCE, a_playbook, an_alert
from tests.world import World

WHEN = {"query": "leak", "above": 0.9}


def looking(schedule: dict[str, Any] | None = None, **changed: Any) -> dict[str, Any]:
    """Return a playbook that looks by itself every 30 s."""
    return a_playbook(
        **{
            "name": "tidy",
            "on": {"schedule": {"every": "30s", "when": WHEN, **(schedule or {})}},
            "guards": [{"cooldown": "10m"}],
            **changed,
        }
    )


async def pass_time(world: World, seconds: int, *, step: int = 5) -> None:
    for _ in range(seconds // step):
        world.clock.advance(step)
        await world.tick()


@pytest.mark.slow
async def test_each_series_that_meets_the_condition_is_a_run_on_its_own_target(
    world: World,
) -> None:
    world.serve(looking())
    world.metrics.vectors["leak"] = {INSTANCE[GPU1]: 0.95, INSTANCE[GPU2]: 0.99}
    await pass_time(world, 40)
    assert sorted(run.target for run in world.runs()) == [GPU1, GPU2]
    alert = world.alerts()[0]
    assert (alert["source"], alert["labels"]["alertname"]) == ("schedule", "schedule:tidy")
    assert alert["annotations"]["query"] == "leak"


async def test_what_does_not_meet_it_is_no_alert(world: World) -> None:
    world.serve(looking())
    world.metrics.vectors["leak"] = {INSTANCE[GPU1]: 0.2}
    await pass_time(world, 120)
    assert world.alerts() == []


@pytest.mark.slow
async def test_it_is_over_when_it_is_measured_to_be_and_not_when_there_is_no_answer(
    world: World,
) -> None:
    world.serve(looking())
    world.metrics.vectors["leak"] = {INSTANCE[GPU1]: 0.95}
    await pass_time(world, 40)
    world.metrics.down = True
    await pass_time(world, 600)
    assert world.alerts()[0]["firing"]
    world.metrics.down = False
    world.metrics.vectors["leak"] = {INSTANCE[GPU1]: 0.5}
    await pass_time(world, 40)
    assert not world.alerts()[0]["firing"]


@pytest.mark.slow
async def test_a_series_that_vanished_is_over_only_after_the_time_an_alert_may_be_absent(
    world: World,
) -> None:
    world.serve(looking())
    world.metrics.vectors["leak"] = {INSTANCE[GPU1]: 0.95}
    await pass_time(world, 40)
    world.metrics.vectors["leak"] = {}
    await pass_time(world, 60)
    assert world.alerts()[0]["firing"]
    await pass_time(world, 120)
    assert not world.alerts()[0]["firing"]


async def test_alertmanager_not_listing_it_does_not_end_it(world: World) -> None:
    world.serve(looking())
    world.metrics.vectors["leak"] = {INSTANCE[GPU1]: 0.95}
    await pass_time(world, 40)
    world.clock.advance(25)
    await world.list_active()
    assert world.alerts()[0]["firing"]


@pytest.mark.slow
async def test_two_replicas_look_once_a_slot(world: World) -> None:
    world.serve(looking())
    world.metrics.vectors["leak"] = {INSTANCE[GPU1]: 0.95}
    world.controller("one")
    world.controller("two")
    await pass_time(world, 300)
    assert [a["seen"] for a in world.alerts()] == [11]
    assert len(world.runs()) == 1


async def test_a_playbook_that_is_no_longer_served_leaves_no_alert_behind(world: World) -> None:
    world.serve(looking())
    world.metrics.vectors["leak"] = {INSTANCE[GPU1]: 0.95}
    await pass_time(world, 40)
    world.serve(a_playbook())
    await pass_time(world, 220)
    assert not world.alerts()[0]["firing"]


@pytest.mark.slow
async def test_replicas_with_other_playbooks_do_not_fight_over_a_schedule(world: World) -> None:
    # As in a rolling update: one has the playbook, the other not yet.
    world.serve(looking())
    world.metrics.vectors["leak"] = {INSTANCE[GPU1]: 0.95}
    world.controller("one")
    world.controller("two").reconciler.library = dict
    await pass_time(world, 300)
    assert [(a["seen"], a["firing"]) for a in world.alerts()] == [(11, True)]
    assert len(world.runs()) == 1


@pytest.mark.slow
async def test_a_series_that_is_no_number_any_more_does_not_end_what_it_found(
    world: World,
) -> None:
    world.serve(looking())
    world.metrics.vectors["leak"] = {INSTANCE[GPU1]: 0.95}
    await pass_time(world, 40)
    world.metrics.vectors["leak"] = {INSTANCE[GPU1]: nan}
    await pass_time(world, 60)
    assert world.alerts()[0]["firing"]


async def test_an_alert_from_outside_cannot_pass_for_what_a_schedule_found(world: World) -> None:
    world.serve(looking())
    await world.fire(an_alert("schedule:tidy"))
    await world.settle(5)
    assert world.runs() == []
    assert world.reasons() == ["no_playbook"]


async def test_one_playbook_can_look_by_itself_and_listen_as_well(world: World) -> None:
    world.serve(
        looking(
            on=[
                {"alerts": ['alertname="Leak"']},
                {"schedule": {"every": "30s", "when": WHEN}},
            ]
        )
    )
    world.metrics.vectors["leak"] = {INSTANCE[GPU2]: 0.95}
    await world.fire(an_alert("Leak"))
    await pass_time(world, 40)
    assert sorted(run.target for run in world.runs()) == [GPU1, GPU2]


# -- cron ------------------------------------------------------------------------------------------

NIGHTLY = {"every": None, "cron": "0 2 * * *"}


async def test_a_cron_that_is_new_does_not_make_up_for_slots_before_it(world: World) -> None:
    world.serve(looking(NIGHTLY))  # it is noon
    world.metrics.vectors["leak"] = {INSTANCE[GPU1]: 0.95}
    await pass_time(world, 60)
    assert world.runs() == []


@pytest.mark.slow
async def test_each_slot_of_a_cron_has_one_run_whatever_the_guards_allow(world: World) -> None:
    world.serve(looking(NIGHTLY, guards=[]))
    world.metrics.vectors["leak"] = {INSTANCE[GPU1]: 0.95}
    await world.tick()
    for night in (1, 2):
        world.clock.now = datetime(2026, 3, 2 + night, 1, 59, 50, tzinfo=UTC)
        await pass_time(world, 900, step=10)
        assert len(world.runs()) == night
    assert [a["firing"] for a in world.alerts()] == [False, False]


@pytest.mark.slow
@pytest.mark.parametrize("cron", ["0 13 * * *", "*/5 * * * *"])
async def test_the_question_of_a_slot_is_open_as_long_as_it_says(world: World, cron: str) -> None:
    world.clock.now = datetime(2026, 3, 2, 12, 59, 50, tzinfo=UTC)
    slots = {"every": None, "cron": cron}
    world.serve(looking(slots, mode="propose", approval={"within": "30m"}))
    world.metrics.vectors["leak"] = {INSTANCE[GPU1]: 0.95}
    await world.tick()
    await pass_time(world, 25 * 60, step=60)
    assert world.runs()[0].state is RunState.WAITING
    assert await world.decide(world.runs()[0], Decided.APPROVED)
    await pass_time(world, 60)
    assert world.runs()[0].state is RunState.SUCCEEDED


async def test_a_slot_that_nobody_was_there_for_is_left_out(world: World) -> None:
    world.serve(looking(NIGHTLY))
    world.metrics.vectors["leak"] = {INSTANCE[GPU1]: 0.95}
    await world.tick()
    world.clock.now += timedelta(hours=20)  # past two at night, and nobody ticked
    await pass_time(world, 60)
    assert world.runs() == []


@pytest.mark.parametrize(
    ("now", "slot"),
    [
        ("2026-03-28T23:30:00+01:00", "2026-03-28T02:00:00+01:00"),
        ("2026-03-29T03:00:00+02:00", "2026-03-29T03:00:00+02:00"),  # two o'clock was skipped
        ("2026-10-25T02:30:00+01:00", "2026-10-25T02:00:00+02:00"),  # and this one came twice
    ],
)
def test_a_cron_keeps_to_the_wall_clock_of_its_time_zone(now: str, slot: str) -> None:
    schedule = Schedule.model_validate(
        {"cron": "0 2 * * *", "timezone": "Europe/Berlin", "when": WHEN}
    )
    assert slot_of(schedule, datetime.fromisoformat(now)) == datetime.fromisoformat(slot)


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"])
@pytest.mark.parametrize("day", ["2026-10-25", "2026-11-01", "2026-04-05", "2026-03-29"])
def test_no_slot_is_left_out_when_the_clocks_change(zone: str, day: str) -> None:
    schedule = Schedule.model_validate({"cron": "*/15 * * * *", "timezone": zone, "when": WHEN})
    midnight = datetime.fromisoformat(f"{day}T00:00+00:00") - timedelta(hours=12)
    for quarter in range(36 * 4):
        now = midnight + quarter * timedelta(minutes=15)
        assert slot_of(schedule, now) == now


@given(
    now=st.datetimes(
        min_value=datetime(2020, 1, 1),  # noqa: DTZ001 - hypothesis adds the zone
        max_value=datetime(2039, 1, 1),  # noqa: DTZ001 - hypothesis adds the zone
        timezones=st.just(ZoneInfo("UTC")),
    )
)
def test_a_slot_is_never_in_the_future_and_never_older_than_its_period(now: datetime) -> None:
    for spec, period in (({"every": "30s"}, 30), ({"cron": "*/5 * * * *"}, 300)):
        slot = slot_of(Schedule.model_validate({**spec, "when": WHEN}), now)
        assert slot is not None
        assert timedelta() <= now - slot < timedelta(seconds=period)
