"""What other controllers act on, or call mended, without having looked.

Facts from before a restart, events that were missed and are played back, "resolved" because nobody
measures any more, "remediated" by zero samples, five times the same remedy that does not help.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from remediator.model.decision import Reason
from remediator.model.run import RunState
from remediator.model.verdict import ReadingStatus, Verdict
from tests.builders import a_playbook, a_restart, a_retune, a_throttle, an_alert
from tests.world import World

# Each tells a long story; together they are a proof and no quick look.
pytestmark = pytest.mark.slow

HOUR = 3600.0
NOTHING: list[Any] = []


# -- stale facts -------------------------------------------------------------------------------


@pytest.mark.parametrize("remedy", [a_throttle(), a_restart()], ids=["throttle", "restart"])
async def test_what_was_true_before_a_restart_is_asked_again_before_anything_is_done(
    world: World, remedy: dict[str, Any]
) -> None:
    world.serve(remedy)
    world.metrics.answers.update(p95=0.5, up=0, alive=1)
    world.dying("first", before="measure")
    await world.fire(an_alert(), an_alert("Down"))
    await world.settle(5)
    assert world.run().state.is_open
    world.metrics.answers.update(p95=0.1, up=1)
    world.clock.advance(HOUR)
    world.controller("second")
    await world.ended()
    assert world.detector.applied("set") == world.process.sent == NOTHING


async def test_what_fired_and_was_over_while_nobody_ran_is_not_acted_on_afterwards(
    world: World,
) -> None:
    world.serve(a_restart())
    world.metrics.answers.update(up=0, alive=1)
    alert = an_alert("Down", starts_at=world.clock())
    await world.fire(alert)
    await world.resolve(alert)
    world.clock.advance(HOUR)
    world.controller("late")
    await world.settle(60)
    assert world.reasons() == [Reason.RESOLVED]
    assert world.process.sent == NOTHING


async def test_a_target_that_somebody_has_restarted_meanwhile_is_not_restarted_again(
    world: World,
) -> None:
    world.serve(a_restart(guards=[]))
    world.metrics.answers.update(up=1, alive=1)
    alert = an_alert("Down", starts_at=world.clock())
    await world.fire(alert)
    world.clock.advance(60)
    world.process.restart_by_hand()
    run = await world.ended()
    assert run.state is RunState.SUCCEEDED
    assert world.process.sent == NOTHING


async def test_a_measurement_from_before_the_action_proves_nothing(world: World) -> None:
    world.serve(a_retune({"batch_size": 4}))
    world.metrics.answers["p95"] = lambda _now: 0.5 if world.detector.applied("set") else 0.1
    await world.fire(an_alert())
    run = await world.ended()
    assert run.verdict in {Verdict.UNCHANGED, Verdict.WORSE}
    assert run.state is not RunState.SUCCEEDED


# -- zero samples ------------------------------------------------------------------------------

Gone = Callable[[World], Any]


def _gone(status: ReadingStatus | None) -> Gone:
    def answer(world: World) -> Any:
        def p95(_now: datetime) -> Any:
            return status if world.detector.applied("set") else 0.5

        return p95

    return answer


@pytest.mark.parametrize(
    "gone",
    [_gone(None), _gone(ReadingStatus.ERROR), _gone(ReadingStatus.NAN), _gone(ReadingStatus.MANY)],
    ids=["no series", "an error", "NaN", "several series"],
)
@pytest.mark.parametrize(
    "remedy", [a_throttle(), a_retune({"batch_size": 4})], ids=lambda d: d["name"]
)
async def test_zero_samples_after_the_action_are_unknown_and_never_a_success(
    world: World, gone: Gone, remedy: dict[str, Any]
) -> None:
    world.serve(remedy)
    world.metrics.answers["p95"] = gone(world)
    await world.fire(an_alert())
    run = await world.ended()
    assert run.verdict is Verdict.UNKNOWN
    assert run.state is not RunState.SUCCEEDED
    assert world.paged() != NOTHING


async def test_a_restart_after_which_nobody_measures_is_unknown_and_a_person_hears_of_it(
    world: World,
) -> None:
    world.serve(a_restart())
    world.metrics.answers["up"] = 0
    await world.fire(an_alert("Down"))
    run = await world.ended()
    assert run.verdict is Verdict.UNKNOWN
    assert run.state is RunState.FAILED
    assert world.paged() != NOTHING


async def test_a_resolve_that_means_prometheus_died_gives_nothing_back(world: World) -> None:
    world.serve(a_throttle())
    world.metrics.answers["p95"] = lambda _now: 0.06 * world.detector.value()
    alert = an_alert()
    await world.fire(alert)
    assert (await world.ended()).state is RunState.SUCCEEDED
    world.metrics.down = True
    await world.resolve(alert)
    await world.settle(600)
    assert world.detector.value() == 4
    world.metrics.down = False
    world.metrics.answers["p95"] = 0.05
    await world.settle(1800)
    assert world.detector.value() == 10


# -- the same remedy for ever ------------------------------------------------------------------


async def test_a_remedy_that_does_not_help_is_not_repeated_all_day(world: World) -> None:
    world.pace = replace(world.pace, review=timedelta(minutes=5))
    world.serve(a_restart(guards=[{"require": {"query": "up", "below": 1}}]))
    world.metrics.answers.update(up=0, alive=0)
    await world.fire(an_alert("Down"))
    await world.settle(6 * HOUR)
    tried = len(world.process.applied("stop"))
    assert tried <= 3 + 4, "three, and then one trial after 30, 60, 120 and 240 minutes"
    assert world.reasons().count(Reason.BREAKER) >= 1
    assert world.paged() != NOTHING


async def test_two_playbooks_that_escalate_to_each_other_come_to_an_end(world: World) -> None:
    def other(name: str, successor: str) -> dict[str, Any]:
        verify = {"query": "alive", "above": 0, "within": "20s", "for": "5s", "window": "0s"}
        return a_playbook(
            name=name,
            on={"alerts": [f'alertname="{name}"']},
            guards=[{"cooldown": "1h"}],
            steps=[
                {"retune": {"set": {"batch_size": 4}}, "verify": verify},
                {"escalate_to": successor},
            ],
        )

    world.serve(other("ping", "pong"), other("pong", "ping"))
    world.metrics.answers["alive"] = 0
    await world.fire(an_alert("ping"))
    await world.settle(HOUR / 2)
    assert [run.playbook for run in world.runs()] == ["ping", "pong"]
    assert world.paged() != NOTHING
