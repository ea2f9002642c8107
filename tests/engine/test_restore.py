"""Restore: after the alert is over, on fresh healthy measurements only, one step at a time."""

from __future__ import annotations

import math
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from remediator.model.pace import Pace
from remediator.model.run import RunState
from remediator.model.verdict import ReadingStatus, Verdict
from tests.builders import a_restart, a_retune, a_throttle, an_alert
from tests.fakes import Outcome
from tests.world import World

pytestmark = pytest.mark.slow

ALERT = an_alert()
COOL = [{"cooldown": "1h"}]
HELD_FOR_40_MINUTES = Pace(max_hold=timedelta(minutes=40), review=timedelta(minutes=5))


async def throttled(world: World, **parts: Any) -> None:
    """Bring the first target from ten down to six, with the alert still firing."""
    world.serve(a_throttle(guards=COOL, **parts))
    world.metrics.answers["p95"] = lambda _now: 0.4 if world.detector.value() > 6 else 0.2
    await world.fire(ALERT)
    await world.ended()
    assert world.detector.value() == 6


async def over(world: World, p95: float = 0.1) -> None:
    world.metrics.answers["p95"] = p95
    await world.resolve(ALERT)


def given_back(world: World) -> list[object]:
    """Return what the restore runs really set, oldest first; None for the release."""
    wanted = [run.id for run in world.restores()]
    return [
        s.args["values"]["max_concurrency"] if s.verb == "set" else None
        for s in world.detector.applied()
        if any(s.key.startswith(f"run-{run_id}-") for run_id in wanted)
    ]


async def test_nothing_is_given_back_while_the_alert_fires(world: World) -> None:
    await throttled(world)
    world.metrics.answers["p95"] = 0.1
    await world.settle(1800)
    assert world.restores() == []
    assert world.detector.value() == 6


async def test_it_is_given_back_one_at_a_time_and_released_at_the_base(world: World) -> None:
    await throttled(world)
    await over(world)
    await world.until(lambda: world.changes(still_held=True) == [])
    assert given_back(world) == [7, 8, 9, None]
    assert world.detector.value() == 10
    assert world.detector.leases == {}
    (restore,) = world.restores()
    assert (restore.state, restore.verdict) == (RunState.SUCCEEDED, Verdict.IMPROVED)
    assert world.change()["state"] == "restored"
    assert world.messages()[-1]["title"] == "gpu-1: given back"


async def test_two_steps_are_never_closer_than_the_interval(world: World) -> None:
    await throttled(world)
    began = world.clock.now
    await over(world)
    await world.until(lambda: world.changes(still_held=True) == [])
    times = [s.at for s in world.detector.applied() if "give_back" in s.key]
    assert (times[0] - began).total_seconds() >= 120
    gaps = [(b - a).total_seconds() for a, b in pairwise(times)]
    assert min(gaps) >= 60


@pytest.mark.parametrize(
    "signal", [0.22, None, math.nan, ReadingStatus.ERROR], ids=["not well below", *"abc"]
)
async def test_nothing_is_given_back_without_healthy_measurements(
    world: World, signal: float | ReadingStatus | None
) -> None:
    await throttled(world)
    await over(world)
    world.metrics.answers["p95"] = signal
    await world.settle(600)
    assert given_back(world) == []
    assert world.detector.value() == 6
    assert world.change()["state"] == "restoring"


@pytest.mark.parametrize("signal", [0.24, None])
async def test_it_stops_half_way_when_it_is_not_healthy_any_more(
    world: World, signal: float | None
) -> None:
    await throttled(world)
    await over(world)
    await world.until(lambda: given_back(world) == [7])
    world.metrics.answers["p95"] = signal
    await world.settle(600)
    assert given_back(world) == [7]
    world.metrics.answers["p95"] = 0.1
    await world.until(lambda: given_back(world) == [7, 8])


async def test_measurements_from_before_a_pause_in_service_count_for_nothing(
    world: World,
) -> None:
    await throttled(world, step={"lease": "4h"})
    await over(world)
    await world.settle(115)
    (one,) = world.controllers
    world.controllers.clear()
    world.clock.advance(3600)
    world.metrics.answers["p95"] = 0.24
    world.controllers.append(one)
    await world.settle(60)
    assert given_back(world) == []


async def test_it_stops_when_the_alert_fires_again_and_the_value_stays(world: World) -> None:
    await throttled(world)
    await over(world)
    await world.until(lambda: given_back(world) == [7])
    await world.fire(ALERT)
    await world.settle(300)
    assert world.restores()[0].state is RunState.CANCELLED
    assert "fires again" in world.restores()[0].reason
    assert world.detector.value() == 7
    assert world.change()["state"] == "held"
    await world.resolve(ALERT)
    await world.until(lambda: given_back(world) == [7, 8])


