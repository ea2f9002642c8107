"""What an MP4's sound track may claim: raw sound (PCM) of any length, and no bomb behind it."""

from __future__ import annotations

import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from detector_service.errors import MediaError
from detector_service.media import MediaLimits, probe
from tests.detector.films import RATE, bars, make_film

LIMITS = MediaLimits(max_pixels=10**6, max_seconds=3600, max_frames=1000)
PARENTS = (b"moov", b"trak", b"mdia", b"minf", b"stbl")
CLAIM = 60_000_000
"""Samples; FFmpeg takes 1 GB where it lists each."""

Tables = dict[bytes, bytes]
Change = Callable[[Tables], None]


def boxes(content: bytes) -> list[tuple[bytes, bytes]]:
    found, at = [], 0
    while at < len(content):
        size, name = struct.unpack_from(">I4s", content, at)
        found.append((name, content[at + 8 : at + size]))
        at += size
    return found


def box(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", len(content) + 8, name) + content


def changed(content: bytes, change: Change, *, sound: bool = False) -> bytes:
    """Rewrite a film: ``change`` is given the tables of its sound track."""
    made = b""
    for name, inside in boxes(content):
        of_sound = sound or (name == b"trak" and b"soun" in inside)
        if name == b"stbl" and of_sound:
            tables = dict(boxes(inside))
            change(tables)
            made += box(name, b"".join(box(*table) for table in tables.items()))
        elif name in PARENTS:
            made += box(name, changed(inside, change, sound=of_sound))
        else:
            made += box(name, inside)
    return made


def claim(tables: Tables) -> None:
    """Claim more than any film has, in as many chunks as there are."""
    (chunks,) = struct.unpack_from(">I", tables[b"stco"], 4)
    tables[b"stsz"] = struct.pack(">3I", 0, 4, CLAIM)
    tables[b"stsc"] = struct.pack(">5I", 0, 1, 1, CLAIM // chunks, 1)


def test_ten_minutes_of_raw_sound_are_read(tmp_path: Path) -> None:
    path = tmp_path / "film.mov"
    with av.open(str(path), "w") as film:
        video: Any = film.add_stream("libx264", 25)
        video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        track: Any = film.add_stream("pcm_u8", RATE, layout="mono")
        film.mux(video.encode(av.VideoFrame.from_ndarray(bars(1), format="bgr24")))
        for second in range(600):
            frame: Any = av.AudioFrame.from_ndarray(np.zeros((1, RATE), np.uint8), "u8", "mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE, second * RATE, Fraction(1, RATE)
            film.mux(track.encode(frame))
        film.mux(video.encode(None))
    assert probe(path, LIMITS).has_audio


@pytest.mark.parametrize("suffix", [".mov", ".mp4"])
def test_a_claim_that_costs_nothing_does_not_count(tmp_path: Path, suffix: str) -> None:
    film = make_film(tmp_path / f"film{suffix}", frames=50, sound="pcm_s16le")
    film.write_bytes(changed(film.read_bytes(), claim))
    assert probe(film, LIMITS).has_audio


def two_units(tables: Tables) -> None:
    tables[b"stts"] = struct.pack(">4I", 0, 1, CLAIM, 2)


def two_entries(tables: Tables) -> None:
    tables[b"stts"] = struct.pack(">6I", 0, 2, CLAIM - 1, 1, 1, 1)


def shifted(tables: Tables) -> None:
    tables[b"ctts"] = struct.pack(">4I", 0, 1, CLAIM, 0)


def another_time_table_where_none_is_read(tables: Tables) -> None:
    tables[b"free"] = box(b"stts", tables[b"stts"])
    two_units(tables)


def no_time_table_where_one_is_read(tables: Tables) -> None:
    tables[b"free"] = box(b"stts", tables.pop(b"stts"))


def a_size_for_each(tables: Tables) -> None:
    tables[b"stsz"] = struct.pack(">3I", 0, 0, CLAIM)


def no_raw_sound(tables: Tables) -> None:
    tables[b"stsd"] = tables[b"stsd"].replace(b"sowt", b"mp4a")


def a_track_inside_the_track(tables: Tables) -> None:
    tables[b"trak"] = b""


def too_much_in_a_chunk(tables: Tables) -> None:
    tables[b"stsc"] = struct.pack(">5I", 0, 1, 1, 2**31, 1)


@pytest.mark.parametrize(
    "bend",
    [
        *(two_units, two_entries, shifted, another_time_table_where_none_is_read),
        *(no_time_table_where_one_is_read, a_size_for_each, no_raw_sound),
        *(a_track_inside_the_track, too_much_in_a_chunk),
    ],
    ids=lambda bend: bend.__name__,
)
def test_a_claim_that_costs_memory_is_refused(tmp_path: Path, bend: Change) -> None:
    film = make_film(tmp_path / "film.mov", frames=50, sound="pcm_s16le")

    def bent(tables: Tables) -> None:
        claim(tables)
        bend(tables)

    film.write_bytes(changed(film.read_bytes(), bent))
    with pytest.raises(MediaError) as told:
        probe(film, LIMITS)
    assert told.value.reason == "too_long"


@pytest.mark.parametrize("handler", [b"vide", b"subp", b"text"])
def test_sound_that_says_it_is_something_else_is_counted(tmp_path: Path, handler: bytes) -> None:
    film = make_film(tmp_path / "film.mov", frames=50, sound="pcm_s16le")
    content = changed(film.read_bytes(), claim)
    film.write_bytes(content.replace(b"mhlrsoun", b"mhlr" + handler))
    with pytest.raises(MediaError) as told:
        probe(film, LIMITS)
    assert told.value.reason == "too_long"


def edited(content: bytes, edits: int) -> bytes:
    def edit(tables: Tables) -> None:
        tables[b"stsz"] = struct.pack(">3I", 0, 4, 60_000)
        tables[b"elst"] = struct.pack(">2I", 0, edits) + struct.pack(">3I", 1, 0, 2**16) * edits

    return changed(content, edit)


def test_edits_that_list_all_samples_again_are_counted(tmp_path: Path) -> None:
    film = make_film(tmp_path / "film.mp4", frames=50, sound="aac")
    whole = film.read_bytes()
    film.write_bytes(edited(whole, 2))
    assert probe(film, LIMITS).has_audio
    film.write_bytes(edited(whole, 200))
    with pytest.raises(MediaError) as told:
        probe(film, LIMITS)
    assert told.value.reason == "too_long"
