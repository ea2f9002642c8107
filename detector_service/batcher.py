"""The one thread that owns the device: takes work in order, batches what fits, answers futures.

Used by the detect route and the canary; opened and stopped by ``app``. One model object shared by
threads gives wrong boxes without an error (its thresholds are written before its lock is taken),
hence one thread. Frames share a pass only with equal image size, ``imgsz`` and IoU; the pass runs
at the lowest confidence asked for and each answer is cut to its own afterwards, which keeps the
same set, since NMS goes from high to low.
Surprise: only ``InferenceError`` is survived. Anything else ends the thread, fails what waits and
sets ``lost``, at which ``app`` ends the process: a device in an unknown state is for a supervisor.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import Enum

from detector_service.backends import Backend, Detection, Image, ModelInfo
from detector_service.errors import DetectorError, DeviceLostError, InferenceError

IDLE_BEAT_S = 0.5


@dataclass(frozen=True)
class Work:
    """One frame to look at; ``expires_at`` is monotonic seconds, past it the frame is dropped."""

    image: Image
    conf: float
    iou: float
    imgsz: int
    expires_at: float = float("inf")

    @property
    def kind(self) -> tuple[object, ...]:
        """Return what frames of one pass must have in common."""
        return (self.image.shape, self.imgsz, self.iou)


@dataclass(frozen=True)
class Answer:
    """What came of one frame; ``started_at`` (monotonic) and ``seconds`` are of its pass."""

    detections: tuple[Detection, ...]
    started_at: float
    seconds: float


@dataclass(frozen=True)
class BatchLimits:
    """How many frames a pass may have, and how long the first waits for company, in seconds."""

    size: int
    wait_s: float


class DeviceState(Enum):
    """What the device thread is doing."""

    LOADING = "loading"
    RUNNING = "running"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(eq=False)
class _Queued:
    work: Work
    future: Future[Answer] = field(default_factory=Future)


class Batcher:
    """A FIFO of frames and the thread that works it off."""

    def __init__(
        self,
        open_backend: Callable[[], Backend],
        limits: Callable[[], BatchLimits],
        *,
        on_pass: Callable[[int, float], None] = lambda _frames, _seconds: None,
    ) -> None:
        """Prepare; ``start`` opens the backend on the thread.

        Args:
            open_backend: loads the model.
            limits: read before every pass.
            on_pass: told frames and seconds of every pass, on the device thread.

        ``opened`` tells what was loaded, or why nothing was; ``lost`` is done once a thread that
        had a model has failed.
        """
        self._open_backend = open_backend
        self._limits = limits
        self._on_pass = on_pass
        self._queue: deque[_Queued] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="device", daemon=True)
        self._state = DeviceState.LOADING
        self._beat_at = time.monotonic()
        self._pass_started_at: float | None = None
        self._busy_s = 0.0
        self._in_hand: Sequence[_Queued] = ()
        self.opened: Future[ModelInfo] = Future()
        self.lost: Future[None] = Future()
        for told in (self.opened, self.lost):
            # Somebody who stops waiting must not cancel it under the thread that will set it.
            told.set_running_or_notify_cancel()

    @property
    def state(self) -> DeviceState:
        """Return what the thread is doing."""
        return self._state

    @property
    def beat_age_s(self) -> float:
        """Return seconds since the thread last came round (idle or after a pass)."""
        return time.monotonic() - self._beat_at

    def busy_seconds(self) -> float:
        """Return the seconds spent in passes so far, a running one included."""
        started = self._pass_started_at
        return self._busy_s + (0.0 if started is None else time.monotonic() - started)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """Ask the thread to end after the pass in hand; returns whether it did in time."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def submit(self, work: Work, *, urgent: bool = False) -> Future[Answer]:
        """Queue one frame; ``urgent`` goes before all others. Cancel the future to drop it.

        Raises:
            DeviceLostError: there is no thread to do it.
        """
        queued = _Queued(work)
        with self._changed:
            if self._state in {DeviceState.FAILED, DeviceState.STOPPED}:
                raise DeviceLostError("the device thread has ended; the service must be restarted")
            if urgent:
                self._queue.appendleft(queued)
            else:
                self._queue.append(queued)
            self._changed.notify_all()
        queued.future.add_done_callback(self._forget)
        return queued.future

    async def infer(self, work: Work, *, urgent: bool = False) -> Answer:
        """Queue one frame and wait for its answer; cancelling drops it.

        Raises:
            TimeoutError: it was still queued at ``work.expires_at``.
            InferenceError: the model failed on it, or the device is gone.
        """
        return await asyncio.wrap_future(self.submit(work, urgent=urgent))

    def _forget(self, future: Future[Answer]) -> None:
        """Let go of a cancelled frame at once; a device that hangs would keep its pixels for ever.

        It is looked up by its future: a callback that held it would make a cycle, which keeps the
        pixels until the garbage collector comes round.
        """
        if not future.cancelled():
            return
        with self._changed:
            left = (queued for queued in self._queue if queued.future is not future)
            self._queue = deque(left)
            self._changed.notify_all()

    def _run(self) -> None:
        ended = DeviceState.FAILED
        try:
            backend = self._open_backend()
            self._beat_at = time.monotonic()
            self._state = DeviceState.RUNNING
            self.opened.set_result(backend.info)
            while (batch := self._next_batch()) is not None:
                self._in_hand = batch
                self._answer(backend, batch)
            ended = DeviceState.STOPPED
        except DetectorError as exc:
            self.opened.set_exception(exc)
        finally:
            self._abandon(ended)

    def _next_batch(self) -> list[_Queued] | None:
        """Wait for work; return frames that may share a pass, or None when stopping."""
        with self._changed:
            while not self._queue and not self._stopping:
                self._beat_at = time.monotonic()
                self._changed.wait(IDLE_BEAT_S)
            if not self._queue:
                return None
            self._beat_at = time.monotonic()
            limits = self._limits()
            first = self._queue[0].work
            until = time.monotonic() + limits.wait_s
            while 0 < len(self._alike(first)) < limits.size and not self._stopping:
                left = until - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            batch = self._alike(first)[: limits.size]
            for queued in batch:
                self._queue.remove(queued)
            return [queued for queued in batch if _wanted(queued)]

    def _alike(self, first: Work) -> list[_Queued]:
        return [queued for queued in self._queue if queued.work.kind == first.kind]

    def _answer(self, backend: Backend, batch: Sequence[_Queued]) -> None:
        if not batch:
            return
        try:
            self._pass(backend, batch)
        except InferenceError as exc:
            if len(batch) == 1:
                batch[0].future.set_exception(exc)
                return
            # One bad frame must not fail its neighbours.
            for queued in batch:
                self._answer(backend, [queued])

    def _pass(self, backend: Backend, batch: Sequence[_Queued]) -> None:
        first = batch[0].work
        lowest = min(queued.work.conf for queued in batch)
        images = [queued.work.image for queued in batch]
        started = self._pass_started_at = time.monotonic()
        try:
            found = backend.infer(images, conf=lowest, iou=first.iou, imgsz=first.imgsz)
        finally:
            seconds = time.monotonic() - started
            self._busy_s += seconds
            self._pass_started_at = None
            self._beat_at = time.monotonic()
        self._on_pass(len(batch), seconds)
        for queued, detections in zip(batch, found.found, strict=True):
            conf = queued.work.conf
            kept = tuple(item for item in detections if item.confidence >= conf)
            queued.future.set_result(Answer(kept, started, seconds))

    def _abandon(self, ended: DeviceState) -> None:
        with self._changed:
            self._state = ended
            left, self._queue = list(self._queue), deque()
        lost = DeviceLostError("the device thread has ended; the service must be restarted")
        if not self.opened.done():
            self.opened.set_exception(lost)
        elif ended is DeviceState.FAILED and self.opened.exception() is None:
            self.lost.set_result(None)
        for queued in self._in_hand:
            if not queued.future.done():
                queued.future.set_exception(lost)
        for queued in left:
            if queued.future.set_running_or_notify_cancel():
                queued.future.set_exception(lost)


def _wanted(queued: _Queued) -> bool:
    """Drop frames whose client left or whose deadline passed; nobody would read the answer."""
    if not queued.future.set_running_or_notify_cancel():
        return False
    if time.monotonic() >= queued.work.expires_at:
        queued.future.set_exception(TimeoutError("the deadline passed in the queue"))
        return False
    return True
