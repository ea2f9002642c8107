"""The one thread that owns the device: takes work in order, batches what fits, answers futures.

Used by the detect route, video jobs and the canary; opened and stopped by ``app``. One model object
shared by threads gives wrong boxes without an error (its thresholds are written before its lock is
taken), hence one thread. Frames share a pass only with equal image size, ``imgsz`` and IoU; the
pass runs at the lowest confidence asked for and each answer is cut to its own afterwards, which
keeps the same set, since NMS goes from high to low.
Surprise: only an ``InferenceError`` that is no ``DeviceLostError`` is survived. Anything else ends
the thread, fails what waits and sets ``lost``, at which ``app`` ends the process: a device in an
unknown state is for a supervisor.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import TypeVar

from detector_service.backends import Backend, ModelInfo
from detector_service.batcher.line import Line
from detector_service.batcher.pace import Pace
from detector_service.batcher.room import Room
from detector_service.batcher.work import (
    Answer,
    BatchLimits,
    DeviceState,
    Priority,
    Queued,
    Work,
)
from detector_service.errors import (
    DetectorError,
    DeviceLostError,
    InferenceError,
    OutOfMemoryError,
)

log = logging.getLogger(__name__)
T = TypeVar("T")

IDLE_BEAT_S = 0.5
LOST = "the device thread has ended; the service must be restarted"
ENDED = frozenset({DeviceState.FAILED, DeviceState.STOPPED})


class Batcher:
    """A line of frames and the thread that works it off."""

    def __init__(
        self,
        open_backend: Callable[[], Backend],
        limits: Callable[[], BatchLimits],
        *,
        on_pass: Callable[[int, float, Mapping[str, float]], None] = lambda *_told: None,
        on_drop: Callable[[str], None] = lambda _reason: None,
        on_out_of_memory: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare; ``start`` opens the backend on the thread.

        Args:
            open_backend: loads the model.
            limits: read before every pass.
            on_pass: told frames, seconds and seconds by stage of every pass, on the device thread.
            on_drop: told why a frame never went through the model: ``deadline``, ``cancelled``.
            on_out_of_memory: told of every pass that did not fit.

        ``opened`` tells what was loaded, or why nothing was; ``lost`` is done once a thread that
        had a model has failed.
        """
        self._open_backend = open_backend
        self._limits = limits
        self._on_pass = on_pass
        self._on_drop = on_drop
        self._on_out_of_memory = on_out_of_memory
        self._line = Line()
        self._errands: deque[Callable[[Backend | None], None]] = deque()
        self._room = Room()
        self._pace = Pace()
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="device", daemon=True)
        self._state = DeviceState.LOADING
        self._beat_at = time.monotonic()
        self._pass_started_at: float | None = None
        self._busy_s = 0.0
        self._in_hand: Sequence[Queued] = ()
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

    @property
    def batch_limit(self) -> int:
        """Return how many frames a pass may have: ``batch_size``, less where memory ran out."""
        return self._room.peek(self._limits().size)

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

    def submit(self, work: Work) -> Future[Answer]:
        """Queue one frame. Cancel the future to drop it.

        Raises:
            DeviceLostError: there is no thread to do it.
        """
        return self._queue([Queued(work, time.monotonic())])[0]

    def submit_all(self, works: Sequence[Work]) -> list[Future[Answer]]:
        """Queue frames that shall be one pass, and share it with no others.

        They are one pass if they are of one kind, no more than ``batch_size``, and fit; so the
        same frames give the same floats whatever else the device does.

        Raises:
            DeviceLostError: there is no thread to do it.
        """
        now, group = time.monotonic(), object()
        return self._queue([Queued(work, now, group) for work in works])

    async def infer(self, work: Work) -> Answer:
        """Queue one frame and wait for its answer; cancelling drops it.

        Raises:
            TimeoutError: it was still queued at ``work.expires_at``.
            InferenceError: the model failed on it, or the device is gone.
        """
        return await asyncio.wrap_future(self.submit(work))

    def run_on_device(self, errand: Callable[[Backend], T]) -> Future[T]:
        """Run something on the device thread, after the pass in hand and before all frames.

        Raises:
            DeviceLostError: there is no thread to do it.
        """
        future: Future[T] = Future()

        def run(backend: Backend | None) -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                if backend is None:
                    raise DeviceLostError(LOST)
                future.set_result(errand(backend))
            except InferenceError as exc:
                future.set_exception(exc)
                if backend is not None and isinstance(exc, DeviceLostError):
                    raise
            finally:
                if not future.done():  # an unknown failure, which ends the thread
                    future.set_exception(DeviceLostError(LOST))

        with self._changed:
            self._require_thread()
            self._errands.append(run)
            self._changed.notify_all()
        return future

    def forget_limit(self) -> None:
        """Try full passes again; for somebody who has made room."""
        self._room.forget()

    def _queue(self, frames: list[Queued]) -> list[Future[Answer]]:
        with self._changed:
            self._require_thread()
            for queued in frames:
                self._line.add(queued)
            self._changed.notify_all()
        for queued in frames:
            queued.future.add_done_callback(self._forget)
        return [queued.future for queued in frames]

    def _require_thread(self) -> None:
        if self._state in ENDED:
            raise DeviceLostError(LOST)

    def _forget(self, future: Future[Answer]) -> None:
        """Let go of a cancelled frame at once; a device that hangs would keep its pixels for ever.

        It is looked up by its future: a callback that held it would make a cycle, which keeps the
        pixels until the garbage collector comes round.
        """
        if not future.cancelled():
            return
        self._on_drop("cancelled")
        with self._changed:
            self._line.forget(future)
            self._changed.notify_all()

    def _run(self) -> None:
        ended = DeviceState.FAILED
        try:
            backend = self._open()
            if backend is None:
                return
            while self._turn(backend):
                pass
            ended = DeviceState.STOPPED
        except DeviceLostError as exc:
            log.error("the device is lost: %s", exc)  # noqa: TRY400 - the words say it all
        finally:
            self._abandon(ended)

    def _open(self) -> Backend | None:
        try:
            backend = self._open_backend()
        except DetectorError as exc:
            self.opened.set_exception(exc)
            return None
        self._beat_at = time.monotonic()
        self._state = DeviceState.RUNNING
        self.opened.set_result(backend.info)
        return backend

    def _turn(self, backend: Backend) -> bool:
        """Do one errand or one pass, or wait a moment; say whether to go on.

        A method of its own, so that an idle thread holds no pixels of the last pass.
        """
        with self._changed:
            self._beat_at = time.monotonic()
            errand = self._errands.popleft() if self._errands else None
            batch = self._choose(self._beat_at) if errand is None else []
            if errand is None and not batch:
                return bool(self._line) or not self._stopping
        if errand is not None:
            errand(backend)
        self._in_hand = [queued for queued in batch if self._wanted(queued)]
        self._answer(backend, self._in_hand)
        self._in_hand = ()
        return True

    def _choose(self, now: float) -> list[Queued]:
        """Return the next pass; none after waiting a moment, since anything may have changed."""
        ready = self._line.next(now)
        if not ready:
            if not self._stopping:
                self._changed.wait(IDLE_BEAT_S)
            return []
        limits = self._limits()
        most = min(self._room.limit(limits.size), self._pace.most(ready[0].work, limits.pass_s))
        left = _company_until(ready[0], limits.wait_s) - now
        if left > 0 and len(ready) < most and not self._stopping:
            self._changed.wait(left)
            return []
        self._line.take(ready[:most])
        return ready[:most]

    def _wanted(self, queued: Queued) -> bool:
        """Drop frames whose client left or whose deadline passed; nobody would read the answer."""
        if not queued.future.set_running_or_notify_cancel():
            return False
        if time.monotonic() < queued.work.expires_at:
            return True
        self._on_drop("deadline")
        queued.future.set_exception(TimeoutError("the deadline passed in the queue"))
        return False

    def _answer(self, backend: Backend, batch: Sequence[Queued]) -> None:
        failure = self._try(backend, batch) if batch else None
        if failure is None:
            return
        if isinstance(failure, OutOfMemoryError):
            self._make_room(backend, batch, failure)
        elif len(batch) == 1:
            batch[0].future.set_exception(failure)
        else:
            # One bad frame must not fail its neighbours.
            for queued in batch:
                self._answer(backend, [queued])

    def _try(self, backend: Backend, batch: Sequence[Queued]) -> InferenceError | None:
        try:
            self._pass(backend, batch)
        except DeviceLostError:
            raise
        except InferenceError as exc:
            # A copy without the traceback, which holds all tensors of the failed pass.
            return type(exc)(str(exc))
        return None

    def _make_room(
        self, backend: Backend, batch: Sequence[Queued], failure: OutOfMemoryError
    ) -> None:
        """Try a pass that did not fit in parts; a single frame is told that it does not fit."""
        self._on_out_of_memory()
        self._room.ran_out(len(batch))
        log.warning("out of memory with %d frames in a pass: %s", len(batch), failure)
        _clear(backend)
        if len(batch) == 1:
            batch[0].future.set_exception(failure)
            return
        half = len(batch) // 2
        while batch:
            part = self._room.peek(half)  # asked anew, since a part may not have fitted either
            self._answer(backend, batch[:part])
            batch = batch[part:]

    def _pass(self, backend: Backend, batch: Sequence[Queued]) -> None:
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
        self._room.fitted(len(batch))
        self._pace.took(first, len(batch), seconds)
        self._on_pass(len(batch), seconds, found.stages)
        for queued, detections in zip(batch, found.found, strict=True):
            conf = queued.work.conf
            kept = tuple(item for item in detections if item.confidence >= conf)
            queued.future.set_result(Answer(kept, started, seconds))

    def _abandon(self, ended: DeviceState) -> None:
        with self._changed:
            self._state = ended
            left = self._line.clear()
            errands, self._errands = list(self._errands), deque()
        lost = DeviceLostError(LOST)
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
        for errand in errands:
            errand(None)


def _clear(backend: Backend) -> None:
    """Give cached memory back, if that can be done: what is out of memory may fail at this too."""
    try:
        backend.clear_cache()
    except DeviceLostError:
        raise
    except Exception:  # of any library; the pass is tried in parts either way
        log.exception("cannot give cached memory back")


def _company_until(first: Queued, wait_s: float) -> float:
    """Return until when ``first`` waits for company (monotonic); a group has all it wants."""
    alone = first.group is None and first.work.priority is not Priority.CANARY
    return first.queued_at + (wait_s if alone else 0.0)
