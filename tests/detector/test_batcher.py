"""The device thread, with a toy model whose answers say which image they belong to."""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager

import numpy as np
import pytest

from detector_service.batcher import Answer, Batcher, BatchLimits, DeviceState, Work
from detector_service.errors import DeviceLostError, InferenceError, StartError
from tests.detector.toys import LETHAL, POISON, ToyBackend


def work(
    value: int, *, conf: float = 0.3, iou: float = 0.7, imgsz: int = 640, **more: float
) -> Work:
    size = int(more.pop("side", 8))
    return Work(np.full((size, size, 3), value, np.uint8), conf, iou, imgsz, **more)


@contextmanager
def started(backend: ToyBackend, *, size: int = 8, wait_s: float = 0.0) -> Iterator[Batcher]:
    subject = Batcher(lambda: backend, lambda: BatchLimits(size, wait_s))
    subject.start()
    subject.opened.result(10)
    yield subject
    backend.gate.set()
    assert subject.stop(10)


def held_up(subject: Batcher, backend: ToyBackend, *later: Work) -> list[Future[Answer]]:
    """Queue ``later`` while the device is busy with one frame of another kind."""
    backend.gate.clear()
    busy = subject.submit(work(0, imgsz=160))
    wait_for_calls(backend, 1)
    futures = [subject.submit(item) for item in later]
    backend.gate.set()
    busy.result(10)
    return futures


def wait_for_calls(backend: ToyBackend, count: int) -> None:
    deadline = time.monotonic() + 10
    while len(backend.calls) < count:
        assert time.monotonic() < deadline


def boxes(answer: Answer) -> set[float]:
    return {item.xyxy[0] for item in answer.detections}


def test_frames_that_wait_share_a_pass_up_to_the_batch_size_in_order() -> None:
    backend = ToyBackend()
    with started(backend, size=3) as subject:
        futures = held_up(subject, backend, *(work(value) for value in range(1, 6)))
        answers = [future.result(10) for future in futures]
    assert [call.values for call in backend.calls[1:]] == [(1, 2, 3), (4, 5)]
    assert [boxes(answer) for answer in answers] == [{1.0}, {2.0}, {3.0}, {4.0}, {5.0}]


def test_each_frame_keeps_its_own_confidence_in_a_shared_pass() -> None:
    backend = ToyBackend()
    with started(backend) as subject:
        futures = held_up(
            subject, backend, work(1, conf=0.5), work(2, conf=0.1), work(3, conf=0.95)
        )
        counts = [len(future.result(10).detections) for future in futures]
    assert counts == [2, 4, 0]
    assert backend.calls[1].conf == 0.1


def test_frames_of_another_size_imgsz_or_iou_never_share_a_pass() -> None:
    backend = ToyBackend()
    with started(backend) as subject:
        futures = held_up(
            subject,
            backend,
            work(1),
            work(2, iou=0.5),
            work(3, imgsz=320),
            work(4, side=16),
            work(5),
        )
        [future.result(10) for future in futures]
    asked = [(call.values, call.iou, call.imgsz) for call in backend.calls[1:]]
    assert asked == [((1, 5), 0.7, 640), ((2,), 0.5, 640), ((3,), 0.7, 320), ((4,), 0.7, 640)]


def test_a_first_frame_waits_for_company_when_told_to() -> None:
    backend = ToyBackend()
    with started(backend, size=2, wait_s=10) as subject:
        futures = [subject.submit(work(1)), subject.submit(work(2))]
        [future.result(10) for future in futures]
    assert [call.values for call in backend.calls] == [(1, 2)]


def test_a_cancelled_frame_is_not_looked_at() -> None:
    backend = ToyBackend()
    with started(backend) as subject:
        backend.gate.clear()
        busy = subject.submit(work(0))
        wait_for_calls(backend, 1)
        gone, stays = subject.submit(work(1)), subject.submit(work(2))
        assert gone.cancel()
        backend.gate.set()
        busy.result(10)
        stays.result(10)
    assert [call.values for call in backend.calls] == [(0,), (2,)]


def test_cancelled_frames_free_their_pixels_while_the_device_hangs() -> None:
    backend = ToyBackend()
    with started(backend) as subject:
        backend.gate.clear()
        busy = subject.submit(work(0))
        wait_for_calls(backend, 1)
        gone, pixels = [], []
        for value in range(1, 20):
            item = work(value)
            pixels.append(weakref.ref(item.image))
            gone.append(subject.submit(item))
        stays = subject.submit(work(20))
        del item
        assert all(future.cancel() for future in gone)
        assert [ref() for ref in pixels] == [None] * len(pixels)
        backend.gate.set()
        busy.result(10)
        stays.result(10)
    assert [call.values for call in backend.calls] == [(0,), (20,)]


