"""Windows: they hold as long as they say, in their own time zone, also when the clocks change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import given
from hypothesis import strategies as st

from remediator.engine.guards.windows import began
from remediator.model.decision import Reason
from remediator.model.guard import WindowSpec
from tests.builders import a_playbook, an_alert
from tests.world import World


def window(cron: str, length: str, timezone: str = "UTC") -> WindowSpec:
    return WindowSpec.model_validate({"cron": cron, "for": length, "timezone": timezone})


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


@pytest.mark.parametrize(
    ("moment", "inside"),
    [
        ("2026-03-02T21:59:59.999Z", False),
        ("2026-03-02T22:00:00Z", True),
        ("2026-03-02T22:00:00.000001Z", True),
        ("2026-03-03T03:59:59.999Z", True),
        ("2026-03-03T04:00:00Z", False),
    ],
)
def test_a_window_begins_and_ends_to_the_moment(moment: str, *, inside: bool) -> None:
    assert (began(window("0 22 * * *", "6h"), at(moment)) is not None) is inside


def test_a_window_is_in_its_own_time_zone() -> None:
    berlin = window("0 9 * * MON-FRI", "8h", "Europe/Berlin")
    assert began(berlin, at("2026-03-02T08:30:00Z")) == at("2026-03-02T08:00:00Z")
    assert began(berlin, at("2026-07-06T07:30:00Z")) == at("2026-07-06T07:00:00Z")
    assert began(berlin, at("2026-07-05T09:30:00Z")) is None  # a Sunday


def test_a_window_that_the_clocks_skip_begins_right_after_the_gap() -> None:
    # In Berlin on 29 March 2026 the wall goes from 02:00 to 03:00, at 01:00 UTC.
    night = window("30 2 * * *", "1h", "Europe/Berlin")
    assert began(night, at("2026-03-29T00:59:00Z")) is None
    assert began(night, at("2026-03-29T01:00:00Z")) == at("2026-03-29T01:00:00Z")
    assert began(night, at("2026-03-29T01:59:00Z")) == at("2026-03-29T01:00:00Z")
    assert began(night, at("2026-03-29T02:00:00Z")) is None


def test_a_window_whose_time_comes_twice_begins_once_and_lasts_as_long_as_it_says() -> None:
    # In Berlin on 25 October 2026 the wall shows 02:30 at 00:30 and again at 01:30 UTC.
    night = window("30 2 * * *", "50m", "Europe/Berlin")
    assert began(night, at("2026-10-25T00:29:00Z")) is None
    assert began(night, at("2026-10-25T00:31:00Z")) == at("2026-10-25T00:30:00Z")
    # 02:15 on the wall for the second time: 45 minutes after the start.
    assert began(night, at("2026-10-25T01:15:00Z")) == at("2026-10-25T00:30:00Z")
    assert began(night, at("2026-10-25T01:20:00Z")) is None
    assert began(night, at("2026-10-25T01:31:00Z")) is None


ZONES = ["UTC", "Europe/Berlin", "America/New_York", "America/Santiago", "Asia/Kolkata"]
CHANGES = [at("2026-03-29T01:00:00Z"), at("2026-10-25T01:00:00Z"), at("2026-03-08T07:00:00Z")]
CHANGES += [at("2026-11-01T06:00:00Z"), at("2026-04-05T03:00:00Z"), at("2026-09-06T04:00:00Z")]


@given(
    zone=st.sampled_from(ZONES),
    minute=st.sampled_from(["0", "30", "59", "*/15", "0,45"]),
    hour=st.sampled_from(["*", "1", "2", "3", "*/2", "22"]),
    length=st.integers(1, 40 * 60),
    change=st.sampled_from(CHANGES),
    offset=st.integers(-36 * 3600, 36 * 3600),
)
def test_a_window_holds_exactly_from_each_of_its_starts_for_its_length(
    *, zone: str, minute: str, hour: str, length: int, change: datetime, offset: int
) -> None:
    now = change + timedelta(seconds=offset)
    spec = window(f"{minute} {hour} * * *", f"{length}m", zone)
    long_ago = (now - timedelta(days=2)).astimezone(ZoneInfo(zone))
    starts = []
    for start in CronSim(spec.cron, long_ago):
        if start.astimezone(UTC) > now:
            break
        starts.append(start.astimezone(UTC))
    holds = any(start <= now < start + spec.length for start in starts)
    found = began(spec, now)
    assert (found is not None) is holds
    assert found is None or found == max(starts)


@pytest.mark.parametrize(
    ("guard", "cron", "admitted"),
    [
        ("only_during", "0 11 * * *", True),
        ("only_during", "0 13 * * *", False),
        ("not_during", "0 11 * * *", False),
        ("not_during", "0 13 * * *", True),
    ],
)
async def test_a_run_begins_in_its_hours_and_not_while_somebody_is_at_work(
    world: World, *, guard: str, cron: str, admitted: bool
) -> None:
    world.serve(a_playbook(guards=[{guard: {"cron": cron, "for": "2h"}}]))
    await world.fire(an_alert())
    await world.settle()
    assert world.reasons() == [Reason.ADMITTED if admitted else Reason.WINDOW]
    world.clock.advance(3600)
    await world.settle(1)
    assert Reason.ADMITTED in world.reasons()


async def test_a_denial_outside_the_hours_says_which_they_are_and_when_they_end(
    world: World,
) -> None:
    spec = {"cron": "0 12 * * *", "for": "90m", "timezone": "Europe/London"}
    world.serve(a_playbook(guards=[{"not_during": spec}]))
    await world.fire(an_alert())
    await world.settle()
    (decision,) = world.decisions()
    assert "2026-03-02 13:30:00 UTC" in decision["detail"]
    assert decision["evidence"]["cron"] == "0 12 * * *"
    assert decision["evidence"]["timezone"] == "Europe/London"
