"""What the rest of the service knows of a film: limits, facts, frames, bookmarks.

Surprise: times are whole ticks (1/90000 s) counted from the film's first frame, whatever clock
the file has: the first frame is at tick 0, and no two frames share a tick.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from detector_service.backends import Image

CLOCK: Final = 90_000
"""Ticks a second: MPEG's own clock (ISO/IEC 13818-1), which divides by 24, 25, 30 and 60."""


@dataclass(frozen=True)
class MediaLimits:
    """How much of a film is accepted.

    Attributes:
        max_pixels: width times height.
        max_seconds: from the first frame to the last.
        max_frames: number of frames.
    """

    max_pixels: int
    max_seconds: float
    max_frames: int


@dataclass(frozen=True)
class FilmInfo:
    """The facts of a film, as its file declares them; the first frame was decoded.

    Attributes:
        container: short name of the file format, such as ``mov`` or ``matroska``.
        codec: name of the decoder, such as ``h264``.
        width: pixels of the upright picture.
        height: pixels of the upright picture.
        rotation: degrees to turn the stored picture clockwise until it is upright: 0, 90, 180
            or 270. A mirror image stays mirrored.
        fps: average frames a second, None unknown or not steady.
        duration_s: seconds, None unknown.
        frames: how many there should be, None unknown.
        has_audio: whether there is a sound track that can be kept.
        sample_aspect_ratio: width to height of one pixel of the upright picture, None unknown.
    """

    container: str
    codec: str
    width: int
    height: int
    rotation: int
    fps: float | None
    duration_s: float | None
    frames: int | None
    has_audio: bool
    sample_aspect_ratio: Fraction | None


@dataclass(frozen=True)
class Bookmark:
    """A frame to go on after.

    Attributes:
        index: number of the frame, from 0.
        tick: its time.
        pts: its time on the file's own clock; None where that clock cannot name one frame.
        digest: of its pixels, to tell that it is the same frame and the same film.
    """

    index: int
    tick: int
    pts: int | None
    digest: str


@dataclass(frozen=True)
class Frame:
    """One frame in display order.

    Attributes:
        index: from 0, counting every frame that can be decoded.
        tick: time from the first frame.
        image: upright, always of the film's size; None where the pixels were not wanted.
    """

    index: int
    tick: int
    image: Image | None
