"""Read X11 cursor files; called by the scripts that paste cursors on screenshots.

The surprise: a file holds the same cursor in many sizes, often as an animation, with
premultiplied alpha. Only the first frame of each size is kept.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

ICONS = Path("/usr/share/icons")
IMAGE_CHUNK = 0xFFFD0002  # type of an image chunk, Xcursor(3)
VISIBLE_ALPHA = 96  # below this a pixel is soft shadow, and no part of the box

# Names differ between themes; the first one that exists is taken.
KINDS: dict[str, tuple[str, ...]] = {
    "arrow": ("left_ptr", "default", "arrow"),
    "hand": ("hand2", "pointer", "hand1", "pointing_hand"),
    "text": ("xterm", "text", "ibeam"),
    "cross": ("crosshair", "cross", "tcross"),
    "move": ("fleur", "move", "size_all"),
    "wide": ("sb_h_double_arrow", "ew-resize", "size_hor", "h_double_arrow"),
    "tall": ("sb_v_double_arrow", "ns-resize", "size_ver", "v_double_arrow"),
    "corner": ("bottom_right_corner", "nwse-resize", "size_fdiag", "top_left_corner"),
    "wait": ("watch", "wait"),
    "busy": ("left_ptr_watch", "progress", "half-busy"),
    "help": ("question_arrow", "help", "whats_this"),
    "no": ("crossed_circle", "not-allowed", "forbidden"),
    "grab": ("grab", "openhand", "hand1"),
}


@dataclass(frozen=True)
class Cursor:
    """One bitmap: straight (not premultiplied) RGBA, and the hot spot in pixels (x, y)."""

    rgba: np.ndarray  # (height, width, 4) uint8
    hot: tuple[int, int]


def read_cursors(path: Path) -> dict[int, Cursor]:
    """Return nominal size in pixels -> first frame. Format: Xcursor(3), "CURSOR FILES".

    Raises:
        ValueError: the file does not start with the magic of an Xcursor file.
    """
    data = path.read_bytes()
    magic, header, _version, entries = struct.unpack_from("<4sIII", data)
    if magic != b"Xcur":
        raise ValueError(f"{path} is no X cursor file: it starts with {magic!r}")
    found: dict[int, Cursor] = {}
    for entry in range(entries):
        kind, nominal, at = struct.unpack_from("<III", data, header + 12 * entry)
        if kind == IMAGE_CHUNK and nominal not in found:
            found[nominal] = _image(data, at)
    return found


def _image(data: bytes, at: int) -> Cursor:
    width, height, x_hot, y_hot = struct.unpack_from("<IIII", data, at + 16)
    flat = np.frombuffer(data, np.uint8, width * height * 4, at + 36)
    bgra = flat.reshape(height, width, 4).astype(np.float32)
    alpha = bgra[..., 3:]
    colour = np.where(alpha > 0, bgra[..., 2::-1] * 255 / np.maximum(alpha, 1), 0)
    rgba = np.concatenate([np.clip(colour, 0, 255), alpha], axis=2).round().astype(np.uint8)
    return Cursor(rgba, (x_hot, y_hot))


@cache
def load(theme: str, kind: str) -> dict[int, Cursor]:
    """Return the sizes of one kind of cursor in one installed theme; empty if it has none."""
    folder = ICONS / theme / "cursors"
    for name in KINDS[kind]:
        if (folder / name).is_file():
            return read_cursors(folder / name)
    return {}


def kind_of(theme: str, shown: Cursor) -> str:
    """Return the kind of a cursor that an X server shows, "other" if it is none of ours.

    Programs need not name their cursors (Chromium does not), so the outlines are compared.
    """
    for kind in KINDS:
        for cursor in load(theme, kind).values():
            if np.array_equal(cursor.rgba[..., 3], shown.rgba[..., 3]):
                return kind
    return "other"


def visible_box(rgba: np.ndarray) -> tuple[int, int, int, int]:
    """Return x1, y1, x2, y2 (exclusive) of the pixels that a person would call the cursor.

    Raises:
        ValueError: nothing in the bitmap is visible.
    """
    rows, columns = np.nonzero(rgba[..., 3] >= VISIBLE_ALPHA)
    if rows.size == 0:
        raise ValueError("the cursor is fully transparent")
    left, right = int(columns.min()), int(columns.max()) + 1
    return left, int(rows.min()), right, int(rows.max()) + 1
