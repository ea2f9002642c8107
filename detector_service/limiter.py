"""Admission: how many requests may be in the pipeline, and who waits; used by the detect route.

A request first takes a *place* (decided on headers, before its body is read), then a *slot*, in
the order in which bodies are complete. There are ``limit`` slots and a waiting room of
``min(queue_limit, ceiling)``: as the room shrinks with the ceiling, a lower ceiling bounds the
latency of those who wait too.
Surprise: no limit is stored here. ``limits`` is read at every decision, so a lower ceiling acts at
once; only a raised one needs ``wake``. Belongs to one event loop; no locks.
"""

from __future__ import annotations

import asyncio
import math
import random
import statistics
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from detector_service.errors import RefusedError

MAX_RETRY_AFTER_S = 60


@dataclass(frozen=True)
class Limits:
    """The two knobs the limiter obeys."""

    ceiling: int
    queue_limit: int

    @property
    def room(self) -> int:
        """Return how many may wait."""
        return min(self.queue_limit, self.ceiling)


class Place:
    """One admitted request, from its headers to its answer; give it back with ``leave``."""

    def __init__(self, admitted_at: float) -> None:
        """Start without a slot."""
        self.admitted_at = admitted_at
        self.has_slot = False


class Limiter:
    """Counts places and slots; FIFO; refuses when the waiting room is full."""

    def __init__(
        self,
        limits: Callable[[], Limits],
        *,
        now: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """Read limits through ``limits``; ``now`` is monotonic seconds, ``chance`` in [0, 1)."""
        self._limits = limits
        self._now = now
        self._chance = chance
        self._places: dict[Place, None] = {}  # in order of admission
        self._waiting: deque[tuple[Place, asyncio.Future[None]]] = deque()
        self._running = 0
        self._recent: deque[float] = deque(maxlen=128)

    @property
    def limit(self) -> int:
        """Return how many may run now: the ceiling. A faster, adaptive limit may only lower it."""
        return self._limits().ceiling

    @property
    def running(self) -> int:
        """Return how many hold a slot."""
        return self._running

    @property
    def queued(self) -> int:
        """Return how many hold a place without a slot (body still arriving, or waiting)."""
        return len(self._places) - self._running

    @property
    def oldest_age_s(self) -> float:
        """Return the age of the oldest request inside, 0 when there is none."""
        oldest = next(iter(self._places), None)
        return 0.0 if oldest is None else self._now() - oldest.admitted_at

    def admit(self) -> Place:
        """Take a place.

        Raises:
            RefusedError: 429 ``queue_full`` with ``Retry-After``.
        """
        limits = self._limits()
        if len(self._places) >= self.limit + limits.room:
            raise RefusedError(
                429,
                "queue_full",
                f"{self._running} requests run and {self.queued} wait; try again later",
                evidence={"limit": self.limit, "inflight": self._running, "queue": self.queued},
                retry_after_s=self.retry_after_s(),
            )
        place = Place(self._now())
        self._places[place] = None
        return place

    async def slot(self, place: Place) -> None:
        """Wait for this place's turn to run; when cancelled, the place still has to ``leave``."""
        if not self._waiting and self._running < self.limit:
            self._start(place)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((place, turn))
        await turn

    def leave(self, place: Place) -> None:
        """Give the place (and slot) back and let the next one start."""
        del self._places[place]
        if place.has_slot:
            self._running -= 1
            self._recent.append(self._now() - place.admitted_at)
        self.wake()

    def wake(self) -> None:
        """Start those that may start now; call it after a limit was raised."""
        while self._waiting and self._running < self.limit:
            place, turn = self._waiting.popleft()
            if not turn.done() and place in self._places:
                self._start(place)
                turn.set_result(None)

    def retry_after_s(self) -> int:
        """Return whole seconds until a retry makes sense, spread so that clients do not herd.

        ``clamp(ceil(queue * p50 / limit), 1, 60)`` give or take 20 %.
        """
        p50 = statistics.median(self._recent) if self._recent else 1.0
        wanted = min(max(math.ceil(self.queued * p50 / self.limit), 1), MAX_RETRY_AFTER_S)
        spread = wanted * (0.8 + 0.4 * self._chance())
        # Rounded by chance, since rounding to nearest would undo the spread at small values.
        whole = math.floor(spread + self._chance())
        return min(max(whole, 1), MAX_RETRY_AFTER_S)

    def _start(self, place: Place) -> None:
        place.has_slot = True
        self._running += 1
