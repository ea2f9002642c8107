"""The limit that the service chooses itself, from how long its own requests take.

``Limiter`` feeds it and asks it several times a second. One formula serves both ways, Little's law:
what is inside is throughput times latency, so where the limit binds, ``limit * objective / p90``
brings p90 to the objective. Too slow: go there in one step, by half at most (Gradient2 of Netflix'
concurrency-limits bounds its gradient by 0.5 too). Inside: a step up if the formula says that it
still fits; where it does not say so, it is tried now and then. A limit that is not in use (its
AIMDLimit: ``inflight * 2 < limit``) comes back to where it began and no further, as nothing shows
that more would do. ``benchmarks/limiter_choice.py`` compares it with others.
Surprise: it is told the objective instead of learning what is normal. A learned baseline drifts
under lasting overload, until slow counts as normal.
"""

from __future__ import annotations

import math
from typing import Final

FIRST_LIMIT: Final = 10  # the default ceiling; a higher one is grown into
# Gradient2's window: a second and ten samples. With fewer, what there is after PATIENCE_S.
WINDOW_S: Final = 1.0
ENOUGH: Final = 10
PATIENCE_S: Final = 5.0
RANK: Final = 0.9
AIM: Final = 0.9  # share of the objective aimed at, so that noise does not cross it
TINY_S: Final = 1e-6
STEEPEST: Final = 0.5
TRIAL_S: Final = 10.0  # one more is tried after this long inside the objective


class AdaptiveLimit:
    """A limit from 1 to the ceiling. Times are monotonic seconds."""

    def __init__(self, objective_s: float, now: float) -> None:
        """Aim at a p90 within ``objective_s``, from slot asked for to answer."""
        self.objective_s = objective_s
        self.limit = FIRST_LIMIT
        self._changed_at = self._since = now
        self._seconds: list[float] = []
        self._peak = 0

    def note(self, began_at: float, ended_at: float) -> None:
        """Take one served request; those that began before the last change are no evidence."""
        if began_at >= self._changed_at:
            self._seconds.append(ended_at - began_at)

    def look(self, now: float, *, ceiling: int, peak: int) -> None:
        """Choose anew if the window is full; a request had ``peak - 1`` others beside it at most.

        ``peak`` is of the time since the last look, and 0 if there was no request. A lower ceiling
        acts at once, and a raised one is grown into.
        """
        if self.limit > ceiling:
            self._change(ceiling, now)
        self._peak = max(self._peak, peak)
        age = now - self._since
        if age < WINDOW_S or (len(self._seconds) < ENOUGH and age < PATIENCE_S):
            return
        chosen = max(1, min(self._chosen(now), ceiling))
        self._change(chosen, now)

    def _change(self, chosen: int, now: float) -> None:
        """Take ``chosen``, and begin a new window: what came before it is no evidence."""
        if chosen != self.limit:
            self.limit, self._changed_at = chosen, now
        self._since, self._peak = now, 0
        self._seconds.clear()

    def _chosen(self, now: float) -> int:
        if not self._seconds:
            # Nobody came, or nothing came out: a device that hangs says nothing about the limit.
            return self.limit + (self._peak == 0 and self.limit < FIRST_LIMIT)
        p90 = max(sorted(self._seconds)[math.ceil(RANK * len(self._seconds)) - 1], TINY_S)
        fitting = self.limit * AIM * self.objective_s / p90
        if p90 > self.objective_s:
            alone = self._peak <= 1  # slow by itself: fewer at once would not make it faster
            return self.limit if alone else math.floor(max(fitting, self.limit * STEEPEST))
        used, step = self._peak * 2 >= self.limit, max(self.limit // 10, 1)
        if used and self.limit + step <= fitting:
            return self.limit + step
        wanted = used or self.limit < FIRST_LIMIT
        return self.limit + (wanted and now - self._changed_at >= TRIAL_S)
