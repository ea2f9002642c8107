"""A short queue between two threads that either of them can break; used by the pipeline.

Surprise: a broken belt is no error of its own. Whoever broke it has the reason, and the others
only need to stop.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

T = TypeVar("T")


class BrokenBeltError(Exception):
    """The other end stopped; stop too."""


class Belt(Generic[T]):
    """Carries items in order, at most ``room`` at a time."""

    def __init__(self, room: int) -> None:
        """Start empty."""
        self._room = room
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._broken = False

    @contextmanager
    def feeding(self) -> Iterator[None]:
        """End the belt when the block is done, break it when the block fails."""
        try:
            yield
        except BaseException:
            self.cut()
            raise
        self._end()

    @contextmanager
    def emptying(self) -> Iterator[Iterator[T]]:
        """Yield what comes; break the belt when the block is left before its end."""
        try:
            yield self._take()
        finally:
            self.cut()

    def put(self, item: T) -> None:
        """Wait for room and add.

        Raises:
            BrokenBeltError: nobody will take it.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._broken or len(self._items) < self._room)
            if self._broken:
                raise BrokenBeltError
            self._items.append(item)
            self._changed.notify_all()

    def cut(self) -> None:
        """Break the belt and drop what is on it; both ends stop."""
        with self._changed:
            self._broken = True
            self._items.clear()
            self._changed.notify_all()

    def _end(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _take(self) -> Iterator[T]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._broken or self._ended or self._items)
                if self._broken:
                    raise BrokenBeltError
                if not self._items:
                    return
                item = self._items.popleft()
                self._changed.notify_all()
            yield item
