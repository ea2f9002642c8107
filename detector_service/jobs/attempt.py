"""One attempt at a job that was started: work its film off, join it, record how that ended.

Run by the crew in a thread, with a slot in hand. Surprise: every way it can end is written to the
journal here, except three: the job was cancelled (that is written already), the journal itself
cannot be written (the crew tries again), or the process dies (the next one tries again).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from detector_service.batcher import Batcher
from detector_service.disk import FULL
from detector_service.errors import DeviceLostError, MediaError, StateWriteError
from detector_service.jobs.journal import Journal
from detector_service.jobs.pipeline import Abandoned, Film, Hooks, Parked, Pipeline, Whole
from detector_service.jobs.result import summed
from detector_service.jobs.shelf import ANNOTATED, SOURCE, Shelf, segment_name
from detector_service.jobs.video import Job, State
from detector_service.media import MediaLimits, join
from detector_service.telemetry import Telemetry

log = logging.getLogger(__name__)

WORDS = {
    "draining": "the service is being drained",
    "stopping": "the service is ending",
    "limit": "fewer requests may run than before",
    "images": "images wait for its slot",
    "sick": "the device does not answer",
    "loading": "the model is being loaded",
}


@dataclass(frozen=True)
class Bench:
    """What every attempt works with; ``now`` is seconds since the epoch."""

    journal: Journal
    shelf: Shelf
    batcher: Batcher
    telemetry: Telemetry
    limits: MediaLimits
    now: Callable[[], float]


class Attempt:
    """One attempt; ``run`` it once."""

    def __init__(
        self,
        job: Job,
        bench: Bench,
        *,
        may_go_on: Callable[[], str | None],
        progress: Callable[[int], None],
    ) -> None:
        """Prepare.

        Args:
            job: as ``Journal.start`` returned it.
            bench: what to work with.
            may_go_on: asked after each chunk, from another thread, and may wait there for better
                times with the film kept open; a reason to park, or None.
            progress: told the frames finished so far, from any thread.
        """
        self._job = job
        self._bench = bench
        self._may_go_on = may_go_on
        self._progress = progress
        self._lock = threading.Lock()
        self._stopped = False
        self._pipeline: Pipeline | None = None

    def stop(self) -> None:
        """Stop within a batch, from any thread; the chunk in hand is lost."""
        with self._lock:
            self._stopped = True
            if self._pipeline is not None:
                self._pipeline.stop()

    def run(self) -> Job | None:
        """Work until the job is done, failed or parked; None: it was cancelled meanwhile.

        Raises:
            StateWriteError: the journal cannot be written; the job is left running.
        """
        try:
            return self._work()
        except MediaError as exc:
            return self._fail(exc.reason, str(exc))
        except FileNotFoundError as exc:
            return self._fail("files_lost", f"a file of the job is gone: {exc.filename}")
        except DeviceLostError as exc:
            # Its tries stay: it may be the very video that makes the device fail.
            return self._park("sick", str(exc), clean=False)
        except OSError as exc:
            reason = "disk_full" if exc.errno in FULL else "storage"
            return self._park(reason, f"cannot write its files: {exc.strerror or exc}", clean=True)
        except StateWriteError:
            raise
        except Exception as exc:  # whatever a stranger's film brings about, it must end here
            log.exception("video %s met what nobody foresaw", self._job.id)
            return self._fail("internal", unforeseen(exc))

    def _work(self) -> Job | None:
        job, bench = self._job, self._bench
        self._require_class()
        pieces = bench.journal.pieces(job)
        bench.shelf.keep(job.id, {SOURCE, *map(segment_name, pieces)})
        with self._lock:
            self._pipeline = Pipeline(self._film(), self._hooks(), bench.telemetry)
            if self._stopped:
                self._pipeline.stop()
        outcome = self._pipeline.work()
        match outcome:
            case Whole():
                return self._finish()
            case Parked(reason):
                return self._park(reason, WORDS.get(reason, reason), clean=True)
            case Abandoned():
                return self._park_stopped()

    def _require_class(self) -> None:
        wanted, classes = self._job.options.rules.cursor_class, self._classes()
        if self._job.options.mode == "filter" and wanted not in classes:
            words = f"the model has no class {wanted}, but: {', '.join(sorted(classes))}"
            raise MediaError("no_such_class", f"{words}; send it again with another cursor_class")

    def _classes(self) -> frozenset[str]:
        return frozenset(self._bench.batcher.opened.result().classes.values())

    def _film(self) -> Film:
        job, bench = self._job, self._bench
        assert job.film is not None  # noqa: S101 - only jobs whose film was probed are queued
        assert job.recipe is not None  # noqa: S101 - start() fixed it
        return Film(
            source=bench.shelf.source(job.id),
            info=job.film,
            limits=bench.limits,
            options=job.options,
            recipe=job.recipe,
            tail=bench.journal.tail(job),
            classes=self._classes(),
        )

    def _hooks(self) -> Hooks:
        job, bench = self._job, self._bench
        return Hooks(
            submit=bench.batcher.submit_all,
            may_go_on=self._may_go_on,
            segment=lambda number: bench.shelf.segment(job.id, number),
            commit=lambda chunk, worked_s: bench.journal.add_chunk(job, chunk, worked_s),
            progress=self._progress,
        )

    def _finish(self) -> Job | None:
        """Join, then say done, then tidy: whatever is cut short is done again by the next try."""
        job, bench, kept = self._job, self._bench, set[str]()
        if job.options.draws:
            numbers = bench.journal.pieces(job)
            segments = [bench.shelf.segment(job.id, number) for number in numbers]
            started = time.monotonic()
            source, out = bench.shelf.source(job.id), bench.shelf.annotated(job.id)
            if not join(segments, source, out, lambda: not self._stopped):
                return self._park_stopped()
            log.info("video %s joined in %.1f s", job.id, time.monotonic() - started)
            kept.add(ANNOTATED)
        summary = summed(job, bench.journal)
        done = bench.journal.end(job, State.DONE, bench.now(), summary=summary)
        if done is not None:
            bench.shelf.keep(job.id, kept)
        return done

    def _fail(self, reason: str, words: str) -> Job | None:
        return self._bench.journal.end(self._job, State.FAILED, self._bench.now(), reason, words)

    def _park_stopped(self) -> Job | None:
        return self._park("stopping", WORDS["stopping"], clean=True)

    def _park(self, reason: str, words: str, *, clean: bool) -> Job | None:
        return self._bench.journal.park(self._job, reason, words, clean=clean)


def unforeseen(exc: Exception) -> str:
    """Return what people are told of an error that is a mistake of this service."""
    return f"the service has a fault that this video met ({type(exc).__name__}); its log says more"
