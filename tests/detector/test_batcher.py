"""The device thread, with a toy model whose answers say which image they belong to."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detector_service.backends import Image, Pass
from detector_service.batcher import Answer, Batcher, BatchLimits, DeviceState, Priority, Work
from detector_service.batcher.line import Line
from detector_service.batcher.pace import Pace
from detector_service.batcher.room import PROBE_PASSES, Room
from detector_service.batcher.work import Queued
from detector_service.errors import (
    DeviceLostError,
    InferenceError,
    OutOfMemoryError,
    StartError,
)
from tests.detector.toys import LETHAL, POISON, ToyBackend, running, until


@dataclass
class Cramped(ToyBackend):
    """Has room for so many frames at once."""

    room: int = 1
    cleared: int = 0

    def infer(self, images: Sequence[Image], **how: Any) -> Pass:
        found = super().infer(images, **how)
        if len(images) > self.room:
            raise OutOfMemoryError(f"no room for {len(images)}")
        return found

    def clear_cache(self) -> None:
        self.cleared += 1


class Lost(ToyBackend):
    def infer(self, images: Sequence[Image], **how: Any) -> Pass:
        super().infer(images, **how)
        raise DeviceLostError("CUDA error: an illegal memory access was encountered")


class Staged(ToyBackend):
    def infer(self, images: Sequence[Image], **how: Any) -> Pass:
        return replace(super().infer(images, **how), stages={"inference": 0.25})


def work(value: int, *, conf: float = 0.3, iou: float = 0.7, imgsz: int = 640, **more: Any) -> Work:
    size = int(more.pop("side", 8))
    return Work(np.full((size, size, 3), value, np.uint8), conf, iou, imgsz, **more)


@contextmanager
def started(
    backend: ToyBackend, *, size: int = 8, wait_s: float = 0.0, **told: Any
) -> Iterator[Batcher]:
    subject = Batcher(lambda: backend, lambda: BatchLimits(size, wait_s), **told)
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


def test_the_canary_goes_first_then_images_then_videos() -> None:
    backend = ToyBackend()
    with started(backend, size=1) as subject:
        order = (Priority.VIDEO, Priority.IMAGE, Priority.CANARY, Priority.IMAGE)
        later = [work(value, priority=rank) for value, rank in enumerate(order, 1)]
        [future.result(10) for future in held_up(subject, backend, *later)]
    assert [call.values for call in backend.calls[1:]] == [(3,), (2,), (4,), (1,)]


def test_an_image_shares_no_pass_with_frames_of_a_video() -> None:
    backend = ToyBackend()
    with started(backend) as subject:
        later = (work(1, priority=Priority.VIDEO), work(2), work(3, priority=Priority.CANARY))
        [future.result(10) for future in held_up(subject, backend, *later)]
    assert [call.values for call in backend.calls[1:]] == [(3,), (2,), (1,)]


def test_frames_handed_in_together_are_one_pass_and_share_it_with_no_others() -> None:
    backend = ToyBackend()
    with started(backend, size=8, wait_s=10) as subject:
        backend.gate.clear()
        groups = [
            subject.submit_all([work(value, priority=Priority.VIDEO) for value in values])
            for values in ((1, 2, 3), (4,), (5, 6))
        ]
        alone = subject.submit(work(7, priority=Priority.VIDEO))
        backend.gate.set()
        [future.result(5) for group in groups for future in group]
        assert not alone.done(), "it waits for company; a group does not"
        assert alone.cancel()
        assert subject.submit_all([]) == []
    assert [call.values for call in backend.calls] == [(1, 2, 3), (4,), (5, 6)]


def test_a_group_larger_than_a_pass_is_cut_at_the_batch_size() -> None:
    backend = ToyBackend()
    with started(backend, size=2) as subject:
        futures = subject.submit_all([work(value) for value in range(5)])
        answers = [future.result(10) for future in futures]
    assert [call.values for call in backend.calls] == [(0, 1), (2, 3), (4,)]
    assert [boxes(answer) for answer in answers] == [{0.0}, {1.0}, {2.0}, {3.0}, {4.0}]


@pytest.mark.parametrize(("waited_s", "order"), [(4.9, [2, 1]), (5.0, [1, 2])])
def test_a_video_frame_that_has_waited_five_seconds_ranks_as_an_image(
    waited_s: float, order: list[int]
) -> None:
    line = Line()
    line.add(Queued(work(1, priority=Priority.VIDEO), 100.0))
    line.add(Queued(work(2), 100.0 + waited_s))
    served = []
    while len(line):
        chosen = line.next(100.0 + waited_s)
        line.take(chosen)
        served += [int(queued.work.image[0, 0, 0]) for queued in chosen]
    assert served == order


def test_an_errand_runs_on_the_device_thread_before_all_frames() -> None:
    backend = ToyBackend()
    with started(backend, size=1) as subject:
        backend.gate.clear()
        futures = [subject.submit(work(value)) for value in (1, 2, 3)]
        wait_for_calls(backend, 1)
        seen = subject.run_on_device(
            lambda found: (found, len(backend.calls), threading.current_thread().name)
        )
        backend.gate.set()
        assert seen.result(10) == (backend, 1, "device")
        [future.result(10) for future in futures]


def test_an_errand_that_fails_tells_its_sender_and_nobody_else() -> None:
    def fails(_: object) -> None:
        raise InferenceError("no room")

    with started(ToyBackend()) as subject:
        with pytest.raises(InferenceError, match="no room"):
            subject.run_on_device(fails).result(10)
        assert boxes(subject.submit(work(1)).result(10)) == {1.0}
    with pytest.raises(DeviceLostError):
        subject.run_on_device(fails)


def test_an_errand_does_not_wait_for_the_company_that_a_frame_waits_for() -> None:
    with started(ToyBackend(), size=2, wait_s=10) as subject:
        frame = subject.submit(work(1))
        assert subject.run_on_device(lambda _: "now").result(5) == "now"
        assert not frame.done()
        assert frame.cancel()


def test_frames_that_never_ran_are_counted_by_reason() -> None:
    backend, dropped = ToyBackend(), []
    with started(backend, on_drop=dropped.append) as subject:
        backend.gate.clear()
        busy = subject.submit(work(0, imgsz=160))
        wait_for_calls(backend, 1)
        gone, late = subject.submit(work(1)), subject.submit(work(2, expires_at=0.0))
        assert gone.cancel()
        backend.gate.set()
        assert isinstance(late.exception(10), TimeoutError)
        busy.result(10)
    assert dropped == ["cancelled", "deadline"]


def test_a_pass_that_does_not_fit_is_halved_until_it_does_and_the_size_is_remembered() -> None:
    backend, out_of_memory = Cramped(room=3), []
    with started(backend, on_out_of_memory=lambda: out_of_memory.append(1)) as subject:
        futures = subject.submit_all([work(value) for value in range(8)])
        assert [boxes(future.result(10)) for future in futures] == [{float(n)} for n in range(8)]
        assert [len(call.values) for call in backend.calls] == [8, 4, 2, 2, 2, 2]
        assert subject.batch_limit == 2
        assert len(out_of_memory) == backend.cleared == 2
        again = subject.submit_all([work(value) for value in range(4)])
        [future.result(10) for future in again]
        assert [len(call.values) for call in backend.calls[6:]] == [2, 2]
        subject.forget_limit()
        assert subject.batch_limit == 8


def test_a_single_frame_that_does_not_fit_fails_alone_and_teaches_nothing() -> None:
    backend = Cramped(room=0)
    with started(backend) as subject:
        with pytest.raises(OutOfMemoryError, match="no room for 1"):
            subject.submit(work(1)).result(10)
        assert subject.batch_limit == 8
        backend.room = 8
        assert boxes(subject.submit(work(1)).result(10)) == {1.0}
        assert subject.state is DeviceState.RUNNING


class Stuck(Cramped):
    def clear_cache(self) -> None:
        raise RuntimeError("std::bad_alloc")


def test_a_cache_that_cannot_be_cleared_while_memory_is_short_ends_nothing() -> None:
    with started(Stuck(room=2)) as subject:
        futures = subject.submit_all([work(value) for value in range(4)])
        assert [boxes(future.result(10)) for future in futures] == [{float(n)} for n in range(4)]
        assert subject.state is DeviceState.RUNNING


def test_a_pass_is_planned_for_so_many_seconds_as_measured() -> None:
    pace, small, large = Pace(), work(1, imgsz=320), work(1, imgsz=640)
    assert pace.most(small, 15) > 1000
    pace.took(small, 2, 4.0)
    assert (pace.most(small, 15), pace.most(large, 15)) == (7, 1)
    assert pace.most(large, 0.001) == 1
    assert pace.most(large, float("inf")) > 1000


def test_a_slow_model_gets_fewer_frames_at_once() -> None:
    backend = ToyBackend()
    subject = Batcher(lambda: backend, lambda: BatchLimits(8, 0, pass_s=1e-9))
    subject.start()
    futures = [each for _ in range(2) for each in subject.submit_all([work(1), work(2)])]
    [future.result(10) for future in futures]
    assert [call.values for call in backend.calls] == [(1, 2), (1,), (2,)]
    assert subject.stop(10)


def test_a_learned_limit_grows_by_one_after_many_full_passes_and_ends_at_the_setting() -> None:
    room = Room()
    assert room.limit(8) == 8
    room.ran_out(8)
    assert room.limit(8) == 4
    for limit in (4, 5, 6, 7):
        for _ in range(PROBE_PASSES):
            assert room.limit(8) == limit
            room.fitted(limit - 1)  # not full, so it proves nothing
            room.fitted(limit)
    assert room.limit(8) == 8
    assert room.limit(2) == 2


def test_who_raises_the_batch_size_has_it_tried_at_once() -> None:
    room = Room()
    room.limit(8)
    room.ran_out(8)
    assert room.limit(4) == 4
    assert room.limit(3) == 3
    assert room.limit(5) == 5


def test_a_lost_device_ends_the_thread_and_is_no_failure_of_one_frame() -> None:
    backend = Lost()
    subject = Batcher(lambda: backend, lambda: BatchLimits(8, 0))
    subject.start()
    futures = subject.submit_all([work(1), work(2)])
    for future in futures:
        with pytest.raises(DeviceLostError):
            future.result(10)
    subject.lost.result(10)
    assert subject.state is DeviceState.FAILED
    assert len(backend.calls) == 1


def test_the_stages_of_a_pass_are_reported() -> None:
    told: list[object] = []
    with started(Staged(), on_pass=lambda *what: told.append(what)) as subject:
        subject.submit(work(1)).result(10)
    [(frames, seconds, stages)] = told
    assert (frames, stages) == (1, {"inference": 0.25})
    assert seconds >= 0


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


def test_an_idle_device_thread_holds_no_pixels_of_the_last_pass() -> None:
    with started(ToyBackend()) as subject:
        item = work(1)
        pixels = weakref.ref(item.image)
        subject.submit(item).result(10)
        del item
        subject.run_on_device(lambda _: None).result(10)
        gc.collect()
        assert pixels() is None


async def test_what_the_device_thread_tells_is_in_the_metrics(tmp_path: Path) -> None:
    backend = Cramped(room=4)
    async with running(tmp_path, backend=backend) as detector:
        assert await detector.metric("detector_batch_limit") == 8
        subject = detector.parts.batcher
        backend.gate.clear()
        busy = subject.submit(work(0, imgsz=160))
        await until(lambda: backend.calls)
        late, gone = subject.submit(work(1, expires_at=0.0)), subject.submit(work(2))
        assert gone.cancel()
        futures = [busy, *subject.submit_all([work(value) for value in range(8)])]
        backend.gate.set()
        await asyncio.gather(*map(asyncio.wrap_future, futures))
        assert isinstance(late.exception(10), TimeoutError)
        for reason in ("deadline", "cancelled"):
            name = f'detector_frames_dropped_total{{reason="{reason}"}}'
            assert await detector.metric(name) == 1
        assert await detector.metric("detector_out_of_memory_total") == 1
        assert await detector.metric("detector_batch_limit") == 4
