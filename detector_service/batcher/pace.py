"""How many frames of a pass end in time, so that a slow model does not look like one that hangs.

Used by ``device``, on its thread. The last pass says how long a frame took; another ``imgsz`` is
taken to cost in proportion to its pixels. Surprise: it only acts on models that are slow for what
is asked of them, since a pass may be planned for many seconds.
"""

from __future__ import annotations

import math
from typing import Final

from detector_service.batcher.work import Work

MOST: Final = 10_000  # more than any setting allows; keeps the division finite


class Pace:
    """Seconds of a frame at ``imgsz`` 1; nothing is known before the first pass."""

    def __init__(self) -> None:
        """Start without a measurement."""
        self._cost = 0.0

    def took(self, work: Work, frames: int, seconds: float) -> None:
        """Learn from a pass of so many frames like ``work``."""
        self._cost = seconds / frames / work.imgsz**2

    def most(self, work: Work, seconds: float) -> int:
        """Return how many frames like ``work`` to plan for so many seconds; one at least."""
        expected = self._cost * work.imgsz**2
        return max(1, math.floor(min(seconds / expected, MOST))) if expected else MOST
