"""Where an MP4's boxes and tables are named, outside its pictures and sound; used by ``sniff``.

Surprise: a gigabyte of boxes, or of names, takes as little time as a film's index, and no other
thread waits for it: the number of boxes, bytes and names is bounded, and NumPy looks for them.
"""

from __future__ import annotations

import bisect
import mmap
import struct
from collections.abc import Iterator
from typing import Final, TypeAlias

import numpy as np

from detector_service.errors import MediaError

Range: TypeAlias = "tuple[int, int]"

MOST_BOXES: Final = 100_000
"""At the top of a file: 4 hours in fragments of a second have less."""
MOST_BYTES: Final = 2**26
"""Of all boxes but pictures and sound. Four million samples take 16 MB, and as much again for each
of their lengths and offsets that the writer does not sum up."""
TABLES: Final = tuple(b"cmov co64 ctts elst hdlr stco stsc stsd stsz stts stz2 trak trun".split())
MOST_TABLES: Final = 1000
"""Tables of one kind, but those of fragments: FFmpeg reads no more streams than that either."""
PASSED_OVER: Final = (b"mdat", b"free", b"skip", bytes(4))
"""Boxes in which FFmpeg reads nothing when it opens a film; zeros are room that was kept."""
MOVIE: Final = (b"mvhd", b"cmov")
"""At the beginning of a free box they make FFmpeg read it after all."""
BLOCK: Final = 2**20


class Names:
    """The places of all names in ``TABLES``, found once."""

    def __init__(self, data: mmap.mmap) -> None:
        """Look for them.

        Raises:
            MediaError: ``not_a_video``; more boxes, bytes or tables than a film has.
        """
        self.indexes = _merged(_indexes(data))
        """Every stretch of the file that is no picture or sound data."""
        size = sum(end - begin for begin, end in self.indexes)
        if size > MOST_BYTES:
            raise _too_much(f"{size} bytes")
        self._places = _found(data, self.indexes)

    def places(self, name: bytes, begin: int, end: int) -> list[int]:
        """Return where a name begins, from ``begin``, whole before ``end``."""
        found = self._places[name]
        first = bisect.bisect_left(found, begin)
        return found[first : bisect.bisect_right(found, end - len(name), first)]


def _too_much(what: str) -> MediaError:
    return MediaError("not_a_video", f"the video's index has {what}; save it anew as MP4")


def _indexes(data: mmap.mmap) -> Iterator[Range]:
    """Yield the boxes; one whose size makes no sense is taken to reach to the end of the file."""
    at, length = 0, len(data)
    for _ in range(MOST_BOXES):
        if at + 8 > length:
            return
        size, name = struct.unpack_from(">I4s", data, at)
        if size == 1 and at + 16 <= length:
            (size,) = struct.unpack_from(">Q", data, at + 8)
        end = at + size if 8 <= size <= length - at else length  # noqa: PLR2004 - a header
        if name not in PASSED_OVER or (name == b"free" and data[at + 12 : at + 16] in MOVIE):
            yield at, end
        at = end
    if at + 8 <= length:
        raise _too_much(f"over {MOST_BOXES} parts")


def _merged(boxes: Iterator[Range]) -> list[Range]:
    found: list[Range] = []
    for begin, end in boxes:
        if found and found[-1][1] == begin:
            begin, _ = found.pop()  # noqa: PLW2901 - one stretch with the box before
        found.append((begin, end))
    return found


def _found(data: mmap.mmap, indexes: list[Range]) -> dict[bytes, list[int]]:
    """Return where each name stands in the file, in order."""
    whole = bytearray()
    for begin, end in indexes:
        for at in range(begin, end, BLOCK):
            whole += data[at : min(end, at + BLOCK)]
    starts = np.cumsum([0, *(end - begin for begin, end in indexes)])
    begins = np.array([begin for begin, _ in indexes], np.int64)
    found: dict[bytes, list[int]] = {}
    for name, places in _scanned(whole).items():
        places.sort()
        stretch = np.searchsorted(starts, places, "right") - 1
        inside = places + len(name) <= starts[stretch + 1]  # none of two stretches' bytes
        found[name] = (places - starts[stretch] + begins[stretch])[inside].tolist()
    return found


def _scanned(whole: bytearray) -> dict[bytes, np.ndarray]:
    """Return where each name begins in these bytes.

    Four views, one for each remainder, hold every four bytes of them as a number.
    """
    found: dict[bytes, list[np.ndarray]] = {name: [np.zeros(0, np.int64)] for name in TABLES}
    left = {name: MOST_BOXES if name == b"trun" else MOST_TABLES for name in TABLES}
    for shift in range(4):
        words = np.frombuffer(whole, "<u4", max(0, len(whole) - shift) // 4, min(shift, len(whole)))
        for at in range(0, len(words), BLOCK // 4):
            block = words[at : at + BLOCK // 4]
            for name in TABLES:
                here = np.flatnonzero(block == int.from_bytes(name, "little"))
                left[name] -= len(here)
                if left[name] < 0:
                    raise _too_much(f"very many tables ({name.decode()})")
                if len(here):
                    found[name].append((here + at) * 4 + shift)
    return {name: np.concatenate(places) for name, places in found.items()}