async def test_a_new_run_takes_it_over_and_keeps_the_base(world: World) -> None:
    await throttled(world)
    await over(world)
    await world.until(lambda: given_back(world) == [7])
    world.serve(a_throttle(name="again"))
    world.metrics.answers["p95"] = lambda _now: 0.4 if world.detector.value() > 4 else 0.2
    await world.fire(ALERT)
    await world.settle(75)  # not within a hold-down of the step back
    assert [r.state for r in world.restores()] == [RunState.CANCELLED]
    change = world.change()
    assert (change["base"], change["value"], change["state"]) == (10, 6, "held")


async def test_a_step_undone_within_five_minutes_doubles_the_interval_once(world: World) -> None:
    await throttled(world)
    await over(world)
    await world.until(lambda: given_back(world) == [7])
    assert world.change()["restore_interval_s"] == 60
    # Two steps down at once after it: one restore step was too early, and only one.
    world.serve(a_throttle(name="again", guards=[], knobs={"window": "0s"}))
    world.metrics.answers["p95"] = lambda _now: 0.5 if world.detector.value() > 1 else 0.1
    await world.fire(ALERT)
    await world.until(lambda: world.detector.value() == 1)
    assert world.change()["restore_interval_s"] == 120
    await world.settle(60)
    await over(world)
    await world.until(lambda: world.detector.value() == 3)
    times = [s.at for s in world.detector.applied() if "give_back" in s.key]
    assert (times[-1] - times[-2]).total_seconds() >= 120


async def test_a_step_undone_later_than_that_doubles_nothing(world: World) -> None:
    await throttled(world)
    await over(world)
    await world.until(lambda: given_back(world) == [7])
    world.metrics.answers["p95"] = 0.24
    await world.settle(301)
    world.serve(a_throttle(name="again", guards=[]))
    world.metrics.answers["p95"] = lambda _now: 0.4 if world.detector.value() > 4 else 0.2
    await world.fire(ALERT)
    await world.settle(5)
    assert world.change()["restore_interval_s"] == 60


async def test_every_lease_along_the_way_keeps_the_pace_of_the_way_back(world: World) -> None:
    await throttled(world, on_resolve={"restore": {"every": "30s", "step": 2}})
    await world.settle(700)
    await over(world)
    await world.until(lambda: world.changes(still_held=True) == [])
    pace = {
        (s.args.get("revert_step"), s.args.get("revert_every_s"))
        for s in world.detector.applied("set")
    }
    assert len(world.detector.applied("set")) >= 4  # set, renewed twice, given back once
    assert pace == {(2, 30)}


async def test_without_a_way_back_the_lease_is_left_to_lapse(world: World) -> None:
    await throttled(world, on_resolve=None)
    await over(world)
    await world.settle(1)
    assert world.change()["state"] == "lapsing"
    await world.settle(1200)
    assert world.change()["state"] == "expired"
    assert world.detector.applied("release") == []
    assert world.detector.value() == 10


async def test_a_retuned_knob_is_given_back_when_its_own_proof_says_healthy(world: World) -> None:
    world.serve(a_retune({"batch_size": 4}, guards=COOL))
    world.metrics.answers["p95"] = lambda _now: 0.2 if world.detector.value("batch_size") < 8 else 1
    await world.fire(ALERT)
    run = await world.ended()
    assert run.verdict is Verdict.IMPROVED
    await world.resolve(ALERT)
    world.metrics.answers["p95"] = 0.2
    await world.until(lambda: world.detector.value("batch_size") == 8)


async def test_a_target_that_does_not_answer_is_left_to_its_lease_and_a_person_told(
    world: World,
) -> None:
    await throttled(world)
    await over(world)
    world.detector.script("set", *[Outcome.TEMPORARY] * 9)
    await world.until(lambda: world.changes(still_held=True) == [])
    (restore,) = world.restores()
    assert restore.state is RunState.CANCELLED
    assert world.change()["state"] == "expired"
    assert "could not be given back" in world.messages()[-1]["title"]
    await world.settle(1800)
    assert world.detector.value() == 10


async def test_a_restart_of_the_process_does_not_stop_the_way_back(world: World) -> None:
    await throttled(world)
    await over(world)
    await world.until(lambda: given_back(world) == [7])
    world.process.running = False
    await world.until(lambda: "does not answer" in world.restores()[0].reason)
    world.process.restart_by_hand()
    await world.until(lambda: world.changes(still_held=True) == [])
    assert world.detector.value() == 10


