"""Restart: drain, stop, start, ready, canary, undrain; nothing half-done stays, nothing twice."""

from __future__ import annotations

import pytest

from remediator.model.run import RunState
from remediator.model.verdict import Verdict
from tests.builders import a_restart, an_alert
from tests.fakes import NOON, Outcome, Refuse
from tests.world import World

pytestmark = pytest.mark.slow

COOL = [{"cooldown": "1h"}]
WHOLE = [
    ("drain", "ok"),
    ("stop", "ok"),
    ("start", "ok"),
    ("canary", "ok"),
    ("undrain", "ok"),
]
UNDRAINED = ("undo:drain", "ok")
STARTED_AGAIN = ("undo:stop", "ok")


def serve(world: World, **parts: object) -> None:
    world.serve(a_restart(guards=COOL, **parts))  # type: ignore[arg-type]
    world.metrics.answers["up"] = lambda _now: int(world.process.responds)
    world.metrics.answers["alive"] = lambda _now: int(
        world.process.responds and world.detector.sees
    )


async def begin(world: World, **parts: object) -> None:
    serve(world, **parts)
    await world.fire(an_alert("Down", starts_at=world.clock.now))


async def test_a_target_that_still_answers_is_drained_restarted_proved_and_undrained(
    world: World,
) -> None:
    await begin(world)
    run = await world.ended()
    assert world.calls() == WHOLE
    assert (run.state, run.verdict) == (RunState.SUCCEEDED, Verdict.IMPROVED)
    assert world.process.pid == 101
    assert not world.detector.draining


async def test_a_dead_target_is_not_drained(world: World) -> None:
    world.process.hung = True
    await begin(world)
    run = await world.ended()
    assert world.calls() == [("stop", "ok"), ("start", "ok"), ("canary", "ok")]
    assert run.verdict is Verdict.IMPROVED


async def test_without_a_wish_to_drain_nothing_is_drained(world: World) -> None:
    await begin(world, restart={"drain": False})
    await world.ended()
    assert world.calls()[0] == ("stop", "ok")
    assert world.detector.tried("drain") == []


async def test_work_in_flight_may_finish_first(world: World) -> None:
    world.detector.inflight = 3
    await begin(world)
    await world.settle(10)
    assert world.calls() == [("drain", "ok")]
    assert "3 requests still in flight" in world.run().reason
    world.detector.inflight = 0
    await world.settle(2)
    assert world.calls()[:2] == WHOLE[:2]


async def test_work_that_never_ends_is_not_waited_for_for_ever(world: World) -> None:
    world.detector.inflight = 3
    await begin(world, restart={"drain_within": "20s"})
    await world.settle(19)
    assert world.process.sent == []
    await world.settle(2)
    assert [s.verb for s in world.process.applied()] == ["stop", "start"]


async def test_a_target_that_refuses_to_drain_is_restarted_all_the_same(world: World) -> None:
    world.detector.script("drain", Refuse("drained"))
    await begin(world)
    run = await world.ended()
    assert world.calls() == [("drain", "failed"), *WHOLE[1:4]]
    assert run.verdict is Verdict.IMPROVED


async def test_a_drain_that_may_have_been_applied_is_taken_back_at_the_end(world: World) -> None:
    lost = Outcome.UNKNOWN_APPLIED
    world.detector.script("drain", lost, lost, lost, lost)
    await begin(world)
    run = await world.ended()
    assert run.state is RunState.SUCCEEDED
    assert world.calls()[-1] == ("undrain", "ok")
    assert not world.detector.draining


async def test_what_somebody_has_restarted_already_is_only_proved(world: World) -> None:
    await begin(world)
    world.clock.advance(5)
    world.process.restart_by_hand()
    run = await world.ended()
    assert world.process.sent == []
    assert world.detector.sent == []
    assert (run.state, run.verdict) == (RunState.SUCCEEDED, Verdict.UNCHANGED)


