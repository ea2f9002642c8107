"""A film as frames, in display order, from the start or from right after a bookmark.

Called by the video pipeline, on its decoding thread; holds one frame at a time.
Surprise: going on never trusts a seek. The bookmark's frame is looked for behind the keyframe,
by its time and its pixels; where it is not found, the way to it is damaged, or the file's clock
cannot name one frame, the film is decoded from its start and counted. Only containers with an
index of their own are seeked: in joined transport streams one time may name two frames.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from av.video.frame import VideoFrame

from detector_service.errors import MediaError
from detector_service.media.decoder import Decoder
from detector_service.media.film import CLOCK, Bookmark, FilmInfo, Frame, MediaLimits
from detector_service.media.pixels import ToImage, digest
from detector_service.media.ticks import USUAL_FPS, Ticks

Wanted = Callable[[int, int, int | None], bool]
Frames = Generator[VideoFrame]
INDEXED: Final = ("mov", "matroska")
ALIKE: Final = 32
"""Frames that must decode unharmed between the keyframe and the bookmark. How a decoder hides
damage further on depends on the frames it remembers: 16 at most (H.264 and HEVC, A.3)."""


class Reader:
    """Iterate over it inside ``with``; it is for one thread, and for one pass."""

    def __init__(
        self,
        path: Path,
        info: FilmInfo,
        limits: MediaLimits,
        *,
        pixels: Wanted,
        after: Bookmark | None = None,
        on_packet: Callable[[], object] | None = None,
    ) -> None:
        """Prepare; nothing is opened yet.

        Args:
            path: the film.
            info: what ``probe`` told of it.
            limits: checked again at every frame, since a header may lie.
            pixels: asked ``(index, tick, tick of the frame before or None)`` whether this frame's
                pixels are needed; converting a frame costs more than decoding it.
            after: the bookmark to go on after.
            on_packet: called at every packet and read, also on the way to the bookmark and through
                damage, which may take a while; what it raises comes out of the frame asked for.
        """
        self._path = path
        self._container = info.container
        self._limits = limits
        self._pixels = pixels
        self._after = after
        self._on_packet = on_packet
        self._to_image = ToImage(width=info.width, height=info.height, turn=info.rotation)
        self._closing = contextlib.ExitStack()
        self._frames = self._read()
        self._here: tuple[int, int, VideoFrame] | None = None
        self._decoder: Decoder | None = None
        self._ignored = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._frames.close()
        self._closing.close()

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __next__(self) -> Frame:
        """Return the next frame.

        Raises:
            MediaError: ``too_long``, ``changed`` (the bookmark's frame is not in this file),
                ``undecodable``, or any reason of opening it.
        """
        return next(self._frames)

    @property
    def decode_errors(self) -> int:
        """Return how many packets were lost or frames damaged, since the start or bookmark."""
        return self._decoder.errors - self._ignored if self._decoder else 0

    def bookmark(self) -> Bookmark:
        """Return the bookmark of the frame that came last; call it after at least one."""
        assert self._here is not None, "no frame was read yet"  # noqa: S101 - a caller's mistake
        index, tick, frame = self._here
        pts = frame.pts if self._ticks.regular else None
        return Bookmark(index, tick, pts, digest(self._to_image.image(frame)))

    def _read(self) -> Generator[Frame]:
        frames, start, previous = self._open(), 0, None
        if self._after is not None:
            frames = self._sought(self._after, frames) or self._counted(self._after, self._open())
            start, previous = self._after.index + 1, self._after.tick
        for index, frame in enumerate(frames, start):
            tick = self._ticks.tick(frame.pts)
            _require_room(index, tick, self._limits)
            self._here = index, tick, frame
            wanted = self._pixels(index, tick, previous)
            yield Frame(index, tick, self._to_image.image(frame) if wanted else None)
            previous = tick

    def _open(self) -> Frames:
        """Start, or start anew, at the first frame."""
        self._closing.close()
        opened = Decoder(self._path, max_pixels=self._limits.max_pixels, on_packet=self._on_packet)
        self._ignored = 0
        self._decoder = self._closing.enter_context(opened)
        self._ticks = Ticks(opened.time_base, opened.fps)
        return opened.frames()

    def _sought(self, after: Bookmark, frames: Frames) -> Frames | None:
        """Return the frames after the bookmark by way of a seek; None: count instead."""
        first = next(frames, None)
        frames.close()
        decoder = self._decoder
        if decoder is None or first is None or after.pts is None:
            return None
        back = round(2 * ALIKE / ((decoder.fps or USUAL_FPS) * decoder.time_base))
        if self._container not in INDEXED or not decoder.seek(after.pts - back):
            return None
        self._ticks.tick(first.pts)
        self._ticks.go_on(after.pts, after.tick)
        self._ignored = decoder.errors
        sought = decoder.frames()
        for passed, frame in enumerate(sought):
            if frame.pts is None or frame.pts > after.pts or self.decode_errors:
                return None
            if frame.pts == after.pts:
                same = passed >= ALIKE and digest(self._to_image.image(frame)) == after.digest
                return sought if same else None
        return None

    def _counted(self, after: Bookmark, frames: Frames) -> Frames:
        """Return the frames after the bookmark, having counted up to it from the first.

        Raises:
            MediaError: ``changed``.
        """
        for index, frame in enumerate(frames):
            tick = self._ticks.tick(frame.pts)
            if index == after.index:
                self._ignored = self.decode_errors
                if tick == after.tick and digest(self._to_image.image(frame)) == after.digest:
                    return frames
                break
        words = f"frame {after.index} is not what it was; the file was changed meanwhile"
        raise MediaError("changed", words)


def _require_room(index: int, tick: int, limits: MediaLimits) -> None:
    if index >= limits.max_frames:
        words = f"the video has more than {limits.max_frames} frames; send it in parts"
        raise MediaError("too_long", words)
    if tick > limits.max_seconds * CLOCK:
        words = f"the video is longer than {limits.max_seconds:g} s; send it in parts"
        raise MediaError("too_long", words)
