"""How many frames fit on the device at once, as learned from running out of memory.

Used by ``device``, on its thread. Additive increase, multiplicative decrease, as TCP does it
(Chiu and Jain, 1989): half of what did not fit, and one more after every ``PROBE_PASSES`` full
passes. Surprise: a single frame that does not fit teaches nothing, since no smaller pass exists;
its size is at fault, or memory that others hold.
"""

from __future__ import annotations

from typing import Final

PROBE_PASSES: Final = 100


class Room:
    """The learned limit; none until the device has run out."""

    def __init__(self) -> None:
        """Start with no limit."""
        self._size = 0
        self._learned: int | None = None
        self._full_passes = 0

    def limit(self, size: int) -> int:
        """Return how many frames the next pass may have; ``size`` is what the settings allow.

        Somebody who raises ``size`` wants it tried, so that forgets what was learned.
        """
        if size > self._size:
            self.forget()
        self._size = size
        return self.peek(size)

    def peek(self, size: int) -> int:
        """Return the limit in force and change nothing; for gauges, from any thread."""
        learned = self._learned
        return size if learned is None else min(size, learned)

    def ran_out(self, frames: int) -> None:
        """Learn that ``frames`` did not fit."""
        if frames > 1:
            self._learned = frames // 2
            self._full_passes = 0

    def fitted(self, frames: int) -> None:
        """Learn that ``frames`` did fit; now and then try one more."""
        if self._learned is None or frames < self._learned:
            return
        self._full_passes += 1
        if self._full_passes >= PROBE_PASSES:
            grown, self._full_passes = self._learned + 1, 0
            self._learned = grown if grown < self._size else None

    def forget(self) -> None:
        """Try everything again; from any thread."""
        self._learned = None
        self._full_passes = 0