async def test_what_somebody_restarted_and_died_again_is_restarted(world: World) -> None:
    await begin(world)
    world.clock.advance(5)
    world.process.restart_by_hand()
    await world.settle(10)
    world.process.running = False
    run = await world.ended()
    assert [s.verb for s in world.process.applied()] == ["stop", "start"]
    assert run.verdict is Verdict.IMPROVED


async def test_a_process_that_started_before_the_alert_is_restarted(world: World) -> None:
    world.clock.advance(3600)
    world.process.started_at = NOON
    await begin(world)
    await world.settle(1)
    assert world.process.applied("stop") != []


async def test_a_process_manager_that_does_not_answer_is_told_to_a_person(world: World) -> None:
    world.process.reachable = False
    await begin(world)
    await world.ended()
    assert "process manager cannot be asked" in world.run().reason
    assert world.paged() == ["restart on gpu-1: needs a person"]


async def test_one_that_does_not_become_ready_is_handed_to_a_person_undrained(
    world: World,
) -> None:
    world.detector.warm_after = None
    await begin(world)
    run = await world.ended()
    assert run.state is RunState.ROLLED_BACK
    assert "not ready in time" in run.reason
    assert world.calls() == [*WHOLE[:3], UNDRAINED]
    assert world.paged() == ["restart on gpu-1: needs a person"]


async def test_readiness_is_waited_for(world: World) -> None:
    world.detector.warm_after = 60
    await begin(world)
    await world.settle(59)
    assert world.calls() == WHOLE[:3]
    run = await world.ended()
    assert run.verdict is Verdict.IMPROVED


async def test_one_that_does_not_see_its_canary_is_not_called_restarted(world: World) -> None:
    world.detector.sees = False
    await begin(world)
    run = await world.ended()
    assert "does not see its canary" in run.reason
    assert world.calls()[-1] == UNDRAINED
    assert world.paged() == ["restart on gpu-1: needs a person"]


async def test_a_restart_that_made_it_worse_is_handed_over_at_once_for_it_has_no_undo(
    world: World,
) -> None:
    verify = {"query": "alive", "above": 5, "within": "3m", "for": "30s", "window": "0s"}
    await begin(world, step={"verify": verify})
    world.metrics.answers["alive"] = lambda now: 4 if now <= NOON else 1
    run = await world.ended()
    assert (run.state, run.verdict) == (RunState.FAILED, Verdict.WORSE)
    assert world.calls() == WHOLE
    assert (run.closed_at or run.opened_at) < NOON.replace(minute=1)
    assert world.paged() == ["restart on gpu-1: needs a person"]


async def test_a_stop_of_unknown_outcome_is_never_sent_again_and_the_target_not_left_stopped(
    world: World,
) -> None:
    world.process.script("stop", Outcome.UNKNOWN_APPLIED)
    await begin(world)
    run = await world.ended()
    assert len(world.process.tried("stop")) == 1
    assert world.process.running
    assert not world.detector.draining
    assert world.calls() == [("drain", "ok"), ("stop", "unknown"), STARTED_AGAIN, UNDRAINED]
    assert run.state is RunState.ROLLED_BACK
    assert world.paged() == ["restart on gpu-1: needs a person"]


@pytest.mark.parametrize(
    ("applied", "sends"),
    [(Outcome.UNKNOWN_APPLIED, 1), (Outcome.UNKNOWN_LOST, 2)],
)
async def test_a_probe_finds_out_whether_a_stop_was_applied(
    world: World, applied: Outcome, sends: int
) -> None:
    world.process.script("stop", applied)
    await begin(world, step={"on_unknown": "probe"})
    run = await world.ended()
    assert len(world.process.tried("stop")) == sends
    assert len(world.process.applied("stop")) == 1
    assert run.verdict is Verdict.IMPROVED
    assert world.process.pid == 101


async def test_a_probe_that_cannot_tell_ends_with_a_person(world: World) -> None:
    world.process.script("stop", Outcome.UNKNOWN_LOST)
    world.process.probe_answers.append(None)
    await begin(world, step={"on_unknown": "probe"})
    run = await world.ended()
    assert len(world.process.tried("stop")) == 1
    assert run.state is RunState.ROLLED_BACK
    assert world.paged() == ["restart on gpu-1: needs a person"]


