"""The film's clock made whole: strictly rising ticks from 0 out of whatever the file tells.

Used by ``reader``. The rules, in order: a time that is missing follows the frame before by one
usual step; a clock that falls back by more than a second was restarted (joined recordings) and
goes on from there; any other time that does not rise is moved one tick behind the frame before.
Surprise: all depends only on the frames before, so reading the same film twice gives the same
ticks; that is what makes going on after a bookmark exact.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Final

from detector_service.media.film import CLOCK

RESTART: Final = CLOCK
USUAL_FPS: Final = 25


class Ticks:
    """Gives each frame its tick; call it once a frame, in display order."""

    def __init__(self, time_base: Fraction, fps: Fraction | None) -> None:
        """Start before the first frame.

        Args:
            time_base: seconds of one unit of the file's clock.
            fps: usual frames a second, where the file tells.
        """
        self._unit = time_base * CLOCK
        self._step = max(1, round(CLOCK / (fps or USUAL_FPS)))
        self._shift: int | None = None
        self._last: int | None = None
        self._last_pts: int | None = None
        self.regular = True
        """Whether every time so far was there and rose, so that a time names one frame."""

    def tick(self, pts: int | None) -> int:
        """Return the tick of the next frame, whose time on the file's clock is ``pts``."""
        follow = 0 if self._last is None else self._last + self._step
        if pts is None:
            self.regular = False
            self._last = follow
            return follow
        if self._last_pts is not None and pts <= self._last_pts:
            self.regular = False
        told = round(pts * self._unit)
        if self._shift is None or told + self._shift < (self._last or 0) - RESTART:
            self._shift = follow - told
        at = told + self._shift
        self._last = at if self._last is None else max(at, self._last + 1)
        self._last_pts = pts
        return self._last

    def go_on(self, pts: int, tick: int) -> None:
        """Stand right after the frame at ``pts``; every frame before it was regular."""
        self._last_pts, self._last = pts, tick
