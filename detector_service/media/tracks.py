"""Where an MP4's tracks lie, and which of them are raw sound (PCM); used by ``sniff``.

FFmpeg indexes a sound track by blocks, and not by samples, if it has one time to sample entry
and that says one unit a sample (``mov_build_index``); every camera's PCM track is such a one, and
has 48000 samples a second. Its claim of samples then costs nothing, and is not to be counted.
Surprise: a stranger would like FFmpeg to see another track here than we do. So nothing is said of
an index in which any byte pattern could be a table at another place than the one it belongs to.
"""

from __future__ import annotations

import mmap
import struct
from typing import Final

from detector_service.media.names import TABLES, Names, Range

HEADER: Final = 8
MOST_BOXES: Final = 1000
ONCE: Final = (b"stsd", b"stts", b"stsc", b"stsz")
NEVER: Final = (b"stz2", b"ctts", b"trun")
"""Tables that make FFmpeg keep something for each sample after all."""
FORMATS: Final = frozenset(
    (
        *(b"raw ", b"NONE", b"twos", b"sowt", b"in24", b"in32", b"fl32", b"fl64", b"lpcm"),
        *(b"ulaw", b"alaw", b"ipcm", b"fpcm"),
    )
)
HANDLERS: Final = frozenset((b"soun", b"url ", b"alis", b"rsrc", b"mdta", b"mdir"))
"""Handlers of a sound track, of where its data is, and of its metadata (QuickTime has them all)."""


class _BentError(Exception):
    """It is not built as a plain writer would have built it."""


def tracks(data: mmap.mmap, names: Names, begin: int, end: int) -> list[tuple[Range, bool]]:
    """Return the contents of each track in these boxes, in order, and whether it is raw sound.

    Returns:
        nothing where the boxes leave any doubt of which tracks there are.
    """
    try:
        found = [
            track
            for name, movie in _boxes(data, (begin, end))
            if name == b"moov"
            for name, track in _boxes(data, movie)
            if name == b"trak"
        ]
    except _BentError:
        return []
    if len(names.places(b"trak", begin, end)) != len(found):
        return []
    return [(track, _is_raw(data, names, track)) for track in found]


def _is_raw(data: mmap.mmap, names: Names, track: Range) -> bool:
    inside = track
    try:
        for name in (b"mdia", b"minf", b"stbl"):
            (inside,) = (where for found, where in _boxes(data, inside) if found == name)
        tables = dict(_boxes(data, inside))
    except (_BentError, ValueError):
        return False
    times = {name: len(names.places(name, *track)) for name in TABLES}
    return (
        all(name in tables and times[name] == 1 for name in ONCE)
        and not any(times[name] for name in NEVER)
        and times[b"stco"] + times[b"co64"] == 1
        and _is_sound(data, names, track)
        and _words(data, tables[b"stsd"], 4)[1] == 1
        and data[tables[b"stsd"][0] + 12 : tables[b"stsd"][0] + 16] in FORMATS
        and _words(data, tables[b"stts"], 4)[1::2] == (1, 1)
        and _words(data, tables[b"stsz"], 2)[1] > 0
    )


def _is_sound(data: mmap.mmap, names: Names, track: Range) -> bool:
    kinds = {data[at + 12 : at + 16] for at in names.places(b"hdlr", *track)}
    return b"soun" in kinds and kinds <= HANDLERS


def _boxes(data: mmap.mmap, where: Range) -> list[tuple[bytes, Range]]:
    """Return the name and contents of each box; less than a header may follow the last."""
    at, end = where
    found: list[tuple[bytes, Range]] = []
    while end - at >= HEADER:
        size, name = struct.unpack_from(">I4s", data, at)
        if not HEADER <= size <= end - at or len(found) == MOST_BOXES:
            raise _BentError
        found.append((name, (at + HEADER, at + size)))
        at += size
    return found


def _words(data: mmap.mmap, where: Range, count: int) -> tuple[int, ...]:
    """Return the first ``count`` numbers of a table; zeros where it is shorter."""
    begin, end = where
    whole = data[begin : min(end, begin + 4 * count)].ljust(4 * count, b"\0")
    return struct.unpack(f">{count}I", whole)