async def test_a_start_that_fails_is_tried_again_as_the_undo_of_the_stop(world: World) -> None:
    world.process.script("start", Outcome.PERMANENT)
    await begin(world)
    run = await world.ended()
    assert world.calls() == [
        *WHOLE[:2],
        ("start", "failed"),
        STARTED_AGAIN,
        UNDRAINED,
    ]
    assert world.process.running
    assert run.state is RunState.ROLLED_BACK


async def test_a_target_that_cannot_be_started_again_always_reaches_a_person(
    world: World,
) -> None:
    world.process.script("start", *[Outcome.PERMANENT] * 9)
    await begin(world)
    run = await world.ended()
    assert run.state is RunState.ROLLBACK_FAILED
    assert "could not be taken back: stop" in run.reason
    assert "restart on gpu-1: rollback failed" in world.paged()


@pytest.mark.parametrize("retries", [0, 2])
async def test_a_stop_that_was_provably_not_sent_is_tried_as_often_as_allowed(
    world: World, retries: int
) -> None:
    world.process.script("stop", *[Outcome.TEMPORARY] * 9)
    await begin(world, step={"retries": retries})
    run = await world.ended()
    assert len(world.process.tried("stop")) == retries + 1
    assert world.calls()[-1] == UNDRAINED
    assert run.state is RunState.ROLLED_BACK


async def test_a_call_that_hangs_beyond_its_time_is_unknown_and_the_run_still_ends(
    world: World,
) -> None:
    world.process.script("stop", Outcome.HANG)
    await begin(world, step={"timeout": "50ms"})
    run = await world.ended()
    assert world.calls()[1] == ("stop", "unknown")
    assert run.state is RunState.ROLLED_BACK
    assert world.paged() == ["restart on gpu-1: needs a person"]


async def test_an_adapter_that_breaks_is_treated_like_a_crash(world: World) -> None:
    world.process.script("stop", Outcome.CRASH)
    await begin(world, step={"on_unknown": "probe"})
    run = await world.ended()
    assert len(world.process.tried("stop")) == 1
    assert run.verdict is Verdict.IMPROVED


async def test_a_pause_between_drain_and_stop_takes_the_drain_back(world: World) -> None:
    world.detector.inflight = 1
    await begin(world)
    await world.settle(5)
    await world.pause()
    world.detector.inflight = 0
    run = await world.ended()
    assert world.calls() == [("drain", "ok"), UNDRAINED]
    assert not world.detector.draining
    assert world.process.sent == []
    assert (run.state, run.stop_reason) == (RunState.ROLLED_BACK, run.stop_reason)
    assert "paused" in run.reason


async def test_a_pause_after_the_stop_lets_the_restart_finish(world: World) -> None:
    world.detector.warm_after = 20
    await begin(world)
    await world.settle(5)
    await world.pause()
    run = await world.ended()
    assert world.calls() == WHOLE
    assert run.verdict is Verdict.IMPROVED


async def test_a_cancel_while_it_is_stopped_starts_it_and_undrains(world: World) -> None:
    world.process.script("start", Outcome.TEMPORARY)
    await begin(world)
    await world.tick()
    assert world.process.applied("stop") != []
    await world.cancel(world.run())
    run = await world.ended()
    assert world.process.running
    assert not world.detector.draining
    assert run.state is RunState.ROLLED_BACK
    assert world.paged() == []


async def test_what_was_taken_back_once_is_not_taken_back_twice(world: World) -> None:
    world.process.script("start", Outcome.PERMANENT)
    world.detector.script("undrain", Outcome.TEMPORARY, Outcome.TEMPORARY)
    await begin(world)
    await world.ended()
    assert len(world.process.applied("start")) == 1
    assert len(world.detector.applied("undrain")) == 1
    assert all(row.undone for row in world.steps() if row.undo is not None)
