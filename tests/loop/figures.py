"""Figures of merit of a closed loop, computed from what was lived and what was sent.

Used by the tests beside it and by `benchmarks/closed_loop.py`; definitions in docs/closed-loop.md.
The surprise: a slot up and a slot down again is no swing. That is how a limit is found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tests.loop.plants import CEILING, best_limit
from tests.loop.run import Scenario, Told

# An excursion counts from this many slots on.
SWING = 2
# In time again: so long a stretch in which this share of the answers met the objective.
STRETCH_S = 45
IN_TIME = 0.95


@dataclass(frozen=True)
class Figures:
    """What a story came to.

    Attributes:
        share: answers within the objective, of what the oracle has in the same seconds.
        alone: the same share with nobody at the knob.
        swings: excursions down of two slots or more.
        overshoot: how far below the best limit of the worst moment it went, as a share of that.
        remedies: forward calls of remedies; steps of the way back are not among them.
        in_time_after: seconds from the first trouble until answers are in time; None = never.
        restored_after: seconds from the last trouble until the ceiling is back; None = never.
        lowest, highest, last: the ceiling.
        hasty: reversals sooner than the hold-down after the move before.
    """

    share: float
    alone: float
    swings: int
    overshoot: float
    remedies: int
    in_time_after: int | None
    restored_after: int | None
    lowest: int
    highest: int
    last: int
    hasty: int


def figures(scenario: Scenario, told: Told) -> Figures:
    """Compute them all."""
    best = sum(scenario.oracle().good)
    ceilings, troubled = told.ceilings, trouble(scenario)
    optimum = optimum_of(scenario)
    return Figures(
        share=sum(told.live.good) / best,
        alone=sum(scenario.uncontrolled().good) / best,
        swings=swings(ceilings),
        overshoot=max(0.0, (optimum - min(ceilings)) / optimum),
        remedies=len([sent for sent in told.sent if sent.remedy]),
        in_time_after=in_time_after(told, troubled[0]) if troubled else 0,
        restored_after=restored_after(ceilings, troubled[-1]) if troubled else 0,
        lowest=min(ceilings),
        highest=max(ceilings),
        last=ceilings[-1],
        hasty=hasty(told, scenario.pace_in_force.hold_down.total_seconds()),
    )


def best_held(scenario: Scenario) -> float:
    """Return the oracle's share that the best single limit has: what no hindsight can beat.

    A ceiling that is moved later than the trouble moves can only stay; where trouble comes and goes
    faster than the loop, this is the bar and the oracle is not.
    """
    lives = [scenario.held(limit) for limit in range(1, CEILING + 1)]
    return max(sum(live.good) for live in lives) / sum(scenario.oracle().good)


def trouble(scenario: Scenario) -> list[int]:
    """Return the seconds in which there is trouble."""
    return [at for at in range(scenario.length) if scenario.shape(at) > 0]


def optimum_of(scenario: Scenario) -> int:
    """Return the best limit of the worst moment, without noise."""
    plant = scenario.plant
    worst = {round(scenario.shape(at), 2) for at in range(scenario.length)}
    return min(best_limit(plant.troubled(plant.device, w), plant.offered) for w in worst)


def swings(ceilings: Sequence[int], size: int = SWING) -> int:
    """Count the excursions down of at least `size`: a fall that far from the last height."""
    count, height, depth, falling = 0, ceilings[0], ceilings[0], False
    for value in ceilings:
        height, depth = max(height, value), min(depth, value)
        if not falling and height - value >= size:
            count, falling, depth = count + 1, True, value
        elif falling and value - depth >= size:
            falling, height = False, value
    return count


def hasty(told: Told, hold_down: float) -> int:
    """Count the moves that turn back within the hold-down of the one before."""
    count, before, since, way = 0, float(CEILING), 0.0, 0.0
    for sent in told.sent:
        now = sent.value - before
        count += now * way < 0 and sent.at - since < hold_down
        if now:
            before, since, way = sent.value, sent.at, now
    return count


def in_time_after(told: Told, since: int) -> int | None:
    """Return how long it took until answers were in time for a while."""
    good, answered = told.live.good, told.live.answered
    length = 0
    for at in range(since, len(good)):
        length = length + 1 if good[at] >= IN_TIME * answered[at] else 0
        if length == STRETCH_S and at - STRETCH_S - since >= 0:
            return at - STRETCH_S - since + 1
    return None


def restored_after(ceilings: Sequence[int], over: int) -> int | None:
    """Return how long after the trouble the ceiling was back for good."""
    if ceilings[-1] < CEILING:
        return None
    low = [at for at, ceiling in enumerate(ceilings) if ceiling < CEILING]
    return max(0, low[-1] - over) if low else 0