async def test_a_person_who_pins_during_the_way_back_keeps_the_knob(world: World) -> None:
    await throttled(world)
    await over(world)
    await world.until(lambda: given_back(world) == [7])
    world.detector.pin("max_concurrency", "ann", 5)
    await world.until(lambda: world.changes(still_held=True) == [])
    assert world.detector.value() == 5
    assert "given back" not in [m["title"].split(": ")[1] for m in world.messages()]
    await world.settle(600)
    assert world.detector.value() == 5


async def test_a_change_that_ends_otherwise_is_not_called_given_back(world: World) -> None:
    world.pace = HELD_FOR_40_MINUTES
    await throttled(world, on_resolve={"restore": {"every": "10m"}}, step={"lease": "30m"})
    await over(world)
    world.metrics.answers["p95"] = None
    await world.until(lambda: world.restores() != [])
    await world.until(lambda: world.changes(still_held=True) == [], within=7200)
    await world.settle(60)
    assert world.change()["state"] == "expired"
    (restore,) = world.restores()
    assert restore.state is RunState.CANCELLED
    assert not any("given back" in m["title"] for m in world.messages())


# -- renewals ------------------------------------------------------------------------------------


def renewals(world: World) -> list[float]:
    """Return when each renewal was sent, in seconds since the change was made."""
    made = world.change()["created_at"]
    return [
        (s.at - made).total_seconds()
        for s in world.detector.applied("set")
        if s.key.startswith("change-")
    ]


async def test_a_held_lease_is_renewed_after_each_third_of_it(world: World) -> None:
    await throttled(world)
    await world.settle(1500)
    assert [round(at, -1) for at in renewals(world)] == [300, 600, 900, 1200, 1500]
    keys = [s.key for s in world.detector.tried("set")]
    assert len(set(keys)) == len(keys)
    assert world.detector.value() == 6


async def test_renewals_go_on_while_everything_is_paused(world: World) -> None:
    await throttled(world)
    await world.pause(seconds=7200)
    await world.settle(1000)
    assert len(renewals(world)) == 3
    assert world.detector.value() == 6


async def test_a_run_that_only_waits_on_the_target_does_not_stop_the_renewals(
    world: World,
) -> None:
    await throttled(world)
    world.serve(a_restart())
    world.metrics.answers["up"] = 0
    world.detector.warm_after = None
    await world.settle(200)
    await world.fire(an_alert("Down", starts_at=world.clock.now))
    await world.settle(60)
    running = next(run for run in world.runs() if run.playbook == "restart")
    assert running.state.is_open
    assert renewals(world) == [300]


async def test_renewals_are_not_refused_after_another_run_has_acted_on_the_target(
    world: World,
) -> None:
    await throttled(world)
    world.serve(a_restart(guards=COOL))
    world.metrics.answers["alive"] = 1
    await world.fire(an_alert("Down", starts_at=world.clock.now))
    await world.settle(60)
    assert world.detector.applied("undrain") != []
    await world.settle(1500)
    assert len(renewals(world)) >= 4
    assert world.change()["renewal_error"] == ""
    assert world.detector.value() == 6


async def test_a_renewal_that_fails_is_on_record_and_tried_again(world: World) -> None:
    await throttled(world)
    world.detector.script("set", Outcome.TEMPORARY)
    await world.settle(310)
    assert "temporary" in world.change()["renewal_error"]
    await world.settle(300)
    assert world.change()["renewal_error"] == ""
    assert world.detector.value() == 6


async def test_nothing_is_held_longer_than_is_allowed_and_a_person_is_told(world: World) -> None:
    world.pace = HELD_FOR_40_MINUTES
    await throttled(world)
    world.metrics.answers["p95"] = 0.1
    await world.settle(40 * 60 + 300)
    assert world.change()["state"] == "lapsing"
    assert world.paged() == ["gpu-1: max_concurrency at 6 is not held any longer"]
    await world.settle(3600)
    assert world.detector.value() == 10


async def test_a_pin_ends_the_renewals_and_a_person_reads_why(world: World) -> None:
    await throttled(world)
    world.detector.pin("max_concurrency", "ann", 8)
    await world.settle(400)
    assert world.change()["state"] == "yielded"
    assert "taken over by a person" in world.messages()[-1]["title"]
    await world.settle(900)
    assert world.detector.value() == 8


async def test_a_renewal_repeats_the_value_that_is_held_now(world: World) -> None:
    await throttled(world)
    await over(world)
    await world.until(lambda: given_back(world) == [7])
    world.metrics.answers["p95"] = None
    await world.settle(700)
    sent = [s for s in world.detector.applied("set") if s.key.startswith("change-")]
    assert [s.args["values"]["max_concurrency"] for s in sent][-2:] == [7, 7]
    assert world.detector.value() == 7
