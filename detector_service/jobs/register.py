"""The jobs that have not ended, who has which in hand, and who wants to know; kept in memory.

Shared by ``desk`` and ``crew``; belongs to the event loop. Surprise: it is never ahead of the
journal. A job is noted here only as the journal said it is, save for one that could not be put
aside because the disk is full, and one that only waits for its slot to come back.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

from detector_service.errors import StateWriteError
from detector_service.jobs.attempt import Attempt
from detector_service.jobs.pace import Pace, View, backlog_s, view
from detector_service.jobs.video import Job, State
from detector_service.limiter import Place
from detector_service.telemetry import Telemetry

log = logging.getLogger(__name__)

LOOK_S: Final = 0.25  # how soon the end of a drain, or a model that is loaded, is noticed
RETRY_S: Final = 15.0  # after a disk was full, or failed


@dataclass(eq=False)
class Hand:
    """A job that a worker or the fetcher has in hand."""

    job: Job
    pace: Pace
    waiting: asyncio.Future[object] | None = None
    attempt: Attempt | None = None
    place: Place | None = None
    room: int = 0  # bytes that may come while it is fetched
    dropped: bool = False

    def drop(self) -> None:
        """Stop whatever is being done with it; nobody wants it any more."""
        self.dropped = True
        self.stop()

    def stop(self) -> None:
        """Stop whatever is being done with it; it is taken up again by the next process."""
        if self.waiting is not None:
            self.waiting.cancel()
        if self.attempt is not None:
            self.attempt.stop()


class Register:
    """What is known of the live jobs."""

    def __init__(self, telemetry: Telemetry) -> None:
        """Start empty."""
        self._telemetry = telemetry
        self._live: dict[str, Job] = {}  # oldest first
        self._rest_until: dict[str, float] = {}  # monotonic
        self._news: dict[str, asyncio.Event] = {}
        self._work = asyncio.Event()
        self.hands: dict[str, Hand] = {}
        self.closing = False

    def __len__(self) -> int:
        return len(self._live)

    def get(self, name: str) -> Job | None:
        """Return a live job."""
        return self._live.get(name)

    def live(self) -> tuple[Job, ...]:
        """Return the live jobs, oldest first; from any thread."""
        return tuple(self._live.values())

    def add(self, job: Job) -> None:
        """Note a new live job."""
        self._live[job.id] = job
        self._work.set()

    def note(self, job: Job) -> None:
        """Note what the journal says of a job now; one that has ended stays so."""
        if job.id not in self._live:
            return
        if job.state.final:
            del self._live[job.id]
            self._rest_until.pop(job.id, None)
            self._count_end(job)
        else:
            self._live[job.id] = job
            if job.state is State.PARKED and job.reason is not None:
                self._telemetry.video_parked.labels(job.reason).inc()
        self.tell(job.id)

    def rest(self, job: Job, why: Exception) -> None:
        """Leave a job alone for a while: the disk is full, or fails."""
        log.warning("video %s is put aside for %g s: %s", job.id, RETRY_S, why)
        self._rest_until[job.id] = time.monotonic() + RETRY_S
        full = isinstance(why, StateWriteError) and why.disk_full
        reason = "disk_full" if full else "storage"
        resting = replace(job, reason=reason, words=str(why), tries=0)
        if job.state is State.RUNNING:  # and the journal could not be told otherwise
            self.note(replace(resting, state=State.PARKED))
        elif job.state is State.FETCHING:
            self.note(resting)

    def next(self, wanted: Callable[[Job], bool]) -> Job | None:
        """Return the oldest job that is wanted, in nobody's hand, and does not rest."""
        now = time.monotonic()
        for job in self._live.values():
            rested = self._rest_until.get(job.id, now) <= now
            if wanted(job) and rested and job.id not in self.hands:
                return job
        return None

    def take(self, job: Job) -> Hand:
        """Put a job into somebody's hand."""
        hand = self.hands[job.id] = Hand(job, Pace(job.frames_done))
        return hand

    def let_go(self, hand: Hand) -> None:
        """Take it out again."""
        del self.hands[hand.job.id]
        self._work.set()

    def view(self, job: Job) -> View:
        """Return how a job stands, with its live figures."""
        hand = self.hands.get(job.id)
        return view(job, None if hand is None else hand.pace)

    def news(self, name: str) -> asyncio.Event:
        """Return what is set at the next change of a job."""
        return self._news.setdefault(name, asyncio.Event())

    def tell(self, name: str) -> None:
        """Wake those who wait for news of a job, and those who look for work."""
        news = self._news.pop(name, None)
        if news is not None:
            news.set()
        self._work.set()

    def close(self) -> None:
        """Wake everybody, for the last time."""
        self.closing = True
        for name in tuple(self._news):
            self.tell(name)
        self._work.set()

    async def something(self) -> None:
        """Wait until there may be something to do."""
        self._work.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_S):
                await self._work.wait()

    def count(self, state: State) -> int:
        """Return how many jobs are in a state that is not final; from any thread."""
        return sum(job.state is state for job in self.live())

    def backlog_s(self) -> float:
        """Return the seconds of film accepted and not worked off; from any thread."""
        return sum(backlog_s(self.view(job)) for job in self.live())

    def _count_end(self, job: Job) -> None:
        self._telemetry.video_ended.labels(job.state).inc()
        if job.state is State.DONE:
            self._telemetry.video_duration.observe(job.worked_s)
        words = "" if job.reason is None else f" ({job.reason}: {job.words})"
        log.info(
            "video %s %s after %d frames in %.1f s%s",
            *(job.id, job.state, job.frames_done, job.worked_s, words),
        )
