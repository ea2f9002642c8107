"""The four-valued verdict in numbers, and what counts as a measurement at all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from remediator.model.spec import Condition
from remediator.model.verdict import (
    Baseline,
    Reading,
    ReadingStatus,
    Verdict,
    fresh,
    has_held,
    is_worse,
    judge,
    where_sampled,
)
from tests.builders import a_retune, an_alert
from tests.fakes import NOON
from tests.world import World

BELOW = Condition(query="q", below=0.25)
ABOVE = Condition(query="q", above=10)
HALF_A_MINUTE = timedelta(seconds=30)
STEADY = Baseline(level=0.4, spread=0.0)


def readings(values: Sequence[float | None], *, every: int = 15) -> tuple[Reading, ...]:
    made = []
    for place, value in enumerate(values):
        at = NOON + timedelta(seconds=every * place)
        if value is None:
            made.append(Reading(query="q", at=at, status=ReadingStatus.ERROR))
        else:
            made.append(Reading.of("q", at, value))
    return tuple(made)


@pytest.mark.parametrize(
    ("values", "late", "wanted"),
    [
        ([], False, None),
        ([], True, Verdict.UNKNOWN),
        ([0.2], True, Verdict.UNKNOWN),  # one is not enough
        ([0.2, 0.2], False, None),  # held for 15 s of 30 s
        ([0.2, 0.2, 0.2], False, Verdict.IMPROVED),  # exactly 30 s
        ([0.25, 0.25, 0.25], True, Verdict.UNCHANGED),  # the bound itself is not below
        ([0.2, 0.2, 0.3, 0.2, 0.2], False, None),  # a break starts it anew
        ([0.2, math.nan, 0.2, 0.2], False, None),  # no data is not good news
        ([0.2, 0.2, None], True, Verdict.UNKNOWN),  # the newest could not be read
        ([0.2, None, 0.2], True, Verdict.UNCHANGED),
        ([math.nan, None, 0.2], True, Verdict.UNKNOWN),
        ([0.5, 0.5], False, Verdict.WORSE),
        ([0.5], False, None),  # worse once is not worse
        ([0.5, None], True, Verdict.UNKNOWN),
        ([0.44, 0.44], True, Verdict.UNCHANGED),  # ten percent is not more than ten percent
        ([0.4401, 0.4401], True, Verdict.WORSE),
        ([0.5, 0.42], True, Verdict.UNCHANGED),
        ([math.inf, math.inf], False, None),  # infinite is no measurement
        ([0.3, 0.3, 0.3], True, Verdict.UNCHANGED),
    ],
)
def test_a_verdict_is_what_the_measurements_prove(
    values: list[float | None], *, late: bool, wanted: Verdict | None
) -> None:
    found = judge(
        readings(values),
        condition=BELOW,
        hold=HALF_A_MINUTE,
        baseline=STEADY,
        out_of_time=late,
    )
    assert found is wanted


@pytest.mark.parametrize(
    ("values", "held"), [([0.2, 0.3], False), ([0.2, math.nan], False), ([0.3, 0.2], True)]
)
def test_a_hold_of_zero_still_has_to_hold_now(values: list[float], *, held: bool) -> None:
    assert has_held(readings(values), BELOW, timedelta()) is held
    verdict = judge(
        readings(values), condition=BELOW, hold=timedelta(), baseline=None, out_of_time=False
    )
    assert (verdict is Verdict.IMPROVED) is held


@pytest.mark.parametrize(
    ("spread", "worse"), [(0.0, True), (0.049, True), (0.05, False), (0.2, False)]
)
def test_worse_must_stand_out_of_the_noise_by_two_deviations(spread: float, *, worse: bool) -> None:
    noisy = Baseline(level=0.4, spread=spread)
    assert is_worse(readings([0.5, 0.5]), BELOW, noisy) is worse


def test_for_a_value_that_should_rise_worse_is_downwards() -> None:
    base = Baseline(level=8, spread=0)
    assert is_worse(readings([5, 5]), ABOVE, base)
    assert not is_worse(readings([9, 9]), ABOVE, base)
    assert not is_worse(readings([5, 5]), ABOVE, None)


def test_a_measurement_counts_only_when_its_whole_window_lies_after_the_action() -> None:
    taken = readings([1, 2, 3, 4, 5])
    minute = timedelta(minutes=1)
    assert fresh(taken, acted_at=NOON, window=minute) == taken[4:]
    assert fresh(taken, acted_at=NOON, window=timedelta()) == taken
    assert fresh(taken, acted_at=NOON + timedelta(seconds=1), window=minute) == ()


def test_a_baseline_leaves_out_what_is_no_number() -> None:
    assert Baseline.of([math.nan, math.inf, 1.0, 3.0, 2.0]) == Baseline(level=2.0, spread=1.0)
    assert Baseline.of([math.nan]) is None


def proof(**changed: Any) -> dict[str, Any]:
    verify = {"query": "p95", "below": 0.25, "within": "2m", "for": "30s", "window": "60s"}
    return a_retune(  # type: ignore[no-any-return]
        {"batch_size": 4}, guards=[{"cooldown": "1h"}], step={"verify": {**verify, **changed}}
    )


async def test_a_proof_measures_first_when_a_whole_window_lies_after_the_action(
    world: World,
) -> None:
    world.serve(proof())
    world.metrics.answers["p95"] = 0.1
    await world.fire(an_alert())
    await world.settle(59)
    assert world.metrics.asked == []
    await world.settle(31)
    assert world.run().verdict is Verdict.IMPROVED
    assert world.metrics.asked == ["p95"] * 3


async def test_a_proof_that_never_comes_ends_when_its_time_is_over(world: World) -> None:
    world.serve(proof())
    world.metrics.answers["p95"] = 0.3
    await world.fire(an_alert())
    run = await world.ended()
    assert run.verdict is Verdict.UNCHANGED
    assert (run.closed_at or NOON) - NOON == timedelta(seconds=180)
    assert "measured 0.3, wanted < 0.25" in run.reason


async def test_a_prometheus_that_goes_away_makes_the_verdict_unknown(world: World) -> None:
    world.serve(proof())
    world.metrics.answers["p95"] = 0.1
    await world.fire(an_alert())
    await world.settle(76)
    world.metrics.down = True
    run = await world.ended()
    assert run.verdict is Verdict.UNKNOWN
    assert "Prometheus could not answer" in run.reason
    assert world.paged() != []


async def test_a_baseline_is_taken_from_before_the_action_also_when_there_is_no_history(
    world: World,
) -> None:
    world.serve(proof())
    world.metrics.answers["p95"] = lambda now: None if now < NOON else 0.3
    await world.fire(an_alert())
    run = await world.ended()
    assert run.verdict is Verdict.UNCHANGED


async def test_while_it_settles_nothing_counts_neither_way(world: World) -> None:
    world.serve(proof(settle="60s"))
    # It warms up for a minute: worse than before, then good.
    world.metrics.answers["p95"] = lambda now: 0.9 if (now - NOON).seconds < 60 else 0.1
    await world.fire(an_alert())
    run = await world.ended()
    assert run.verdict is Verdict.IMPROVED
    assert (run.closed_at or NOON) - NOON >= timedelta(seconds=60 + 60 + 30)


SCRAPE = timedelta(seconds=15)


@pytest.mark.parametrize(
    ("stamps", "usable"),
    [
        ([-5, 10, 25], [True, True, True]),
        ([-5, -5, 10], [True, False, True]),  # it stood still once
        ([-31, -16, -1], [False, False, False]),  # older than two scrapes
        ([-5, None, 25], [True, False, True]),
        ([3600, 3600, 3600], [True, False, False]),  # a clock that is wrong, and stands
        ([], [False, False, False]),
    ],
)
def test_a_measurement_on_an_old_sample_is_no_measurement(
    stamps: list[float | None], usable: list[bool]
) -> None:
    taken = readings([0.2, 0.2, 0.2])
    beside = tuple(
        Reading.of("s", r.at, NOON.timestamp() + s)
        if s is not None
        else Reading(query="s", at=r.at, status=ReadingStatus.EMPTY)
        for r, s in zip(taken, stamps, strict=False)
    )
    found = where_sampled(taken, beside, scrape=SCRAPE)
    assert [r.value is not None for r in found] == usable
