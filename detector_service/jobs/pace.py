"""How far and how fast: the live figures of a video that is in hand, and what others see of a job.

Written by the pipeline's finishing thread, read by the event loop; each write replaces one value.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from detector_service.jobs.video import Job, State

WINDOW_S: Final = 10.0


@dataclass(frozen=True)
class View:
    """A job as it is now; the chunk in hand counts in what is told of a running one.

    Attributes:
        frames_done: finished so far, committed or not.
        frames_total: what the film should have, None unknown.
        fps: frames a second over the last ten seconds, None where nothing runs.
        eta_s: seconds to go at that speed, None unknown.
    """

    job: Job
    frames_done: int
    frames_total: int | None
    fps: float | None = None
    eta_s: float | None = None


class Pace:
    """Frames a second over the last while."""

    def __init__(self, frames: int, now: Callable[[], float] = time.monotonic) -> None:
        """Start where ``frames`` are done; ``now`` is monotonic seconds."""
        self._now = now
        self._began_at = now()
        self._marks = deque([(self._began_at, frames)])
        self.frames = frames

    def note(self, frames: int) -> None:
        """Say how many frames are done."""
        now = self._now()
        self._marks.append((now, frames))
        while now - self._marks[0][0] > WINDOW_S and len(self._marks) > 1:
            self._marks.popleft()
        self.frames = frames

    def skip(self, seconds: float) -> None:
        """Leave out the last while; it waited."""
        self._began_at += seconds
        self._marks = deque([(self._now(), self.frames)])

    @property
    def seconds(self) -> float:
        """Return how long it has been going on."""
        return self._now() - self._began_at

    @property
    def fps(self) -> float | None:
        """Return frames a second, None before there is something to go by."""
        then, before = self._marks[0]
        seconds, frames = self._now() - then, self.frames - before
        return frames / seconds if frames > 0 and seconds > 0 else None


def view(job: Job, pace: Pace | None) -> View:
    """Return how a job stands; ``pace`` while it is worked on."""
    if job.state is State.DONE:
        return View(job, job.frames_done, job.frames_done)
    total = job.film.frames if job.film else None
    if pace is None or job.state is not State.RUNNING:
        return View(job, job.frames_done, total)
    job = replace(job, worked_s=job.worked_s + pace.seconds)
    # The header's number is a guess; a film may go on behind it.
    total = None if total is None else max(total, pace.frames)
    fps = pace.fps
    eta_s = None if fps is None or total is None else (total - pace.frames) / fps
    return View(job, pace.frames, total, fps, eta_s)


def backlog_s(seen: View) -> float:
    """Return the seconds of film that are still to be worked off, 0 where that is unknown."""
    film = seen.job.film
    if film is None or film.duration_s is None:
        return 0.0
    total = seen.frames_total
    return film.duration_s * (1 - seen.frames_done / total if total else 1)
