"""Who is next: canary, image, video; first come, first served within each.

Used by ``device`` under its lock; nothing here is thread-safe. Surprise: a video frame that has
waited ``VIDEO_PATIENCE_S`` ranks as an image (and is older than those that came since), so images
slow a video down but never stop it.
"""

from __future__ import annotations

from concurrent.futures import Future
from typing import Final

from detector_service.batcher.work import Answer, Priority, Queued

VIDEO_PATIENCE_S: Final = 5.0


class Line:
    """The frames that wait, in the order in which they came."""

    def __init__(self) -> None:
        """Start empty."""
        self._waiting: list[Queued] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, queued: Queued) -> None:
        """Put a frame at the end."""
        self._waiting.append(queued)

    def next(self, now: float) -> list[Queued]:
        """Return the frame whose turn it is and those that may go with it, oldest first."""
        if not self._waiting:
            return []
        # min() keeps the first of equals, which is the oldest.
        first = min(self._waiting, key=lambda queued: _rank(queued, now))
        return [queued for queued in self._waiting if queued.goes_with(first)]

    def take(self, chosen: list[Queued]) -> None:
        """Let frames go to the device."""
        gone = set(chosen)
        self._waiting = [queued for queued in self._waiting if queued not in gone]

    def forget(self, future: Future[Answer]) -> None:
        """Let go of one frame and its pixels, known by its future."""
        self._waiting = [queued for queued in self._waiting if queued.future is not future]

    def clear(self) -> list[Queued]:
        """Return everybody who waits, and forget them."""
        left, self._waiting = self._waiting, []
        return left


def _rank(queued: Queued, now: float) -> Priority:
    patient = now - queued.queued_at < VIDEO_PATIENCE_S
    return queued.work.priority if patient else min(queued.work.priority, Priority.IMAGE)
