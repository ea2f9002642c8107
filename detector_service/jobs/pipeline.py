"""One stretch of work on one film: decode, look, draw and encode side by side, chunk by chunk.

Called by ``attempt`` in a thread of its own, which does the looking; two more decode and finish.
They hand each other groups of frames over short belts, so memory stays flat however long the film.
Surprise: whether to park is asked where a chunk passes the *looking* stage. What was decoded
beyond it is dropped, and the chunks before it are finished and committed as if nothing were.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from detector_service.backends import Detection, Image
from detector_service.batcher import Answer, Priority, Work
from detector_service.disk import sync
from detector_service.errors import DeviceLostError, InferenceError
from detector_service.jobs.belt import Belt, BrokenBeltError
from detector_service.jobs.cutting import ChunkEnd, Cutter, Group, Still
from detector_service.jobs.journal import Tail
from detector_service.jobs.video import Chunk, Object, Options, Recipe, Seen
from detector_service.media import FilmInfo, Frame, MediaLimits, Reader, SegmentWriter, draw
from detector_service.telemetry import Telemetry

IN_FLIGHT: Final = 2  # groups that the device has or waits for: one in the pass, one to follow it

Found = tuple[Detection, ...] | None


@dataclass(frozen=True)
class Film:
    """What is to be worked off, and how."""

    source: Path
    info: FilmInfo
    limits: MediaLimits
    options: Options
    recipe: Recipe
    tail: Tail
    classes: frozenset[str]


@dataclass(frozen=True)
class Hooks:
    """How the pipeline reaches the rest of the service; all may be called from its threads.

    Attributes:
        submit: hands the frames of one pass to the device.
        may_go_on: asked after each chunk, and may take its time; a reason word to park, or None.
        segment: where the annotated segment of a chunk goes.
        commit: keeps a finished chunk and the seconds of work it took; False: nobody wants it.
        progress: told the frames finished so far, committed or not.
    """

    submit: Callable[[Sequence[Work]], Sequence[Future[Answer]]]
    may_go_on: Callable[[], str | None]
    segment: Callable[[int], Path]
    commit: Callable[[Chunk, float], bool]
    progress: Callable[[int], None]


@dataclass(frozen=True)
class Whole:
    """The film was worked off to its end."""


@dataclass(frozen=True)
class Parked:
    """It stopped behind a committed chunk, as ``may_go_on`` said."""

    reason: str


@dataclass(frozen=True)
class Abandoned:
    """It was stopped, or its job is no longer wanted; the chunk in hand is lost."""


Outcome = Whole | Parked | Abandoned


@dataclass
class _Open:
    """The chunk that is being finished."""

    number: int
    first_index: int
    frames: int = 0
    seen: list[Seen] = field(default_factory=list)
    found: Found = ()
    writer: SegmentWriter | None = None


class Pipeline:
    """Works a film off, once."""

    def __init__(self, film: Film, hooks: Hooks, telemetry: Telemetry) -> None:
        """Prepare; ``work`` does it."""
        self._film = film
        self._hooks = hooks
        self._telemetry = telemetry
        self._read: Belt[Group] = Belt(1)
        self._looked: Belt[tuple[Group, Sequence[Found]]] = Belt(1)
        self._stopped = threading.Event()
        self._in_flight: deque[tuple[Group, Sequence[Future[Answer]]]] = deque()
        self._frames_done = film.tail.frames
        self._began_at = 0.0
        self._waited_s = 0.0

    def work(self) -> Outcome:
        """Work until the end of the film, the next place to park, or ``stop``.

        Raises:
            MediaError: the film cannot be read on.
            DeviceLostError: the device is gone.
            StateWriteError: a chunk could not be made durable.
            OSError: neither could a segment.
        """
        if self._film.tail.last:
            return Whole()
        self._began_at = time.monotonic()
        with ThreadPoolExecutor(2, thread_name_prefix="film") as pool:
            finishing = pool.submit(self._finish_all)
            reading = pool.submit(self._read_all)
            try:
                outcome = self._look_all()
            finally:
                self._drop()
        for stage in (finishing, reading):
            with contextlib.suppress(BrokenBeltError):
                stage.result()
        return Abandoned() if finishing.exception() is not None else outcome

    def stop(self) -> None:
        """Stop within a batch; from any thread."""
        self._stopped.set()
        self._read.cut()
        self._looked.cut()
        self._drop()

    def _drop(self) -> None:
        """Cancel what waits for the device."""
        for _, futures in tuple(self._in_flight):
            for future in futures:
                future.cancel()

    def _read_all(self) -> None:
        with self._read.feeding():  # from the first line on: nobody waits for what failed to begin
            film = self._film
            cutter = Cutter(film.info, film.options, film.recipe, film.tail)
            reader = Reader(
                film.source,
                film.info,
                film.limits,
                pixels=cutter.wants,
                after=film.tail.bookmark,
                on_packet=self._require_wanted,
            )
            with reader:
                for group in cutter.groups(reader, self._timed(reader)):
                    self._read.put(group)

    def _timed(self, frames: Iterator[Frame]) -> Iterator[Frame]:
        decoding = self._telemetry.stage_duration.labels("decode")
        began_at = time.monotonic()
        for frame in frames:
            self._require_wanted()
            decoding.observe(time.monotonic() - began_at)
            yield frame
            began_at = time.monotonic()

    def _require_wanted(self) -> None:
        if self._stopped.is_set():
            raise BrokenBeltError

    def _look_all(self) -> Outcome:
        try:
            with self._looked.feeding(), self._read.emptying() as groups:
                reason = self._look_until_parked(groups)
        except (BrokenBeltError, CancelledError):
            return Abandoned()
        return Whole() if reason is None else Parked(reason)

    def _look_until_parked(self, groups: Iterator[Group]) -> str | None:
        for group in groups:
            self._in_flight.append((group, self._hooks.submit(self._works(group))))
            if len(self._in_flight) >= IN_FLIGHT:
                self._hand_on()
            if group.end is not None and not group.end.last:
                reason = self._may_go_on()
                if reason is not None:
                    break
        else:
            reason = None
        while self._in_flight:
            self._hand_on()
        return reason

    def _may_go_on(self) -> str | None:
        asked_at = time.monotonic()
        try:
            return self._hooks.may_go_on()
        finally:
            self._waited_s += time.monotonic() - asked_at

    def _works(self, group: Group) -> list[Work]:
        recipe = self._film.recipe
        return [
            Work(still.image, recipe.conf, recipe.iou, recipe.imgsz, priority=Priority.VIDEO)
            for still in group.frames
            if still.look and still.image is not None
        ]

    def _hand_on(self) -> None:
        group, futures = self._in_flight[0]
        found = [self._answer(future) for future in futures]
        self._in_flight.popleft()
        self._looked.put((group, found))

    def _answer(self, future: Future[Answer]) -> Found:
        try:
            found = future.result().detections
        except DeviceLostError:
            raise
        except InferenceError:
            return None
        seen = [(item.class_name, item.confidence) for item in found]
        self._telemetry.note_frame(self._film.classes, seen)
        return found

    def _finish_all(self) -> None:
        tail = self._film.tail
        chunk = _Open(tail.number + 1, tail.frames)
        with self._looked.emptying() as groups:
            try:
                for group, found in groups:
                    self._finish(chunk, group, iter(found))
                    if group.end is not None:
                        self._commit(chunk, group.end)
                        chunk = _Open(chunk.number + 1, chunk.first_index + chunk.frames)
            finally:
                if chunk.writer is not None:
                    chunk.writer.abandon()

    def _finish(self, chunk: _Open, group: Group, found: Iterator[Found]) -> None:
        for still in group.frames:
            if still.look:
                chunk.found = next(found)
            if still.due:
                chunk.seen.append(_seen(still, chunk.found))
            if self._film.options.draws and still.image is not None:
                self._write(chunk, still, still.image)
            chunk.frames += 1
        self._frames_done += len(group.frames)
        self._telemetry.video_frames.inc(len(group.frames))
        self._hooks.progress(self._frames_done)

    def _write(self, chunk: _Open, still: Still, image: Image) -> None:
        film = self._film
        if chunk.writer is None:
            chunk.writer = SegmentWriter(
                self._hooks.segment(chunk.number),
                width=film.info.width,
                height=film.info.height,
                sample_aspect_ratio=film.info.sample_aspect_ratio,
                preset=film.recipe.preset,
                crf=film.recipe.crf,
            )
        with self._telemetry.stage_duration.labels("annotate").time():
            drawn = draw(image, chunk.found or ())
        with self._telemetry.stage_duration.labels("encode").time():
            chunk.writer.add(drawn, still.tick)

    def _commit(self, chunk: _Open, end: ChunkEnd) -> None:
        """Make the segment durable, then the row: a row without its segment cannot be joined."""
        if chunk.writer is not None:
            writer, chunk.writer = chunk.writer, None
            writer.close()
            sync(self._film.source.parent)
        now = time.monotonic() - self._waited_s
        worked_s, self._began_at = max(now - self._began_at, 0.0), now
        done = Chunk(
            chunk.number,
            chunk.first_index,
            chunk.frames,
            end.bookmark,
            end.last,
            end.decode_errors,
            tuple(chunk.seen),
        )
        if not self._hooks.commit(done, worked_s):
            raise BrokenBeltError


def _seen(still: Still, found: Found) -> Seen:
    objects = None if found is None else tuple(_object(item) for item in found)
    return Seen(still.index, still.tick, objects, still.due and not still.look, still.crc32)


def _object(item: Detection) -> Object:
    left, top, right, bottom = (round(edge, 2) for edge in item.xyxy)
    return (item.class_id, item.class_name, round(item.confidence, 4), (left, top, right, bottom))
