"""Boxes and labels on an image, and images as files; called off the event loop.

Labels are small tiles drawn once by Pillow and kept, so a frame costs a few copied pixels.
Surprise: the image given is never written into; the batcher may still be reading it.
"""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Iterable
from typing import Final

import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from detector_service.backends import Detection, Image
from detector_service.errors import MediaError

Colour = tuple[int, int, int]

COLOURS: Final[tuple[Colour, ...]] = (
    (75, 25, 230),
    (75, 180, 60),
    (25, 225, 255),
    (200, 130, 0),
    (48, 130, 245),
    (180, 30, 145),
    (240, 240, 70),
    (230, 50, 240),
    (60, 245, 210),
    (128, 128, 0),
)
"""BGR; a class keeps its colour in every film."""
BLACK: Final = (0, 0, 0)
WHITE: Final = (255, 255, 255)
BRIGHT: Final = 140
KINDS: Final = {
    "image/jpeg": ("JPEG", {"quality": 90}),
    "image/png": ("PNG", {"compress_level": 3}),
    "image/webp": ("WEBP", {"quality": 85, "method": 2}),
}


def draw(image: Image, detections: Iterable[Detection]) -> Image:
    """Return a copy with a box and ``name 0.87`` for each detection, the surest one on top."""
    drawn = image.copy()
    for item in sorted(detections, key=lambda found: found.confidence):
        _draw(drawn, item)
    return drawn


def picture(image: Image, media_type: str) -> bytes:
    """Return the image as a file.

    Args:
        image: BGR.
        media_type: ``image/jpeg``, ``image/png`` or ``image/webp``.

    Raises:
        MediaError: ``media_type``, or ``too_many_pixels`` for what this kind of file can hold.
    """
    if media_type not in KINDS:
        raise MediaError("media_type", f"{media_type} is none of {', '.join(KINDS)}")
    kind, options = KINDS[media_type]
    buffer = io.BytesIO()
    try:
        Pillow.fromarray(np.ascontiguousarray(image[:, :, ::-1])).save(buffer, kind, **options)
    except (OSError, ValueError) as exc:
        height, width = image.shape[:2]
        words = f"no {kind} file can hold {width}x{height} pixels ({exc}); ask for PNG"
        raise MediaError("too_many_pixels", words) from exc
    return buffer.getvalue()


def _draw(image: Image, item: Detection) -> None:
    height, width = image.shape[:2]
    if not all(math.isfinite(edge) for edge in item.xyxy):
        return
    left, right = (min(max(round(at), 0), width - 1) for at in item.xyxy[::2])
    top, bottom = (min(max(round(at), 0), height - 1) for at in item.xyxy[1::2])
    short = min(height, width)
    colour, thick = COLOURS[item.class_id % len(COLOURS)], max(1, round(short / 360))
    image[top : top + thick, left : right + 1] = colour
    image[max(bottom + 1 - thick, top) : bottom + 1, left : right + 1] = colour
    image[top : bottom + 1, left : left + thick] = colour
    image[top : bottom + 1, max(right + 1 - thick, left) : right + 1] = colour
    tile = _label(f"{item.class_name} {item.confidence:.2f}", max(11, round(short / 40)), colour)
    _paste(image, tile, left, top - tile.shape[0] if top >= tile.shape[0] else top)


def _paste(image: Image, tile: Image, left: int, top: int) -> None:
    """Copy a tile, moved left where it would stick out, cut where it cannot fit."""
    left = max(0, min(left, image.shape[1] - tile.shape[1]))
    place = image[top : top + tile.shape[0], left : left + tile.shape[1]]
    place[:] = tile[: place.shape[0], : place.shape[1]]


@functools.lru_cache(maxsize=512)
def _label(text: str, size: int, colour: Colour) -> Image:
    """Return text on its class's colour, black or white, whichever reads better."""
    font = ImageFont.load_default(size)
    left, _, right, _ = font.getbbox(text)
    margin = max(1, size // 5)
    tile = Pillow.new("RGB", (round(right - left) + 2 * margin, round(size * 1.2) + margin), colour)
    blue, green, red = colour
    ink = BLACK if 0.299 * red + 0.587 * green + 0.114 * blue > BRIGHT else WHITE
    ImageDraw.Draw(tile).text((margin - left, margin // 2), text, fill=ink, font=font)
    return np.asarray(tile)
