"""Damaged films: what can be read is read, the rest is a reason; only the disk's errors go on."""

from __future__ import annotations

import errno
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detector_service.errors import MediaError
from detector_service.media import CLOCK, SegmentWriter, join
from detector_service.media.decoder import Decoder, Source
from tests.detector.films import bars, make_film, read_film

FORMATS: dict[str, dict[str, Any]] = {
    "mp4": {"sound": "aac"},
    "mov": {"sound": "pcm_s16le", "codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "mkv": {"sound": "pcm_s16le"},
    "webm": {"sound": "libopus", "codec": "libvpx"},
    "avi": {"sound": "pcm_s16le", "codec": "mpeg4"},
    "ts": {"sound": "mp2"},
    "flv": {"sound": "libmp3lame", "codec": "flv"},
    "wmv": {"sound": "libmp3lame", "codec": "wmv2"},
}
REASONS = {
    "not_a_video",
    "no_video_stream",
    "no_frames",
    "too_many_pixels",
    "too_long",
    "undecodable",
}
HEADER = 2000
EXTREMES = (bytes(4), b"\xff" * 4, b"\x7f" + b"\xff" * 3, b"\0\0\0\1")


def outcome(film: Path) -> str:
    try:
        return "frames" if read_film(film) else "nothing"
    except MediaError as exc:
        return exc.reason


def damaged(whole: bytes, random: np.random.Generator) -> bytes:
    """Return a film with some bytes changed, lost, added or made extreme; half in its header."""
    content = bytearray(whole)
    for _ in range(random.choice((1, 2, 5, 20, 100))):
        end = len(content) if random.random() < 0.5 else min(HEADER, len(content))
        at, kind = int(random.integers(end)), random.random()
        if kind < 0.7:
            content[at] = random.integers(256)
        elif kind < 0.85:
            content[at : at + random.integers(64)] = random.bytes(int(random.integers(64)))
        else:
            content[at : at + 4] = EXTREMES[random.integers(len(EXTREMES))]
    return bytes(content)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_damaged_film_ends_in_frames_or_a_reason(suffix: str, tmp_path: Path) -> None:
    read_damaged(suffix, tmp_path, films=8)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", FORMATS)
def test_many_damaged_films_end_in_frames_or_a_reason_and_are_joined(
    suffix: str, tmp_path: Path
) -> None:
    read_damaged(suffix, tmp_path, films=60, joins=True)


def read_damaged(
    suffix: str, folder: Path, *, films: int, joins: bool = False, seed: int = 1
) -> None:
    whole = make_film(folder / f"whole.{suffix}", frames=12, **FORMATS[suffix]).read_bytes()
    segment, film, random = one_second(folder), folder / suffix, np.random.default_rng(seed)
    for _ in range(films):
        film.write_bytes(damaged(whole, random))
        found = outcome(film)
        assert found in REASONS | {"frames"}
        if joins:
            assert join([segment], film, folder / "out.mp4")


def one_second(folder: Path) -> Path:
    path = folder / "segment.mp4"
    writer = SegmentWriter(
        path, width=96, height=64, sample_aspect_ratio=None, preset="ultrafast", crf=23
    )
    for at in range(25):
        writer.add(bars(at), at * CLOCK // 25)
    writer.close()
    return path


def test_a_header_that_points_outside_the_file_is_damage(tmp_path: Path) -> None:
    film = make_film(tmp_path / "film.wmv", frames=3, codec="wmv2")
    whole = film.read_bytes()
    for at in range(30, 50):  # sizes of the header's objects
        film.write_bytes(whole[:at] + b"\xff" * 8 + whole[at + 8 :])
        assert outcome(film) in REASONS | {"frames"}


@pytest.mark.parametrize(
    ("suffix", "codec", "sound", "header"),
    [("flv", "flv", "libmp3lame", 13), ("ts", "mpeg4", "mp2", 0)],
)
def test_sound_that_begins_late_costs_no_frame(
    suffix: str, codec: str, sound: str, header: int, tmp_path: Path
) -> None:
    """FFmpeg looks for streams at the beginning of a film only."""
    silent = make_film(tmp_path / f"silent.{suffix}", frames=150, codec=codec)
    loud = make_film(tmp_path / f"loud.{suffix}", frames=25, codec=codec, sound=sound)
    film = tmp_path / "film"
    film.write_bytes(silent.read_bytes() + loud.read_bytes()[header:])
    for _ in range(3):
        assert len(read_film(film)) == 175
    assert join([one_second(tmp_path)], film, tmp_path / "out.mp4")


def test_a_disk_that_fails_is_no_end_of_the_film(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    film = make_film(tmp_path / "film.mkv", frames=50, size=(640, 480), codec="ffv1")

    def read(source: Source, size: int = -1) -> bytes:
        if source.tell() > film.stat().st_size // 2:
            raise OSError(errno.EIO, "the disk fails")
        return io.FileIO.read(source, size)

    monkeypatch.setattr(Source, "read", read, raising=False)
    with Decoder(film, max_pixels=10**6) as decoder:
        frames = decoder.frames()
        assert next(frames)
        with pytest.raises(OSError, match="the disk fails"):
            list(frames)
