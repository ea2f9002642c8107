"""One chunk of the annotated film as an H.264 file of its own, durable once closed.

Called by the video pipeline, on its encoding thread. Every segment starts with a keyframe and
needs no other, so ``join`` only copies.
Surprise: the same images give the same bytes, on any machine, since the number of encoder threads
is fixed here: x264 decides differently with another number of threads.
"""

from __future__ import annotations

import contextlib
from fractions import Fraction
from pathlib import Path
from typing import Final

import av
from av.container import OutputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from detector_service.backends import Image
from detector_service.disk import sync
from detector_service.errors import MediaError
from detector_service.media.film import CLOCK
from detector_service.media.pixels import ToFrame, tag

THREADS: Final = 4
FPS: Final = 30
"""Told to the encoder for its level and rate decisions; every frame carries its own time."""
MP4: Final = {"movie_timescale": str(CLOCK), "fflags": "+bitexact"}
"""Times of edit lists in ticks rather than milliseconds, and no version or date in the file."""


class SegmentWriter:
    """Takes images in order; for one thread."""

    def __init__(
        self,
        path: Path,
        *,
        width: int,
        height: int,
        sample_aspect_ratio: Fraction | None,
        preset: str,
        crf: int,
    ) -> None:
        """Create the file.

        Args:
            path: replaced if it is there.
            width: pixels of every image; odd ones are padded on the right.
            height: pixels of every image; odd ones are padded at the bottom.
            sample_aspect_ratio: width to height of one pixel, None for square.
            preset: of x264, ``ultrafast`` to ``veryslow``.
            crf: of x264, 0 (lossless) to 51 (worst).
        """
        self._path = path
        self._last: int | None = None
        self._gap = CLOCK // FPS
        self._to_frame = ToFrame()
        self._container: OutputContainer = av.open(
            str(path.resolve()), "w", format="mp4", options=MP4
        )
        options = {"preset": preset, "crf": str(crf), "threads": str(THREADS), "bf": "0"}
        self._stream: VideoStream = self._container.add_stream("libx264", FPS, options)
        codec = self._stream.codec_context
        codec.width, codec.height = width + width % 2, height + height % 2
        codec.time_base = Fraction(1, CLOCK)
        codec.sample_aspect_ratio = sample_aspect_ratio or Fraction(1)
        tag(codec)

    def add(self, image: Image, tick: int) -> None:
        """Append an image; ticks must rise.

        Raises:
            MediaError: ``unencodable``; H.264 has no such size, say.
            OSError: the disk is full, say.
        """
        frame = self._to_frame.frame(image)
        frame.pts, frame.time_base = tick, Fraction(1, CLOCK)
        if self._last is not None:
            self._gap = tick - self._last
        self._last = tick
        self._mux(frame)

    def close(self) -> None:
        """Finish the file and make its bytes durable; the folder's entry is the caller's.

        Raises:
            MediaError: ``unencodable``.
            OSError: the disk is full, say.
        """
        self._mux(None)
        self._container.close()
        sync(self._path)

    def abandon(self) -> None:
        """Leave the file unfinished."""
        with contextlib.suppress(av.FFmpegError):
            self._container.close()

    def _mux(self, frame: VideoFrame | None) -> None:
        try:
            for packet in self._stream.encode(frame):
                packet.duration = self._gap  # counts for the last frame; others end at the next
                self._container.mux(packet)
        except OSError:  # PyAV's own disk errors are of this kind too
            raise
        except av.FFmpegError as exc:
            codec = self._stream.codec_context
            words = (
                f"{codec.width}x{codec.height} pixels cannot be written as H.264 ({exc});"
                " scale the video down, or ask for the result without the annotated one"
            )
            raise MediaError("unencodable", words) from exc
