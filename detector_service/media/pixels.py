"""From a decoded picture to an upright BGR image and back to one that can be encoded.

Used by ``reader``, ``probe`` and ``segments``. Surprise: a picture without a colour tag is read
as BT.601, as FFmpeg writes it; what we write is always BT.709, limited range, and says so.
"""

from __future__ import annotations

import hashlib
from typing import Final

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from detector_service.backends import Image
from detector_service.errors import MediaError

QUARTER: Final = 90
BT709: Final = 1


def rotation(frame: VideoFrame) -> int:
    """Return the degrees to turn a picture clockwise until it is upright: 0, 90, 180 or 270."""
    return round(-frame.rotation / QUARTER) * QUARTER % 360


def digest(image: Image) -> str:
    """Return a name of these pixels."""
    return hashlib.blake2b(image.tobytes(), digest_size=16).hexdigest()


class ToImage:
    """Turns decoded pictures into images of one size; for one thread."""

    def __init__(self, *, width: int, height: int, turn: int) -> None:
        """Prepare.

        Args:
            width: pixels of the upright image.
            height: pixels of the upright image.
            turn: degrees clockwise, a multiple of 90.
        """
        self._turns = -turn // QUARTER % 4  # NumPy turns the other way round
        lying = self._turns % 2 == 1
        self._width, self._height = (height, width) if lying else (width, height)
        self._reformatter = VideoReformatter()

    def image(self, frame: VideoFrame) -> Image:
        """Return height x width x 3, BGR; a picture of another size is scaled to the film's.

        Raises:
            MediaError: ``undecodable``; there is no way from its pixels to BGR.
        """
        try:
            scaled = self._reformatter.reformat(
                frame, self._width, self._height, "bgr24", threads=1
            )
        except (av.FFmpegError, ValueError) as exc:
            words = f"a frame's pixels ({frame.format.name}) cannot be converted: {exc}"
            raise MediaError("undecodable", words) from exc
        found = scaled.to_ndarray().astype(np.uint8, copy=False)
        return np.ascontiguousarray(np.rot90(found, self._turns)) if self._turns else found


class ToFrame:
    """Turns images into pictures for the encoder; for one thread."""

    def __init__(self) -> None:
        """Prepare."""
        self._reformatter = VideoReformatter()

    def frame(self, image: Image) -> VideoFrame:
        """Return a YUV 4:2:0 picture; an odd width or height is rounded up, its edge repeated."""
        height, width = image.shape[:2]
        if width % 2 or height % 2:
            image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        return self._reformatter.reformat(
            VideoFrame.from_ndarray(np.ascontiguousarray(image), format="bgr24"),
            format="yuv420p",
            dst_colorspace=Colorspace.ITU709,
            dst_color_range=ColorRange.MPEG,
            threads=1,
        )


def tag(codec: VideoCodecContext) -> None:
    """Say in the stream which colours ``ToFrame`` writes (code points of ITU-T H.273)."""
    codec.pix_fmt = "yuv420p"
    codec.colorspace = BT709
    codec.color_primaries = BT709
    codec.color_trc = BT709
    codec.color_range = ColorRange.MPEG
