"""From a decoded picture to an upright BGR image and back to one that can be encoded.

Used by ``reader``, ``probe`` and ``segments``. Surprise: a picture without a colour tag is read
as BT.601, as FFmpeg writes it; what we write is always BT.709, limited range, and says so.
"""

from __future__ import annotations

import hashlib
from typing import Final

import av
import cv2
import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from detector_service.backends import Image
from detector_service.errors import MediaError

QUARTER: Final = 90
BT709: Final = 1
TURNS: Final[dict[int, int | None]] = {
    0: None,
    90: cv2.ROTATE_90_CLOCKWISE,
    180: cv2.ROTATE_180,
    270: cv2.ROTATE_90_COUNTERCLOCKWISE,
}


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
            turn: degrees clockwise: 0, 90, 180 or 270.
        """
        self._turn = TURNS[turn]
        lying = turn % 180 == QUARTER
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
        return found if self._turn is None else _rotated(found, self._turn)


def _rotated(image: Image, turn: int) -> Image:
    turned: Image = cv2.rotate(image, turn)
    return turned


class ToFrame:
    """Turns images into pictures for the encoder; for one thread."""

    def __init__(self) -> None:
        """Prepare."""
        self._reformatter = VideoReformatter()

    def frame(self, image: Image) -> VideoFrame:
        """Return a YUV 4:2:0 picture; an odd width or height is rounded up, its edge repeated."""
        height, width = image.shape[:2]
        if width % 2 or height % 2:
            edge = cv2.BORDER_REPLICATE
            image = cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, edge)
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
