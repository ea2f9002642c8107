"""Ask an X server which cursor it shows, and where; called by record_screen.py for the true boxes.

The surprise: XFixes hands each 32-bit pixel over in an unsigned long, so on a 64-bit machine
every other word is padding.
"""

from __future__ import annotations

import ctypes
import ctypes.util
from dataclasses import dataclass

import numpy as np
from xcursor import Cursor, visible_box


class _CursorImage(ctypes.Structure):
    """XFixesCursorImage of X11/extensions/Xfixes.h."""

    _fields_ = (
        ("x", ctypes.c_short),
        ("y", ctypes.c_short),
        ("width", ctypes.c_ushort),
        ("height", ctypes.c_ushort),
        ("x_hot", ctypes.c_ushort),
        ("y_hot", ctypes.c_ushort),
        ("serial", ctypes.c_ulong),
        ("pixels", ctypes.POINTER(ctypes.c_ulong)),
    )


@dataclass(frozen=True)
class Shown:
    """What the X server shows: the bitmap, and its hot spot on the screen in pixels."""

    cursor: Cursor
    x: int
    y: int

    def box(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Return x1, y1, x2, y2 of the visible cursor, clipped to a screen of that size."""
        x1, y1, x2, y2 = visible_box(self.cursor.rgba)
        left, top = self.x - self.cursor.hot[0], self.y - self.cursor.hot[1]
        return (
            max(0, left + x1),
            max(0, top + y1),
            min(width, left + x2),
            min(height, top + y2),
        )


class Display:
    """A connection to one X display."""

    def __init__(self, name: str) -> None:
        self._x11 = _library("X11")
        self._fixes = _library("Xfixes")
        self._x11.XOpenDisplay.restype = ctypes.c_void_p
        self._fixes.XFixesGetCursorImage.argtypes = [ctypes.c_void_p]
        self._fixes.XFixesGetCursorImage.restype = ctypes.POINTER(_CursorImage)
        self._x11.XFree.argtypes = [ctypes.c_void_p]
        self._handle = self._x11.XOpenDisplay(name.encode())
        if not self._handle:
            raise ConnectionError(f"no X server answers on display {name}")

    def shown(self) -> Shown:
        """Return the cursor that is on the screen now.

        Raises:
            ConnectionError: the server has no XFixes extension.
        """
        pointer = self._fixes.XFixesGetCursorImage(self._handle)
        if not pointer:
            raise ConnectionError("the X server does not say which cursor it shows (no XFixes)")
        image = pointer.contents
        count = image.width * image.height
        packed = np.ctypeslib.as_array(image.pixels, (count,)).astype(np.uint32)
        rgba = packed.view(np.uint8).reshape(image.height, image.width, 4)[..., [2, 1, 0, 3]]
        cursor = Cursor(rgba, (image.x_hot, image.y_hot))
        shown = Shown(cursor, image.x, image.y)
        self._x11.XFree(pointer)
        return shown


def _library(name: str) -> ctypes.CDLL:
    path = ctypes.util.find_library(name)
    if path is None:
        raise FileNotFoundError(f"lib{name} is not installed")
    return ctypes.CDLL(path)
