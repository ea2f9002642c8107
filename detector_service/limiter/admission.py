"""Places, slots and who waits for them; used by the detect route and the video jobs.

A request first takes a *place* (decided on headers, before its body is read), then a *slot*, in
the order in which bodies are complete. There are ``limit`` slots and a waiting room of
``min(queue_limit, limit)``: as the room shrinks with the limit, a lower one bounds the latency of
those who wait too. Bodies that are slow to arrive do not fill it, or two slow clients would shut
everybody out of a service whose limit is 1; they have as many places again as the knobs would
give, at most. A video holds a slot and no place: it waits behind images, but not for ever.
The limit is the ceiling, or less by the adaptive limit; the ceiling counts all who hold a slot. The
adaptive limit does not count a video against an image, as images made to wait for a chunk would
be slower, not faster; it keeps videos back.
Surprise: no ceiling is stored here. ``limits`` is read at every decision, so a lower one acts at
once; only a raised one needs ``wake``. Belongs to one event loop, without locks; ``may_go_on``
alone is called from other threads, and only reads.
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
from detector_service.limiter.adaptive import AdaptiveLimit

MAX_RETRY_AFTER_S = 60
UPLOAD_PATIENCE_S = 1.0  # a body that takes longer to arrive makes room for others
VIDEO_PATIENCE_S = 5.0  # a video that waited longer goes before images


@dataclass(frozen=True)
class Limits:
    """The two knobs the limiter obeys."""

    ceiling: int
    queue_limit: int


class Place:
    """One admitted request or one video with a slot; give it back with ``leave``.

    Attributes:
        admitted_at: monotonic seconds; for a video, when it asked for its slot.
        rank: None for a request; among videos the lowest goes first.
        asked_at: when it asked for its slot, None before.
    """

    def __init__(self, admitted_at: float, rank: int | None = None) -> None:
        """Start without a slot."""
        self.admitted_at = admitted_at
        self.rank = rank
        self.has_slot = False
        self.asked_at: float | None = None


class Limiter:
    """Counts places and slots; FIFO; refuses when the waiting room is full; images first."""

    def __init__(
        self,
        limits: Callable[[], Limits],
        adaptive: AdaptiveLimit | None = None,
        *,
        now: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """Start empty.

        Args:
            limits: read at every decision.
            adaptive: may lower the limit under the ceiling; shares the clock ``now``.
            now: monotonic seconds.
            chance: evenly spread in [0, 1).
        """
        self._limits = limits
        self._adaptive = adaptive
        self._now = now
        self._chance = chance
        self._places: dict[Place, None] = {}  # in order of admission
        self._waiting: dict[Place, asyncio.Future[None]] = {}  # in order of complete bodies
        self._videos_waiting: dict[Place, asyncio.Future[None]] = {}
        # Replaced, never changed in place: worker threads read it.
        self._videos: tuple[Place, ...] = ()  # those with a slot, the first to give way first
        self._running = 0
        self._peak = 0
        self._recent: deque[float] = deque(maxlen=128)

    @property
    def adaptive_limit(self) -> int | None:
        """Return what the service allows itself, None where only the ceiling counts."""
        return None if self._adaptive is None else self._adaptive.limit

    @property
    def limit(self) -> int:
        """Return how many may run now: the ceiling, or less by the adaptive limit."""
        ceiling = self._limits().ceiling
        return ceiling if self._adaptive is None else min(ceiling, self._adaptive.limit)

    @property
    def running(self) -> int:
        """Return how many hold a slot, videos included."""
        return self._running

    @property
    def queued(self) -> int:
        """Return how many hold a place without a slot (body still arriving, or waiting)."""
        return len(self._places) + len(self._videos) - self._running

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
        limits, limit = self._limits(), self.limit
        if self._crowding(limits) >= limit + min(limits.queue_limit, limit):
            raise RefusedError(
                429,
                "queue_full",
                f"{self._running} requests run and {self.queued} wait; try again later",
                evidence={
                    "limit": limit,
                    "ceiling": limits.ceiling,
                    "inflight": self._running,
                    "queue": self.queued,
                },
                retry_after_s=self.retry_after_s(),
            )
        place = Place(self._now())
        self._places[place] = None
        return place

    async def slot(self, place: Place) -> None:
        """Wait for this place's turn to run; when cancelled, the place still has to ``leave``."""
        await self._turn(place, self._waiting)

    async def hold(self, rank: int) -> Place:
        """Wait for a slot for a video; it is granted when one is free and no image waits for it.

        After ``VIDEO_PATIENCE_S`` the next free slot is the video's all the same. Among videos the
        lowest ``rank`` is first. When cancelled, nothing is held.
        """
        place = Place(self._now(), rank)
        try:
            await self._turn(place, self._videos_waiting)
        except asyncio.CancelledError:
            self.leave(place)
            raise
        return place

    def may_go_on(self, video: Place) -> bool:
        """Say, after a chunk, whether ``video`` keeps its slot; if not, ``leave`` and ``hold``.

        As many videos give way as slots are too many or images wait, the highest rank first.
        May be called from any thread.
        """
        too_many = self._running + len(self._waiting) - self.limit
        return video not in self._videos[: max(too_many, 0)]

    def leave(self, place: Place, *, served: bool = False) -> None:
        """Give the place (and slot) back and let the next one start.

        ``served`` says that its duration tells how fast the service is.
        """
        if served and place.asked_at is not None and self._adaptive is not None:
            self._adaptive.note(place.asked_at, self._now())
        self._places.pop(place, None)
        self._waiting.pop(place, None)
        self._videos_waiting.pop(place, None)
        if place.has_slot:
            place.has_slot = False
            self._running -= 1
            if place.rank is None:
                self._recent.append(self._now() - place.admitted_at)
            else:
                self._videos = tuple(video for video in self._videos if video is not place)
        self.wake()

    def look(self) -> None:
        """Let the adaptive limit follow what was seen; to be called several times a second."""
        if self._adaptive is not None:
            ceiling = self._limits().ceiling
            self._adaptive.look(self._now(), ceiling=ceiling, peak=self._peak)
            self._peak = self._crowd
            self.wake()

    def wake(self) -> None:
        """Start those that may start now; call it after a limit was raised."""
        while (place := self._next()) is not None:
            waiting = self._waiting if place.rank is None else self._videos_waiting
            turn = waiting.pop(place)
            if not turn.done():
                self._start(place)
                turn.set_result(None)

    def _next(self) -> Place | None:
        limit = self.limit
        image = video = None
        if self._running < self._limits().ceiling and self._running - len(self._videos) < limit:
            image = next(iter(self._waiting), None)
        if self._running < limit:
            video = min(self._videos_waiting, key=_rank, default=None)
        if image is None or video is None:
            return image or video
        return video if self._now() - video.admitted_at >= VIDEO_PATIENCE_S else image

    async def _turn(self, place: Place, waiting: dict[Place, asyncio.Future[None]]) -> None:
        place.asked_at = self._now()
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting[place] = turn
        self.wake()
        await turn

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

    def _crowding(self, limits: Limits) -> int:
        late = self._now() - UPLOAD_PATIENCE_S
        slow = sum(place.asked_at is None and place.admitted_at < late for place in self._places)
        return len(self._places) - min(slow, limits.ceiling + limits.queue_limit)

    def _start(self, place: Place) -> None:
        place.has_slot = True
        self._running += 1
        if place.rank is not None:
            self._videos = tuple(sorted((*self._videos, place), key=_rank, reverse=True))
        self._peak = max(self._peak, self._crowd)

    @property
    def _crowd(self) -> int:
        """Return how many run, if one of them is a request."""
        return self._running if self._running > len(self._videos) else 0


def _rank(video: Place) -> int:
    return video.rank or 0
