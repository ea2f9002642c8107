"""The ineffectiveness breaker: what keeps not helping is held back, and nothing else is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remediator.engine.breaker import LONGEST_RESET, standing
from remediator.model.decision import Reason
from remediator.model.guard import Breaker
from remediator.model.playbook import Mode
from remediator.model.run import Phase, Run, RunKind, RunState
from remediator.model.verdict import Verdict
from remediator.store import overrides
from remediator.store.overrides import Ruling
from tests.builders import GPU1, GPU2, GPU3, a_restart, a_retune, an_alert, pinned
from tests.fakes import NOON
from tests.world import World, a_world

# Each tells a long story; together they are a proof and no quick look.
pytestmark = pytest.mark.slow

MINUTE = timedelta(minutes=1)
SPEC = Breaker()
VERIFY = {"query": "alive", "above": 0, "within": "1m", "for": "30s", "window": "0s"}
BAD, GOOD = Verdict.UNCHANGED, Verdict.IMPROVED


def a_run(number: int, verdict: Verdict, *, opened: float, minutes: float = 1) -> Run:
    """Return a closed run that opened so many minutes after noon."""
    at = NOON + opened * MINUTE
    return Run(
        id=number,
        kind=RunKind.REMEDY,
        playbook="p",
        playbook_sha="",
        plan={},
        mode=Mode.AUTO,
        proposed=False,
        priority=20,
        target=GPU1,
        pool="",
        alert_id=None,
        parent_id=None,
        change_id=None,
        state=RunState.FAILED,
        phase=Phase.FORWARD,
        verdict=verdict,
        reason="",
        pc=0,
        due_at=at,
        owner=None,
        epoch=1,
        lease_until=None,
        fencing_token=1,
        holds_slot=False,
        stop_reason=None,
        step_started_at=at,
        opened_at=at,
        acted_at=at,
        closed_at=at + minutes * MINUTE,
    )


def in_a_row(*verdicts: Verdict) -> list[Run]:
    return [a_run(n, verdict, opened=10 * n) for n, verdict in enumerate(verdicts, start=1)]


@pytest.mark.parametrize("verdict", [Verdict.UNCHANGED, Verdict.WORSE, Verdict.UNKNOWN])
def test_it_opens_after_three_in_a_row_that_did_not_help(verdict: Verdict) -> None:
    assert standing(in_a_row(verdict, verdict), SPEC).until is None
    found = standing(in_a_row(verdict, verdict, verdict), SPEC)
    assert (found.failures, found.opened_by) == (3, 3)
    assert found.until == NOON + 31 * MINUTE + SPEC.reset


def test_one_that_helped_starts_the_count_again() -> None:
    assert standing(in_a_row(BAD, BAD, GOOD, BAD, BAD), SPEC).until is None
    assert standing(in_a_row(BAD, BAD, BAD, GOOD), SPEC).until is None


def test_every_trial_that_fails_doubles_the_time_to_the_next_up_to_a_day() -> None:
    ended = in_a_row(BAD, BAD, BAD)
    expected = SPEC.reset
    for number in range(4, 16):
        found = standing(ended, SPEC)
        assert found.reset == expected
        assert found.until is not None
        opened = (found.until - NOON) / MINUTE
        ended.append(a_run(number, BAD, opened=opened))
        expected = min(2 * expected, LONGEST_RESET)
    assert standing(ended, SPEC).reset == LONGEST_RESET
    assert standing(ended, SPEC).failed_trial == 15


def test_a_run_that_was_under_way_when_it_opened_is_no_trial() -> None:
    ended = [*in_a_row(BAD, BAD, BAD), a_run(4, BAD, opened=29, minutes=10)]
    found = standing(ended, SPEC)
    assert (found.reset, found.failed_trial) == (SPEC.reset, None)
    assert found.until == NOON + 39 * MINUTE + SPEC.reset


def test_a_trial_that_helps_closes_it_and_forgets_the_doubling() -> None:
    ended = [*in_a_row(BAD, BAD, BAD), a_run(4, BAD, opened=70), a_run(5, GOOD, opened=200)]
    assert standing(ended, SPEC) == standing([], SPEC)
    again = [*ended, *(a_run(n, BAD, opened=100 * n) for n in range(6, 9))]
    assert standing(again, SPEC).reset == SPEC.reset


def test_a_reset_longer_than_a_day_is_a_day() -> None:
    assert standing([], Breaker(reset=timedelta(days=7))).reset == LONGEST_RESET


@given(st.lists(st.sampled_from(list(Verdict)), max_size=30), st.integers(1, 5))
def test_it_is_open_exactly_when_the_last_runs_all_did_not_help(
    verdicts: Sequence[Verdict], failures: int
) -> None:
    found = standing(in_a_row(*verdicts), Breaker(failures=failures))
    row = 0
    for verdict in verdicts:
        row = 0 if verdict is GOOD else row + 1
    assert found.failures == row
    assert (found.until is not None) is (row >= failures)


# -- through the journal ---------------------------------------------------------------------------


def hopeless(world: World, **changed: Any) -> None:
    """Serve a restart that never helps, and look at denials once in a while."""
    world.pace = replace(world.pace, review=timedelta(minutes=5))
    world.metrics.answers |= {"up": 0, "alive": 0}
    world.serve(a_restart(**changed))


async def to_the_brink(world: World) -> None:
    """Let three runs not help, and the breaker open."""
    await world.fire(an_alert("Down"))
    await world.until(lambda: Reason.BREAKER in world.reasons())
    assert [run.verdict for run in world.runs()] == [Verdict.UNCHANGED] * 3


async def test_what_did_not_help_three_times_is_held_back_and_a_person_told_once(
    world: World,
) -> None:
    hopeless(world)
    await to_the_brink(world)
    await world.settle(20 * 60)
    assert len(world.runs()) == 3
    told = [title for title in world.paged() if "does not help" in title]
    assert told == ["restart does not help detectors: needs a person"]
    denial = world.decisions()[-1]
    assert (denial["evidence"]["failures"], denial["evidence"]["allowed"]) == (3, 3)
    assert (denial["evidence"]["class"], denial["evidence"]["opened_by"]) == ("detectors", 3)


async def test_it_holds_for_every_target_of_the_pool_and_for_no_other_playbook(
    world: World,
) -> None:
    hopeless(world)
    await to_the_brink(world)
    world.library["then"] = pinned(a_restart(name="then"))
    await world.fire(an_alert("Down", GPU2))
    await world.settle()
    found = {(row["playbook"], row["target"]): row["reason"] for row in world.decisions()}
    assert found["restart", GPU2] == Reason.BREAKER
    assert found["then", GPU2] == Reason.ADMITTED


async def test_after_the_reset_one_trial_at_a_time_is_let_through(tmp_path: Path) -> None:
    with a_world(tmp_path, targets=(GPU1, GPU2, GPU3)) as world:
        hopeless(world)
        await to_the_brink(world)
        await world.fire(an_alert("Down", GPU2), an_alert("Down", GPU3))
        await world.until(lambda: len(world.runs()) == 4)
        await world.settle(60)
        assert len(world.runs()) == 4
        denied = [row for row in world.decisions() if row["reason"] == Reason.BREAKER]
        assert {row["evidence"].get("trial") for row in denied[1:]} == {4}


async def test_a_trial_that_fails_lets_the_playbook_only_propose_and_tells_a_person_once(
    world: World,
) -> None:
    hopeless(world)
    await to_the_brink(world)
    await world.until(lambda: len(world.runs()) == 4)
    trial = world.runs()[-1]
    await world.until(lambda: "restart may only propose from now on" in _titles(world))
    caps = await world.db.read(overrides.mode_caps, playbook="restart", target=GPU1)
    assert [(cap.mode, cap.by) for cap in caps] == [(Mode.PROPOSE, "breaker")]
    assert f"R{trial.id}" in caps[0].reason
    await world.until(lambda: len(world.runs()) == 5, within=2 * 3600)
    *_, trial, asked = world.runs()
    assert (asked.mode, asked.proposed, asked.holds_slot) == (Mode.PROPOSE, True, False)
    assert trial.closed_at is not None
    assert asked.opened_at >= trial.closed_at + 2 * SPEC.reset
    assert _titles(world).count("restart may only propose from now on") == 1


async def test_who_lifts_the_demotion_is_not_overruled_by_the_same_failure(world: World) -> None:
    hopeless(world)
    await to_the_brink(world)
    await world.until(lambda: "restart may only propose from now on" in _titles(world))
    await world.db.write(overrides.lift_mode, scope="playbook", name="restart", by="ann")
    await world.until(lambda: len(world.runs()) == 5, within=2 * 3600)
    assert world.runs()[-1].mode is Mode.AUTO


def _titles(world: World) -> list[str]:
    return [row["title"] for row in world.messages()]


async def test_a_person_may_reset_it(world: World) -> None:
    hopeless(world)
    await to_the_brink(world)
    await world.db.write(
        overrides.reset_breaker,
        playbook="restart",
        target_class="detectors",
        by="ann",
        reason="new driver",
    )
    await world.settle(301)
    assert len(world.runs()) == 4


async def test_a_person_may_waive_it_and_the_record_says_so(world: World) -> None:
    hopeless(world)
    await to_the_brink(world)
    await world.db.write(
        overrides.add,
        scope="target",
        name=GPU1,
        decision=Ruling.WAIVE,
        guards=("breaker",),
        reason="watching it",
        by="ann",
        until=world.clock() + timedelta(hours=1),
    )
    await world.settle(301)
    admitted = world.decisions()[-1]
    assert admitted["reason"] == Reason.ADMITTED
    assert admitted["evidence"]["waived"]["breaker"]["by"] == "ann"
    assert admitted["evidence"]["waived"]["breaker"]["would have been"] == Reason.BREAKER


async def test_it_stands_where_it_stood_after_a_restart_and_on_every_replica(
    world: World,
) -> None:
    hopeless(world)
    await to_the_brink(world)
    world.controllers[0].dead = True
    world.controller("two")
    await world.settle(10 * 60)
    assert len(world.runs()) == 3


async def test_a_playbook_may_set_its_own_breaker(world: World) -> None:
    guards = [
        {"require": {"query": "up", "below": 1}},
        {"breaker": {"failures": 1, "reset": "9m"}},
    ]
    hopeless(world, guards=guards)
    await world.fire(an_alert("Down"))
    await world.until(lambda: Reason.BREAKER in world.reasons())
    assert len(world.runs()) == 1
    await world.settle(5 * 60)
    assert len(world.runs()) == 2


async def test_what_a_person_stopped_does_not_count_against_it(world: World) -> None:
    hopeless(world)
    await world.fire(an_alert("Down"))
    for count in range(1, 6):
        await world.until(lambda count=count: len(world.runs()) == count)  # type: ignore[misc]
        await world.settle(5)
        await world.cancel(world.runs()[-1])
        await world.settle(1)
    assert Reason.BREAKER not in world.reasons()


async def test_observing_opens_no_breaker_because_nothing_was_tried(world: World) -> None:
    hopeless(world, mode="observe")
    await world.fire(an_alert("Down"))
    await world.until(lambda: len(world.runs()) == 5)
    assert Reason.BREAKER not in world.reasons()


async def test_an_open_breaker_traps_nothing_that_is_held(world: World) -> None:
    # What was changed is renewed while it is needed and restored when it is over, though the
    # playbook that changed it is held back.
    world.metrics.answers["p95"] = 0.4
    breaker = {"breaker": {"failures": 1, "reset": "6h"}}
    world.serve(
        a_retune({"batch_size": 4}, guards=[breaker], on_resolve={"restore": {"every": "30s"}})
    )
    alert = an_alert()
    await world.fire(alert)
    await world.until(lambda: Reason.BREAKER in world.reasons())
    assert world.detector.value("batch_size") == 4
    await world.settle(30 * 60)
    assert world.detector.value("batch_size") == 4, "renewed past its lease of 15 minutes"
    world.metrics.answers["p95"] = 0.1
    await world.resolve(alert)
    await world.settle(30 * 60)
    assert world.detector.value("batch_size") == 8
    assert world.changes(still_held=True) == []


async def test_an_open_breaker_lets_a_run_that_made_it_worse_take_it_back(world: World) -> None:
    # The second run was under way when the first opened the breaker: its rollback goes on.
    breaker = {"breaker": {"failures": 1, "reset": "6h"}}
    world.serve(a_retune({"batch_size": 4}, guards=[breaker]))
    begun = world.clock()
    world.metrics.answers["p95"] = lambda now: 0.4 if now <= begun else 0.9
    await world.fire(an_alert())
    await world.until(lambda: not world.runs()[0].state.is_open)
    assert world.runs()[0].state is RunState.ROLLED_BACK
    assert world.detector.value("batch_size") == 8
    await world.settle(60)
    assert world.reasons()[-1] == Reason.BREAKER


async def test_who_is_denied_by_the_breaker_hands_over_to_a_person(world: World) -> None:
    world.metrics.answers |= {"up": 0, "alive": 0, "p95": 0.4}
    breaker = {"breaker": {"failures": 1, "reset": "6h"}}
    world.serve(
        a_restart(guards=[breaker]),
        a_restart(
            name="first",
            on={"alerts": ['alertname="Other"']},
            steps=[
                {"restart": {}, "verify": VERIFY},
                {"escalate_to": "restart"},
            ],
        ),
    )
    await world.fire(an_alert("Down", GPU2))
    await world.until(lambda: Reason.BREAKER in world.reasons())
    await world.fire(an_alert("Other"))
    await world.until(lambda: "first on gpu-1: needs a person" in world.paged())
    assert [run.playbook for run in world.runs()] == ["restart", "first"]
