"""The control law of `throttle` and of its restore: rules R1, R2, R4-R6, R9 and R10, as arithmetic.

Pure; called by `engine.actions`. Sources: the ratio step and its clamp follow Netflix
concurrency-limits' Gradient2 (new = limit x clamp(objective / measured, 0.5, 1)); the slow restore
that backs off follows Kubernetes HPA's asymmetry (protect fast, restore slowly). The surprise: it
never looks at utilisation. A busy device inside its objective is healthy (docs/decisions/0005).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from hashlib import sha256
from itertools import pairwise

# R2: never more than halve a ceiling in one step.
STEEPEST = 0.5
# R5: within this share of the objective nothing is moved either way.
DEAD_BAND = 0.10
# R10: up to so much is added to a wait, so that replicas do not move together.
JITTER = 0.2
# R9: a step that brings the signal down by less than this has moved nothing.
HELPED = 0.05
# R9: and three of them together must bring it down by this.
HELPED_ALTOGETHER = 0.10
# R9: where the objective was missed, less than this is not worth being held down for.
WORTH_KEEPING = 0.25
# R9: after so many in a row that moved nothing, or so many that did not altogether, it is over.
IDLE_STEPS = 2
ENOUGH_STEPS = 3
# Fewer slots down than this cannot have made it worse: the trouble did (docs/closed-loop.md).
ENOUGH_SLOTS = 2
# R4: healthy enough to give back = below this share of the objective.
RESTORE_BELOW = 0.85
# R4: above ten, give back ten percent at a time.
LARGE_CEILING = 10
LARGE_SHARE = 0.10
# R6: bad twice at the floor, and this knob is not turned any more.
FLOOR_PATIENCE = 2


def step_down(limit: int, *, measured: float, objective: float, floor: int, ceiling: int) -> int:
    """Return the next ceiling for a signal above its objective: a ratio, at least one less.

    Args:
        limit: the ceiling now.
        measured: the signal, in the objective's unit, greater than zero.
        objective: what the signal must stay below.
        floor: never below this.
        ceiling: never above this.
    """
    limit = min(limit, ceiling)
    ratio = min(1.0, max(STEEPEST, objective / measured))
    return max(floor, min(math.floor(limit * ratio), limit - 1))


def halve(limit: int, *, floor: int, ceiling: int) -> int:
    """Return the next ceiling for a hard condition (memory, temperature): half of it (R1)."""
    return max(floor, math.floor(min(limit, ceiling) * STEEPEST))


def before_step_back(value: int, *, step: int, floor: int) -> int:
    """Return what a ceiling was before the restore step that led to it: it was healthy there."""
    return max(floor, min(value - 1, math.ceil(value / (1 + LARGE_SHARE)), value - step))


def step_back(value: float, *, base: float, step: int) -> float:
    """Return the next value on the way back to `base`: `step` at a time, 10% when it is large."""
    size = max(float(step), math.floor(value * LARGE_SHARE) if value > LARGE_CEILING else 0.0)
    return min(base, value + size) if base >= value else max(base, value - size)


def jitter(run_id: int, target: str) -> float:
    """Return the share that this run adds to its waits: 0 to `JITTER`, the same each time."""
    digest = sha256(f"{run_id}/{target}".encode()).digest()
    return JITTER * digest[0] / 256


def helped(before: float, after: float, *, share: float = HELPED) -> bool:
    """Say whether a signal that should fall fell by more than noise would explain."""
    return after <= before * (1 - share)


def idle(levels: Sequence[float]) -> bool:
    """Say whether turning this knob moves nothing (R9).

    Args:
        levels: the signal before each step, and after the last.
    """
    moved = [helped(before, after) for before, after in pairwise(levels)]
    in_a_row = len(moved) >= IDLE_STEPS and not any(moved[-IDLE_STEPS:])
    return in_a_row or (len(moved) >= ENOUGH_STEPS and not helped_altogether(levels))


def helped_altogether(levels: Sequence[float]) -> bool:
    """Say whether all steps together brought the signal down."""
    return len(levels) > 1 and helped(levels[0], levels[-1], share=HELPED_ALTOGETHER)


def worth_keeping(levels: Sequence[float]) -> bool:
    """Say whether a throttle that missed its objective helped enough to be left as it is."""
    return len(levels) > 1 and helped(levels[0], levels[-1], share=WORTH_KEEPING)


def in_dead_band(measured: float, objective: float) -> bool:
    """Say whether the signal is so near its objective that moving would only swing it."""
    return abs(measured - objective) <= DEAD_BAND * objective
