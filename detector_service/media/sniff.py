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
from collections.abc import Iterator
from typing import BinaryIO, Final

import numpy as np

from detector_service.errors import MediaError
from detector_service.media.names import Names
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
        names = Names(data)
        if names.places(b"cmov", 0, len(data)):
            words = "the video's index is compressed; save it anew as MP4"
            raise MediaError("not_a_video", words)
        for first, last, raw in _pieces(data, names):
            again = _again(data, names, first, last)
            if not raw:
                samples += sum(_samples(data, names, first, last)) * again
            per_chunk = max(_per_chunk(data, names, first, last), default=0)
            blocks += sum(_chunks(data, names, first, last)) * math.ceil(per_chunk / BLOCK) * again
    if max(samples, blocks) > MOST_SAMPLES:
        words = (
            f"the video's index claims {max(samples, blocks)} samples, more than {MOST_SAMPLES};"
            " send it in parts, or encoded anew"
        )
        raise MediaError("too_long", words)


def _pieces(data: mmap.mmap, names: Names) -> Iterator[tuple[int, int, bool]]:
    """Yield every track of the indexes, and what is between them; and whether it is raw sound."""
    begin = 0
    for index in names.indexes:
        if names.places(b"trak", *index):
            for (first, last), raw in tracks(data, names, *index):
                yield begin, first, False
                yield first, last, raw
                begin = last
    yield begin, len(data), False


def _again(data: mmap.mmap, names: Names, begin: int, end: int) -> int:
    """Return how much more an index takes as every edit may list all samples again, in 24 bytes."""
    lists = names.places(b"elst", begin, end)
    edits = sum(min(_count(data, at + 8), (end - at) // 12) for at in lists)
    return max(1, math.ceil((edits + 2) / 3))


def _samples(data: mmap.mmap, names: Names, begin: int, end: int) -> Iterator[int]:
    for name, offset in SAMPLES_AT.items():
        for at in names.places(name, begin, end):
            yield _count(data, at + offset)


def _chunks(data: mmap.mmap, names: Names, begin: int, end: int) -> Iterator[int]:
    for name in (b"stco", b"co64"):
        for at in names.places(name, begin, end):
            yield min(_count(data, at + 8), (end - at) // 4)


def _per_chunk(data: mmap.mmap, names: Names, begin: int, end: int) -> Iterator[int]:
    left = MOST_SAMPLES
    for at in names.places(b"stsc", begin, end):
        entries = min(_count(data, at + 8), (end - at - 12) // 12)
        left -= max(0, entries)
        if left < 0:
            words = f"the video's index has over {MOST_SAMPLES} kinds of chunks; save it anew"
            raise MediaError("too_long", words)
        if entries > 0:
            table = np.frombuffer(data[at + 12 : at + 12 + entries * 12], ">u4")
            yield int(table[1::3].max())


def _count(data: mmap.mmap, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "big")
