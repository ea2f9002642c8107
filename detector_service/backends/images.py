"""Bytes to pixels: the one place where untrusted image bytes are opened; called off the event loop.

Pillow rather than OpenCV: it refuses a truncated file instead of answering with grey stripes, and
it tells the size before it decodes.
Surprise: the result is turned as its EXIF orientation says, so boxes fit what people see.
"""

from __future__ import annotations

import io
import struct
import sys
import warnings

import numpy as np
from PIL import Image as Pillow
from PIL import ImageOps

from detector_service.backends.base import Image
from detector_service.errors import RefusedError

FORMATS = ("JPEG", "PNG", "WEBP")
# Ultralytics, once imported, replaces Pillow's own by one that meets a file which is no image with
# an import that fails; so it is bound before, and taken from where Ultralytics keeps it if after.
OPEN = getattr(sys.modules.get("ultralytics.utils.patches"), "_image_open", Pillow.open)


def decode(data: bytes, *, max_pixels: int) -> Image:
    """Return the image as height x width x 3, BGR.

    Args:
        data: a whole JPEG, PNG or WebP file.
        max_pixels: width times height allowed; checked before anything is decoded.

    Raises:
        RefusedError: 422 ``undecodable``, 413 ``too_many_pixels``.
    """
    if not data:
        raise RefusedError(422, "undecodable", "the body is empty; send a JPEG, PNG or WebP file")
    try:
        with warnings.catch_warnings():
            # Pillow warns at a size of its own; ours is checked below, on the same header.
            warnings.simplefilter("ignore", Pillow.DecompressionBombWarning)
            opened = OPEN(io.BytesIO(data), formats=FORMATS)
        with opened:
            _require_size(opened.width, opened.height, max_pixels)
            upright = ImageOps.exif_transpose(opened).convert("RGB")
    except Pillow.DecompressionBombError as exc:
        raise RefusedError(413, "too_many_pixels", f"the image is too large: {exc}") from exc
    # The union of what Pillow's three decoders and its EXIF reader raise on damaged files.
    except (OSError, SyntaxError, ValueError, struct.error, EOFError, KeyError) as exc:
        words = f"the body is no readable JPEG, PNG or WebP file: {exc}"
        raise RefusedError(422, "undecodable", words) from exc
    return np.ascontiguousarray(np.asarray(upright)[:, :, ::-1])


def _require_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        words = f"the image has {width}x{height} pixels, more than {max_pixels}; scale it down"
        raise RefusedError(413, "too_many_pixels", words)