def test_a_frame_cancelled_while_it_waits_for_company_holds_up_nobody() -> None:
    backend = ToyBackend()
    with started(backend, size=2, wait_s=10) as subject:
        assert subject.submit(work(1)).cancel()
        together = [subject.submit(work(value, imgsz=320)) for value in (2, 3)]
        [future.result(5) for future in together]
    assert [call.values for call in backend.calls] == [(2, 3)]


def test_a_frame_past_its_deadline_is_dropped_at_dequeue() -> None:
    backend = ToyBackend()
    with started(backend) as subject:
        late, good = held_up(subject, backend, work(1, expires_at=0.0), work(2))
        assert boxes(good.result(10)) == {2.0}
        with pytest.raises(TimeoutError):
            late.result(10)
    assert [call.values for call in backend.calls[1:]] == [(2,)]


def test_an_urgent_frame_goes_first() -> None:
    backend = ToyBackend()
    with started(backend, size=1) as subject:
        backend.gate.clear()
        first = subject.submit(work(0))
        wait_for_calls(backend, 1)
        second, urgent = subject.submit(work(1)), subject.submit(work(2), urgent=True)
        backend.gate.set()
        [future.result(10) for future in (first, second, urgent)]
    assert [call.values for call in backend.calls] == [(0,), (2,), (1,)]


def test_one_bad_frame_fails_alone() -> None:
    backend = ToyBackend()
    with started(backend) as subject:
        futures = held_up(subject, backend, work(1), work(POISON), work(3))
        assert boxes(futures[0].result(10)) == {1.0}
        assert boxes(futures[2].result(10)) == {3.0}
        with pytest.raises(InferenceError, match="poison"):
            futures[1].result(10)
        assert subject.state is DeviceState.RUNNING


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_unknown_failure_ends_the_thread_and_leaves_nobody_waiting() -> None:
    backend = ToyBackend()
    with started(backend) as subject:
        lethal, waiting = held_up(subject, backend, work(LETHAL), work(1, imgsz=320))
        for future in (lethal, waiting):
            with pytest.raises(DeviceLostError):
                future.result(10)
        subject.lost.result(10)
        assert subject.state is DeviceState.FAILED
        with pytest.raises(DeviceLostError):
            subject.submit(work(1))


async def test_who_stops_waiting_for_the_model_does_not_disturb_the_device_thread() -> None:
    gate, backend = threading.Event(), ToyBackend()
    subject = Batcher(lambda: (gate.wait(10), backend)[1], lambda: BatchLimits(1, 0))
    subject.start()
    for told in (subject.opened, subject.lost):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await asyncio.wrap_future(told)
    gate.set()
    assert (await asyncio.wrap_future(subject.opened)).name == "toy.pt"
    assert subject.stop(10)
    assert subject.state is DeviceState.STOPPED


def test_a_model_that_does_not_open_says_why() -> None:
    def missing() -> ToyBackend:
        raise StartError("there is no model")

    subject = Batcher(missing, lambda: BatchLimits(1, 0))
    subject.start()
    with pytest.raises(StartError, match="no model"):
        subject.opened.result(10)
    assert subject.stop(10)
    assert subject.state is DeviceState.FAILED
    assert not subject.lost.done()


def test_stopping_works_off_what_waits() -> None:
    backend = ToyBackend()
    with started(backend, size=1) as subject:
        backend.gate.clear()
        futures = [subject.submit(work(value)) for value in (1, 2, 3)]
        wait_for_calls(backend, 1)
        assert not subject.stop(0.01)
        backend.gate.set()
        assert [boxes(future.result(10)) for future in futures] == [{1.0}, {2.0}, {3.0}]
    assert subject.state is DeviceState.STOPPED


def test_busy_time_counts_a_pass_while_it_runs() -> None:
    backend = ToyBackend()
    with started(backend) as subject:
        backend.gate.clear()
        future = subject.submit(work(1))
        wait_for_calls(backend, 1)
        before = subject.busy_seconds()
        while subject.busy_seconds() <= before:
            pass
        backend.gate.set()
        future.result(10)
        after = subject.busy_seconds()
        assert after > before
        assert subject.busy_seconds() == after
