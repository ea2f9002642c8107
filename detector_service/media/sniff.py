"""What container a file is, by its first bytes, and whether its index is one that may be loaded.

Used by ``decoder`` before the demuxer sees anything. The demuxer is then told the format rather
than left to guess, so a file that is two formats at once is only ever the one named here.
Surprise: FFmpeg builds an MP4's index in memory when it opens it, 72 bytes a sample, however
many samples the file claims to have; 2 KB of file can ask for gigabytes. So the claims are read
here first: every table of samples, wherever it hides, must be of a size that a film may have.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Iterator
from typing import BinaryIO, Final

import numpy as np

from detector_service.errors import MediaError
from detector_service.media.tracks import tracks

HEAD: Final = 2**16
TS_PACKETS: Final = (188, 192, 204)
"""Bytes of a transport stream's packet: plain, with a time stamp (M2TS), with parity."""
TS_RUN: Final = 5
MAGIC: Final = (
    (0, b"\x1a\x45\xdf\xa3", "matroska"),
    (0, b"RIFF", "avi"),
    (0, b"FLV\x01", "flv"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "asf"),
    (0, b"OggS", "ogg"),
    (0, b"\x00\x00\x01\xba", "mpeg"),
    *((4, name, "mov") for name in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")),
    *((4, name, "mov") for name in (b"pnot", b"styp", b"moof", b"sidx")),
)
MOST_SAMPLES: Final = 4_000_000
"""Samples that all tracks together may claim: 300 MB of index; 9 hours at 60 frames a second
beside AAC sound."""
SAMPLES_AT: Final = {b"stsz": 12, b"stz2": 12, b"trun": 8}
"""Where each kind of table has its count, from its name (ISO/IEC 14496-12, 8.7.3 and 8.8.8)."""
MOST_TABLES: Final = 1000
"""Tables of one kind in one index: FFmpeg reads no more streams than that either."""
BLOCK: Final = 160
"""Samples that FFmpeg indexes as one, at least, where it indexes sound by blocks: those of GSM;
of PCM it takes 1024. How many blocks there are comes of two tables."""


def container_of(head: bytes) -> str | None:
    """Return the demuxer's name for a file that begins with ``head``, None for no video."""
    for at, magic, name in MAGIC:
        if head.startswith(magic, at):
            return name
    for size in TS_PACKETS:
        for first in range(size):
            run = head[first : first + size * TS_RUN : size]
            if run == b"\x47" * TS_RUN:
                return "mpegts"
    return None


def require_loadable(file: BinaryIO) -> None:
    """Refuse an MP4 whose index claims more samples, or blocks of them, than any film has.

    Tables are looked for by name and not by structure, which a stranger can bend; only where there
    is no doubt that a track is raw sound its samples do not count.

    Raises:
        MediaError: ``too_long``, or ``not_a_video`` for a compressed index.
    """
    samples = blocks = 0
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for begin, end in _indexes(data):
            if data.find(b"cmov", begin, end) >= 0:
                words = "the video's index is compressed; save it anew as MP4"
                raise MediaError("not_a_video", words)
            for first, last, raw in _pieces(data, begin, end):
                again = _again(data, first, last)
                if not raw:
                    samples += sum(_count(data, at) for at in _tables(data, first, last)) * again
                per_chunk = max(_per_chunk(data, first, last), default=0)
                blocks += sum(_chunks(data, first, last)) * math.ceil(per_chunk / BLOCK) * again
    if max(samples, blocks) > MOST_SAMPLES:
        words = (
            f"the video's index claims {max(samples, blocks)} samples, more than {MOST_SAMPLES};"
            " send it in parts, or encoded anew"
        )
        raise MediaError("too_long", words)


def _pieces(data: mmap.mmap, begin: int, end: int) -> Iterator[tuple[int, int, bool]]:
    """Yield every track of an index, and what is between them; and whether it is raw sound."""
    for (first, last), raw in tracks(data, begin, end):
        yield begin, first, False
        yield first, last, raw
        begin = last
    yield begin, end, False


def _again(data: mmap.mmap, begin: int, end: int) -> int:
    """Return how much more an index takes as every edit may list all samples again, in 24 bytes."""
    edits = sum(
        min(_count(data, at + 8), (end - at) // 12) for at in _named(data, b"elst", begin, end)
    )
    return max(1, math.ceil((edits + 2) / 3))


def _tables(data: mmap.mmap, begin: int, end: int) -> Iterator[int]:
    """Yield where each count of samples stands."""
    for name, offset in SAMPLES_AT.items():
        for at in _named(data, name, begin, end):
            yield at + offset


def _chunks(data: mmap.mmap, begin: int, end: int) -> Iterator[int]:
    for name in (b"stco", b"co64"):
        for at in _named(data, name, begin, end):
            yield min(_count(data, at + 8), (end - at) // 4)


def _per_chunk(data: mmap.mmap, begin: int, end: int) -> Iterator[int]:
    for at in _named(data, b"stsc", begin, end):
        entries = min(_count(data, at + 8), (end - at - 12) // 12, MOST_SAMPLES)
        if entries > 0:
            table = np.frombuffer(data[at + 12 : at + 12 + entries * 12], ">u4")
            yield int(table[1::3].max())


def _count(data: mmap.mmap, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "big")


def _named(data: mmap.mmap, name: bytes, begin: int, end: int) -> Iterator[int]:
    at = data.find(name, begin, end)
    for _ in range(MOST_TABLES):
        if at < 0:
            return
        yield at
        at = data.find(name, at + 1, end)
    raise MediaError("not_a_video", f"the video's index has over {MOST_TABLES} tables of a kind")


def _indexes(data: mmap.mmap) -> Iterator[tuple[int, int]]:
    """Yield every stretch of the file that is no picture or sound data.

    A box whose size makes no sense is taken to reach to the end of the file.
    """
    at, length = 0, len(data)
    while at + 8 <= length:
        size, name = struct.unpack(">I4s", data[at : at + 8])
        if size == 1 and at + 16 <= length:
            (size,) = struct.unpack(">Q", data[at + 8 : at + 16])
        end = at + size if 8 <= size <= length - at else length  # noqa: PLR2004 - a header
        if name != b"mdat":
            yield at, end
        at = end
