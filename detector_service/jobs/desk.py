"""The desk: takes videos in, says how they stand, hands out what came of them, ends them.

The routes call it and ``app`` runs it; all of it is on the event loop, and what blocks goes to
threads. Surprise: which of two things that race came first, such as cancel and done, is for the
journal to say. A call that lost gets the answer that it would have got a moment later.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from detector_service.batcher import Batcher
from detector_service.errors import RefusedError, StartError, StateWriteError
from detector_service.jobs.attempt import Bench
from detector_service.jobs.bounds import Bounds
from detector_service.jobs.crew import Crew
from detector_service.jobs.fetch import Fetcher, redacted
from detector_service.jobs.incoming import Arrived
from detector_service.jobs.journal import Journal
from detector_service.jobs.pace import View
from detector_service.jobs.register import Register
from detector_service.jobs.result import stream
from detector_service.jobs.shelf import Shelf
from detector_service.jobs.video import Job, Options, State, is_id, new_id, slug_of
from detector_service.limiter import Limiter
from detector_service.media import FilmInfo
from detector_service.telemetry import Telemetry
from detector_service.tunables import Document

log = logging.getLogger(__name__)

FULL_RETRY_S: Final = 30
REPEATS: Final = 4  # uploads at once of what is probably here already


@dataclass(frozen=True)
class Draft:
    """A video on its way in; end it with ``accept`` or ``discard``.

    Attributes:
        path: where its bytes go.
        room: how many there may be.
        known: its Idempotency-Key is that of a job, so it probably is a repeat and needs no place.
    """

    id: str
    path: Path
    room: int
    known: bool = False


class Desk:
    """Everything about video jobs that others may ask for."""

    def __init__(
        self,
        folder: Path,
        bounds: Bounds,
        *,
        instance: str,
        document: Callable[[], Document],
        refusal: Callable[[], str | None],
        batcher: Batcher,
        limiter: Limiter,
        telemetry: Telemetry,
        fetcher: Fetcher,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Prepare; ``open`` before anything else.

        Args:
            folder: the state folder, held by this process.
            bounds: how much is taken on.
            instance: the process' name to others; ids begin with it.
            document: the settings in force.
            refusal: a reason word why no video may be worked on now, or None; from any thread.
            batcher: where frames go.
            limiter: who gives slots.
            telemetry: what is counted.
            fetcher: gets films by URL.
            now: seconds since the epoch.

        Raises:
            StartError: the journal or the folder of the videos cannot be used.
        """
        self._bounds = bounds
        self._slug = slug_of(instance)
        self._fetcher = fetcher
        self._now = now
        self._journal = Journal(folder / "videos.db")
        self._shelf = Shelf(folder / "videos")
        try:
            self._shelf.make()
        except StateWriteError as exc:
            raise StartError(str(exc)) from exc
        self._register = Register(telemetry)
        self._drafts: dict[str, Draft] = {}
        bench = Bench(self._journal, self._shelf, batcher, telemetry, bounds.media, now)
        self._crew = Crew(
            self._register,
            bench,
            bounds,
            document=document,
            refusal=refusal,
            limiter=limiter,
            fetcher=fetcher,
            room=self._room,
        )

    async def open(self) -> None:
        """Take up what an earlier process left: its jobs, and none of its litter."""
        self._journal.open()
        for job in await asyncio.to_thread(self._crew.recover):
            self._register.add(job)
            if job.state.final:
                self._register.note(job)  # as the end it is

    async def run(self) -> None:
        """Work until cancelled."""
        await self._crew.run()

    def stop(self) -> None:
        """Let go of every video at once; a chunk in hand is lost, all before it is kept."""
        self._crew.stop()

    async def close(self) -> None:
        """Stop, and wait a little until every video has been put aside."""
        await self._crew.close()

    def shut(self) -> None:
        """Close the journal; the last thing."""
        self._journal.close()

    def count(self, state: State) -> int:
        """Return how many jobs are in a state that is not final; from any thread."""
        return self._register.count(state)

    def backlog_s(self) -> float:
        """Return the seconds of film accepted and not worked off; from any thread."""
        return self._register.backlog_s()

    # --- taking in ----------------------------------------------------------------------------

    async def admit(self, length: int | None, key: str | None = None) -> Draft:
        """Make room for an upload of ``length`` bytes (None: not known).

        A full queue does not keep out a key that is known: it may be the retry of a job in it.

        Raises:
            RefusedError: 429 ``queue_full``, 507 ``storage_full``, 413 ``too_large``.
            StateWriteError: its folder cannot be made.
        """
        known = key is not None and await asyncio.to_thread(self._journal.knows, key)
        self._require_place(known=known)
        if length is not None and length > self._bounds.max_bytes:
            words = f"the video has {length} bytes, more than {self._bounds.max_bytes}"
            evidence = {"max_bytes": self._bounds.max_bytes}
            raise RefusedError(413, "too_large", words, evidence=evidence)
        left = await self._room()
        if left <= (length or 0):
            raise RefusedError(
                507,
                "storage_full",
                f"the store for videos has {max(left, 0)} bytes left; delete videos that are done",
                evidence={"store_bytes": self._bounds.store_bytes},
                retry_after_s=_retry_after_s(),
            )
        self._require_place(known=known)  # others may have come while we looked
        name = new_id(self._slug)
        room = min(length or self._bounds.max_bytes, left)
        draft = Draft(name, self._shelf.source(name), room, known)
        self._drafts[name] = draft
        try:
            await asyncio.to_thread(self._shelf.make, name)
        except BaseException:
            del self._drafts[name]
            raise
        return draft

    async def _room(self) -> int:
        """Return the bytes that are left in the store, less what is on its way to it."""
        left = self._bounds.store_bytes - await asyncio.to_thread(self._shelf.used)
        left -= sum(draft.room for draft in self._drafts.values())
        return left - sum(hand.room for hand in self._register.hands.values())

    def _require_place(self, *, known: bool) -> None:
        alike = sum(draft.known is known for draft in self._drafts.values())
        if alike < REPEATS if known else alike + len(self._register) < self._bounds.queue:
            return
        raise RefusedError(
            429,
            "queue_full",
            f"{len(self._register)} videos wait or are worked on and {len(self._drafts)} are on "
            "their way in; try again later",
            evidence={"video_queue": self._bounds.queue},
            retry_after_s=_retry_after_s(),
        )

    async def discard(self, draft: Draft) -> None:
        """Forget an upload that did not become a job."""
        await asyncio.to_thread(self._shelf.keep, draft.id, ())
        self._drafts.pop(draft.id, None)

    async def probe(self, draft: Draft) -> FilmInfo:
        """Look what an upload is; in threads of its own, since a film may be made to take long.

        Raises:
            MediaError: it is no film that is taken, or takes too long; see ``Prober.look``.
        """
        return await self._crew.prober.look(draft.path)

    async def accept(
        self, draft: Draft, arrived: Arrived, film: FilmInfo, options: Options, key: str | None
    ) -> tuple[View, bool]:
        """Make a job of an upload that is on disk; durable when it returns.

        Returns:
            The job, and whether it is new: with an Idempotency-Key that is known, the same film
            with the same options is the job it was, and the draft is discarded.

        Raises:
            RefusedError: 409 ``idempotency_key_reused``; the draft is discarded.
            StateWriteError: not durable, not accepted; the draft is discarded.
        """
        job = Job(
            0, draft.id, State.QUEUED, options, self._now(),
            size=arrived.size, digest=arrived.sha256, film=film,
        )  # fmt: skip
        new = False
        try:
            await asyncio.to_thread(self._shelf.seal, draft.id)
            job, new = await self._add(job, key, arrived.sha256)
        finally:
            if not new:
                await self.discard(draft)
            self._drafts.pop(draft.id, None)
        return self._register.view(job), new

    async def accept_url(self, url: str, options: Options, key: str | None) -> tuple[View, bool]:
        """Make a job of a film to fetch; like ``accept``.

        Raises:
            RefusedError: 403 or 422 for the URL, 429, 507, or 409 as in ``accept``.
            StateWriteError: not durable, not accepted.
        """
        self._fetcher.require(url)
        draft = await self.admit(None, key)
        job = Job(0, draft.id, State.FETCHING, options, self._now(), url=url, origin=redacted(url))
        new = False
        try:
            job, new = await self._add(job, key, url)
        finally:
            if not new:
                await self.discard(draft)
            self._drafts.pop(draft.id, None)
        return self._register.view(job), new

    async def _add(self, job: Job, key: str | None, content: str) -> tuple[Job, bool]:
        told = json.dumps([content, asdict(job.options)], sort_keys=True)
        fingerprint = hashlib.sha256(told.encode()).hexdigest()
        job, new = await asyncio.to_thread(self._journal.add, job, key=key, fingerprint=fingerprint)
        if new:
            self._register.add(job)
            log.info("video %s accepted: %s, %s", job.id, job.options.mode, job.state)
        return job, new

    # --- asking -------------------------------------------------------------------------------

    async def look(self, name: str) -> View:
        """Return how a job stands.

        Raises:
            RefusedError: 404.
        """
        return self._register.view(await self._find(name))

    async def listing(
        self, *, state: State | None = None, before: int | None = None, most: int = 100
    ) -> list[View]:
        """Return jobs, newest first; go on with ``before`` set to the last ``seq``."""
        if state is not None and not state.final:
            live = [job for job in self._register.live() if job.state is state]
            older = [job for job in reversed(live) if before is None or job.seq < before]
            return [self._register.view(job) for job in older[:most]]
        read = self._journal.jobs
        found = await asyncio.to_thread(lambda: read(state=state, before=before, most=most))
        return [self._register.view(self._register.get(job.id) or job) for job in found]

    async def watch(self, name: str) -> AsyncIterator[View]:
        """Yield how a job stands, now and at every change, until it has ended or the desk stops.

        A slow reader misses what is old, never what is newest.

        Raises:
            RefusedError: 404.
        """
        while (job := self._register.get(name)) is not None and not self._register.closing:
            news = self._register.news(name)  # taken before the look, so that nothing is missed
            yield self._register.view(job)
            await news.wait()
        yield await self.look(name)

    async def result(self, name: str) -> Iterator[bytes]:
        """Return the result as pieces of JSON, to be taken in a thread.

        Raises:
            RefusedError: 404, 409 ``not_done``, 410 ``failed`` or ``cancelled``.
        """
        job = await self._done(name)
        summary = await asyncio.to_thread(self._journal.summary, job)
        if summary is None:
            raise _gone()
        return stream(job, summary, self._journal)

    async def annotated(self, name: str) -> Path:
        """Return where the annotated film lies.

        Raises:
            RefusedError: as ``result``, or 404 ``not_annotated``.
        """
        job = await self._done(name)
        if not job.options.draws:
            words = "no annotated film was made of this video; send it again with annotate=true"
            raise RefusedError(404, "not_annotated", words)
        return self._shelf.annotated(job.id)

    async def _done(self, name: str) -> Job:
        job = await self._find(name)
        if job.state is State.DONE:
            return job
        evidence = {"state": job.state}
        if not job.state.final:
            words = f"the video is {job.state}; its result is there once it is done"
            raise RefusedError(409, "not_done", words, evidence=evidence)
        words = f"the video {job.state}: {job.words or 'as somebody wished'}; there is no result"
        raise RefusedError(410, job.state, words, evidence={**evidence, "why": job.reason})

    # --- ending -------------------------------------------------------------------------------

    async def cancel(self, name: str) -> View:
        """Cancel a job for good; one that has ended stays as it is.

        Raises:
            RefusedError: 404.
            StateWriteError: nothing was changed.
        """
        job = await self._find(name)
        end = self._journal.end
        ended = await asyncio.to_thread(end, job, State.CANCELLED, self._now())
        if ended is None:
            return await self.look(name)
        self._register.note(ended)
        hand = self._register.hands.get(name)
        if hand is not None:
            hand.drop()  # whoever has it removes its files
        else:
            await asyncio.to_thread(self._shelf.keep, name, ())
        return self._register.view(ended)

    async def delete(self, name: str) -> None:
        """Remove an ended job, its rows and its files.

        Raises:
            RefusedError: 404, or 409 ``not_ended``.
            StateWriteError: nothing was changed.
        """
        job = await self._find(name)
        if not job.state.final:
            words = f"the video is {job.state}; cancel it first"
            raise RefusedError(409, "not_ended", words, evidence={"state": job.state})
        await asyncio.to_thread(self._crew.forget, job)

    async def _find(self, name: str) -> Job:
        if is_id(name):
            job = self._register.get(name) or await asyncio.to_thread(self._journal.job, name)
            if job is not None:
                return job
        raise _gone()


def _gone() -> RefusedError:
    return RefusedError(404, "not_found", "there is no such video; it may have been deleted")


def _retry_after_s() -> int:
    """Return whole seconds, spread so that clients do not come back in a herd."""
    return round(FULL_RETRY_S * random.uniform(0.8, 1.2))  # noqa: S311 - spread, no secret
