"""Those who do the work: they fetch films, work them off oldest first, and throw old ones away.

Run by ``app`` by way of the desk. A worker holds one slot of the limiter while it works, and gives
it back wherever a chunk ends and somebody else needs it.
Surprise: a bad video fails alone, whatever it brings about. Where it ends the process, the next
one goes on from the last finished chunk, and gives the video up at the third time.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from detector_service.errors import MediaError, StateWriteError
from detector_service.jobs.attempt import WORDS, Attempt, Bench, unforeseen
from detector_service.jobs.bounds import Bounds
from detector_service.jobs.fetch import Fetcher
from detector_service.jobs.incoming import Arrived
from detector_service.jobs.pace import Pace
from detector_service.jobs.probing import Prober
from detector_service.jobs.register import Hand, Register
from detector_service.jobs.shelf import ANNOTATED
from detector_service.jobs.video import MAX_TRIES, Job, Recipe, State
from detector_service.limiter import Limiter
from detector_service.tunables import Document

log = logging.getLogger(__name__)
T = TypeVar("T")

FETCHERS: Final = 3  # a slow site does not hold up all others
SWEEP_S: Final = 60.0
CLOSE_S: Final = 5.0
TELL_S: Final = 0.25  # listeners are told of progress at most so often
STARTABLE: Final = frozenset({State.QUEUED, State.PARKED, State.RUNNING})
PUT_ASIDE: Final = frozenset({"disk_full", "storage"})


class Crew:
    """The workers, the fetchers and the sweeper."""

    def __init__(
        self,
        register: Register,
        bench: Bench,
        bounds: Bounds,
        *,
        document: Callable[[], Document],
        refusal: Callable[[], str | None],
        limiter: Limiter,
        fetcher: Fetcher,
        room: Callable[[], Awaitable[int]],
    ) -> None:
        """Prepare; ``recover``, then ``run``; ``room`` tells the bytes left in the store."""
        self._register = register
        self._bench = bench
        self._bounds = bounds
        self._document = document
        self._refusal = refusal
        self._limiter = limiter
        self._fetcher = fetcher
        self._room = room
        self._pool = ThreadPoolExecutor(bounds.workers, thread_name_prefix="video")
        self.prober = Prober(bounds.media)

    def recover(self) -> list[Job]:
        """Return the jobs an earlier process left (some of them given up), remove its litter."""
        journal, shelf = self._bench.journal, self._bench.shelf
        for name in shelf.sweep(frozenset(journal.ids())):
            log.info("removed what was left of video %s, which was never accepted", name)
        left = [self._recovered(job) for job in journal.live()]
        for job in journal.ended_before(float("inf")):
            shelf.keep(job.id, files_of(job))
        return left

    def _recovered(self, job: Job) -> Job:
        end, park = self._bench.journal.end, self._bench.journal.park
        words = "the service ended in the middle of it"
        try:
            if job.tries >= MAX_TRIES:
                got = "its fetch ending" if job.state is State.FETCHING else "a finished chunk"
                words = f"{words}, {job.tries} times without {got}; it is given up"
                return end(job, State.FAILED, self._bench.now(), "crashes", words) or job
            if job.state is State.RUNNING:
                return park(job, "restarted", words, clean=False) or job
        except StateWriteError as exc:  # it can be worked on all the same, if there is room by then
            log.warning("video %s cannot be parked: %s", job.id, exc)
        return job

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(1, self._bounds.workers + 1):
                    group.create_task(self._work_all(f"video-{number}"))
                for _ in range(FETCHERS):
                    group.create_task(self._fetch_all())
                group.create_task(self._sweep_all())
        finally:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self.prober.shut()

    def stop(self) -> None:
        """Let go of every video at once; a chunk in hand is lost, all before it is kept."""
        self._register.close()
        for hand in self._register.hands.values():
            hand.stop()

    async def close(self) -> None:
        """Stop, and wait a little until every video has been put aside."""
        self.stop()
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                while self._register.hands:
                    await self._register.something()
        for hand in tuple(self._register.hands.values()):
            # It is left in the middle of something long. That is our doing, and no fault of its.
            with suppress(StateWriteError):
                if hand.job.state is State.RUNNING:
                    self._bench.journal.park(hand.job, "stopping", WORDS["stopping"], clean=True)
                elif hand.job.state is State.FETCHING:
                    self._bench.journal.fetch(hand.job, tries=0)

    def _halted(self) -> str | None:
        return "stopping" if self._register.closing else self._refusal()

    # --- working off ---

    async def _work_all(self, stream: str) -> None:
        while True:
            job = None
            if self._halted() is None:
                job = self._register.next(lambda job: job.state in STARTABLE)
            if job is None:
                await self._register.something()
                continue
            hand = self._register.take(job)
            try:
                await self._with_slot(hand, stream)
                if hand.dropped:
                    await asyncio.to_thread(self._bench.shelf.keep, job.id, ())
            finally:
                self._register.let_go(hand)

    async def _with_slot(self, hand: Hand, stream: str) -> None:
        try:
            if await self._hold(hand) is None:
                await self._work(hand, stream)
        finally:
            self._leave(hand)
            with suppress(KeyError):
                self._bench.telemetry.stream_last_frame.remove(stream)

    async def _hold(self, hand: Hand) -> str | None:
        """Wait for a slot; returns a reason not to work after all."""
        hand.place = await self._droppable(hand, self._limiter.hold(hand.job.seq))
        return "stopping" if hand.place is None or hand.dropped else self._halted()

    def _leave(self, hand: Hand) -> None:
        if hand.place is not None:
            self._limiter.leave(hand.place)
            hand.place = None

    async def _work(self, hand: Hand, stream: str) -> None:
        bench, job = self._bench, hand.job
        try:
            started = await asyncio.to_thread(
                bench.journal.start, job, self._recipe(job), bench.now()
            )
            if started is None:
                return  # it was cancelled meanwhile
            hand.job, hand.pace = started, Pace(started.frames_done)
            self._register.note(started)
            ended = await self._attempt(hand, stream)
        except StateWriteError as exc:
            if not self._register.closing:
                known = await asyncio.to_thread(bench.journal.job, job.id)
                self._register.rest(known or job, exc)
            return
        if ended is None:
            return  # likewise
        if ended.state is State.FAILED:
            await asyncio.to_thread(bench.shelf.keep, job.id, ())
        self._register.note(ended)
        if ended.state is State.PARKED and ended.reason in PUT_ASIDE:
            self._register.rest(ended, OSError(ended.words))

    async def _attempt(self, hand: Hand, stream: str) -> Job | None:
        loop = asyncio.get_running_loop()
        attempt = hand.attempt = Attempt(
            hand.job,
            self._bench,
            may_go_on=lambda: self._may_go_on(hand, loop),
            progress=self._progress(hand, stream),
        )
        if hand.dropped or self._register.closing:
            attempt.stop()
        try:
            return await loop.run_in_executor(self._pool, attempt.run)
        finally:
            attempt.stop()
            hand.attempt = None

    def _may_go_on(self, hand: Hand, loop: asyncio.AbstractEventLoop) -> str | None:
        """Say why to park, if so; called in the attempt's thread, which waits while it gives way.

        The film stays open meanwhile. Without an index (MPEG-TS, AVI, FLV) it would be read again
        from its start each time an image comes.
        """
        halted, place = self._halted(), hand.place
        if halted is not None or place is None or self._limiter.may_go_on(place):
            return halted
        reason = "limit" if self._limiter.running > self._limiter.limit else "images"
        return asyncio.run_coroutine_threadsafe(self._give_way(hand, reason), loop).result()

    async def _give_way(self, hand: Hand, reason: str) -> str | None:
        """Give the slot back and wait for another; returns a reason to park after all."""
        began_at = time.monotonic()
        self._leave(hand)
        aside = replace(hand.job, state=State.PARKED, reason=reason, words=WORDS[reason])
        self._register.note(replace(aside, frames_done=hand.pace.frames))
        why = await self._hold(hand)
        hand.pace.skip(time.monotonic() - began_at)
        if why is None:
            self._register.note(hand.job)
        return why

    def _progress(self, hand: Hand, stream: str) -> Callable[[int], None]:
        loop = asyncio.get_running_loop()
        last_frame = self._bench.telemetry.stream_last_frame.labels(stream)
        told_at = 0.0

        def progress(frames: int) -> None:
            nonlocal told_at
            hand.pace.note(frames)
            last_frame.set_to_current_time()
            if time.monotonic() - told_at >= TELL_S:
                told_at = time.monotonic()
                with suppress(RuntimeError):  # the loop has ended; nobody listens any more
                    loop.call_soon_threadsafe(self._register.tell, hand.job.id)

        return progress

    def _recipe(self, job: Job) -> Recipe:
        document = self._document()
        values, asked = document.values, job.options
        info = self._bench.batcher.opened.result()
        return Recipe(
            conf=values["conf_threshold"] if asked.conf is None else asked.conf,
            iou=values["iou_threshold"] if asked.iou is None else asked.iou,
            imgsz=int(values["imgsz"] if asked.imgsz is None else asked.imgsz),
            frame_stride=int(asked.frame_stride or values["frame_stride"]),
            generation=document.generation,
            batch=int(values["batch_size"]),
            chunk_frames=self._bounds.chunk_frames,
            preset=self._bounds.preset,
            crf=self._bounds.crf,
            model=info.name,
            version=info.version,
            backend=info.backend,
            precision=info.precision,
            runtime=info.runtime,
        )

    # --- fetching ---

    async def _fetch_all(self) -> None:
        while True:
            job = self._register.next(lambda job: job.state is State.FETCHING)
            if job is None or self._register.closing:
                await self._register.something()
                continue
            hand = self._register.take(job)
            try:
                await self._fetch(hand)
            except (StateWriteError, OSError) as exc:
                if hand.dropped:
                    await asyncio.to_thread(self._bench.shelf.keep, job.id, ())
                elif not self._register.closing:
                    self._register.rest(job, exc)
            finally:
                self._register.let_go(hand)

    async def _fetch(self, hand: Hand) -> None:
        """Fetch one film; a try is counted as long as nobody knows how it ended."""
        job, bench = hand.job, self._bench
        try:
            now = await asyncio.to_thread(bench.journal.fetch, job, tries=job.tries + 1)
            if now is not None:
                self._register.note(now)
                now = await self._fetched(hand)
        except MediaError as exc:
            now = await self._fetch_failed(job, exc.reason, str(exc))
        except (StateWriteError, OSError):
            with suppress(StateWriteError):
                await asyncio.to_thread(bench.journal.fetch, job, tries=0)
            raise
        except Exception as exc:  # whatever a stranger's film brings about, it must end here
            log.exception("video %s met what nobody foresaw", job.id)
            now = await self._fetch_failed(job, "internal", unforeseen(exc))
        if now is None and not hand.dropped:  # the service ends
            now = await asyncio.to_thread(bench.journal.fetch, job, tries=0)
        if now is None or now.state is not State.QUEUED:
            await asyncio.to_thread(bench.shelf.keep, job.id, ())
        if now is not None:
            self._register.note(now)

    async def _fetched(self, hand: Hand) -> Job | None:
        """Return the job with its film; None: it was dropped or stopped meanwhile."""
        job, bench = hand.job, self._bench
        path = bench.shelf.source(job.id)
        await asyncio.to_thread(bench.shelf.make, job.id)
        arrived = await self._arrived(hand, path)
        if arrived is None:
            return None
        film = await self._droppable(hand, self.prober.look(path))
        if film is None:
            return None
        await asyncio.to_thread(bench.shelf.seal, job.id)
        return await asyncio.to_thread(
            bench.journal.fetched, job, film, size=arrived.size, digest=arrived.sha256
        )

    async def _arrived(self, hand: Hand, path: Path) -> Arrived | None:
        most = self._fetcher.max_bytes
        room = min(await self._room(), most)
        if room <= 0:
            words = "the store for videos is full; delete videos that are done"
            raise StateWriteError(words, disk_full=True)
        hand.room = room
        fetching = replace(self._fetcher, max_bytes=room).fetch(hand.job.url or "", path)
        try:
            return await self._droppable(hand, fetching)
        except MediaError as exc:
            if exc.reason != "too_large" or room == most:
                raise
            words = f"the store for videos has no more than {room} bytes left"
            advice = "delete videos that are done and send it again"
            raise MediaError("storage_full", f"{words}; {advice}") from exc
        finally:
            hand.room = 0

    async def _fetch_failed(self, job: Job, reason: str, words: str) -> Job | None:
        told = (job, State.FAILED, self._bench.now(), reason, words)
        return await asyncio.to_thread(self._bench.journal.end, *told)

    async def _droppable(self, hand: Hand, work: Coroutine[Any, Any, T]) -> T | None:
        """Wait for ``work``, or until the hand is dropped or stopped: None."""
        waiting = asyncio.ensure_future(work)
        hand.waiting = cast("asyncio.Future[object]", waiting)
        if hand.dropped or self._register.closing:
            waiting.cancel()
        try:
            return await waiting
        except asyncio.CancelledError:
            running = asyncio.current_task()
            if running is None or running.cancelling():
                raise
            return None
        finally:
            hand.waiting = None

    # --- throwing away ---

    async def _sweep_all(self) -> None:
        while True:
            try:
                await asyncio.to_thread(self.sweep)
            except StateWriteError as exc:
                log.warning("old videos are kept for now: %s", exc)
            await asyncio.sleep(SWEEP_S)

    def sweep(self) -> None:
        """Remove what ended longer ago than it is kept."""
        for job in self._bench.journal.ended_before(self._bench.now() - self._bounds.keep_s):
            self.forget(job)
            log.info("video %s removed: it ended %g s ago or more", job.id, self._bounds.keep_s)

    def forget(self, job: Job) -> None:
        """Remove an ended job, its files first: on a full disk they make room for the rest."""
        self._bench.shelf.keep(job.id, ())
        self._bench.journal.forget(job)


def files_of(job: Job) -> frozenset[str]:
    """Return the files an ended job keeps."""
    return frozenset({ANNOTATED}) if job.state is State.DONE else frozenset()
