"""Segments and the joined film: every frame at its time, the same bytes twice, sound in step."""

from __future__ import annotations

import errno
import logging
import os
import resource
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from detector_service.backends import Image
from detector_service.errors import MediaError
from detector_service.media import CLOCK, SegmentWriter, join, probe
from tests.detector.films import (
    LIMITS,
    SIZE,
    bars,
    make_film,
    number,
    numbers,
    read_film,
    sound_times,
)

VFR = [0, 100, 5000, 90_000, 90_001, 200_000, 203_000, 290_000, 290_090]


def write(
    folder: Path,
    ticks: Sequence[int],
    images: Sequence[Image] | None = None,
    *,
    chunk: int = 4,
    **told: Any,
) -> list[Path]:
    """Write segments of ``chunk`` frames each."""
    pictures = images or [bars(at) for at in range(len(ticks))]
    height, width = pictures[0].shape[:2]
    settings = {"sample_aspect_ratio": None, "preset": "ultrafast", "crf": 23, **told}
    paths = []
    for first in range(0, len(ticks), chunk):
        path = folder / f"{first:06}.mp4"
        writer = SegmentWriter(path, width=width, height=height, **settings)
        for at in range(first, min(first + chunk, len(ticks))):
            writer.add(pictures[at], ticks[at])
        writer.close()
        paths.append(path)
    return paths


def joined(folder: Path, source: Path, ticks: Sequence[int], **told: Any) -> Path:
    out = folder / "out.mp4"
    join(write(folder, ticks, **told), source, out)
    assert not out.with_name("out.mp4.part").exists()
    return out


@pytest.fixture
def silent(tmp_path: Path) -> Path:
    return make_film(tmp_path / "silent.mp4", frames=3)


def test_every_frame_is_in_the_joined_film_at_its_tick(tmp_path: Path, silent: Path) -> None:
    frames = read_film(joined(tmp_path, silent, VFR))
    assert [frame.tick for frame in frames] == VFR
    assert numbers(frames) == list(range(len(VFR)))


def test_a_first_frame_later_than_zero_and_one_frame_chunks_are_kept(
    tmp_path: Path, silent: Path
) -> None:
    film = joined(tmp_path, silent, [7, 3607, 90_000], chunk=1)
    with av.open(str(film)) as opened:
        stream = opened.streams.video[0]
        assert [frame.pts for frame in opened.decode(stream)] == [7, 3607, 90_000]
        assert stream.time_base == Fraction(1, CLOCK)


def test_the_last_frame_lasts_as_long_as_the_one_before(tmp_path: Path, silent: Path) -> None:
    info = probe(joined(tmp_path, silent, [0, 9000, 18_000]), LIMITS)
    assert info.duration_s == pytest.approx(0.3)


def test_the_same_images_give_the_same_bytes(tmp_path: Path, silent: Path) -> None:
    random = np.random.default_rng(7)
    images = [random.integers(0, 256, (160, 240, 3), np.uint8) for _ in range(12)]
    ticks = [at * 3000 for at in range(12)]
    films = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        films.append(joined(tmp_path / name, silent, ticks, images=images).read_bytes())
    assert films[0] == films[1]


def test_browsers_get_what_they_play(tmp_path: Path, silent: Path) -> None:
    film = joined(tmp_path, silent, VFR, sample_aspect_ratio=Fraction(4, 3))
    content = film.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")
    assert b"avc1" in content
    with av.open(str(film)) as opened:
        codec = opened.streams.video[0].codec_context
        assert (codec.pix_fmt, codec.has_b_frames) == ("yuv420p", False)
        assert (codec.colorspace, codec.color_primaries, codec.color_trc) == (1, 1, 1)
        assert codec.color_range == av.video.reformatter.ColorRange.MPEG
        assert opened.streams.video[0].sample_aspect_ratio == Fraction(4, 3)


def test_every_segment_starts_with_a_keyframe(tmp_path: Path, silent: Path) -> None:
    with av.open(str(joined(tmp_path, silent, VFR, chunk=3))) as opened:
        keys = [packet.is_keyframe for packet in opened.demux(video=0) if packet.size]
    assert keys == [True, False, False] * 3


@pytest.mark.parametrize("colour", [(0, 0, 255), (0, 255, 0), (255, 0, 0), (128, 128, 128)])
def test_colours_survive(colour: tuple[int, int, int], tmp_path: Path, silent: Path) -> None:
    images = [np.full((64, 96, 3), colour, np.uint8)] * 2
    (first, _) = read_film(joined(tmp_path, silent, [0, 3000], images=images, crf=5))
    assert first.image is not None
    assert np.abs(first.image[32, 48].astype(int) - colour).max() <= 6


def test_odd_sizes_are_padded_and_nothing_moves(tmp_path: Path, silent: Path) -> None:
    image = bars(1365, (97, 63))
    (first, _) = read_film(joined(tmp_path, silent, [0, 3000], images=[image] * 2, crf=5))
    assert first.image is not None
    assert first.image.shape == (64, 98, 3)
    assert np.abs(first.image[:63, :97].astype(int) - image).mean() < 3
    assert number(first.image[:63, :97]) == 1365


def test_segments_of_other_settings_are_not_joined(tmp_path: Path, silent: Path) -> None:
    segments = write(tmp_path, [0, 3000], preset="medium", chunk=1)
    (tmp_path / "other").mkdir()
    segments += write(tmp_path / "other", [6000], preset="ultrafast")
    with pytest.raises(MediaError) as told:
        join(segments, silent, tmp_path / "out.mp4")
    assert told.value.reason == "segments"
    assert not (tmp_path / "out.mp4").exists()


def test_a_damaged_segment_is_named(tmp_path: Path, silent: Path) -> None:
    segments = write(tmp_path, VFR)
    segments[1].write_bytes(b"nothing")
    with pytest.raises(MediaError, match=segments[1].name):
        join(segments, silent, tmp_path / "out.mp4")


SOUNDS = [
    ("film.mp4", "aac", "aac"),
    ("film.mkv", "libopus", "opus"),
    ("film.mkv", "pcm_s16le", "aac"),
    *(
        pytest.param(*told, marks=pytest.mark.slow)
        for told in (
            ("film.ts", "aac", "aac"),
            ("film.mkv", "flac", "flac"),
            ("film.mkv", "libmp3lame", "mp3float"),
            ("film.mkv", "ac3", "aac"),
            ("film.avi", "libmp3lame", "mp3float"),
        )
    ),
]
STEADY = [at * 3600 for at in range(75)]


@pytest.mark.parametrize(("name", "codec", "kept"), SOUNDS)
def test_sound_is_kept_in_step(name: str, codec: str, kept: str, tmp_path: Path) -> None:
    late = 0 if name.endswith("avi") else 900_000
    source = make_film(
        tmp_path / name,
        ticks=[late + at for at in STEADY],
        codec="mpeg4" if name.endswith("avi") else "libx264",
        sound=codec,
        sound_s=(late / CLOCK, late / CLOCK + 2.5),
    )
    film = joined(tmp_path, source, STEADY, chunk=25)
    assert numbers(read_film(film)) == list(range(75))
    with av.open(str(film)) as opened:
        assert opened.streams.audio[0].codec_context.name == kept
    heard = [at - late / CLOCK for at in sound_times(source)]
    assert len(heard) == 3
    assert sound_times(film) == pytest.approx(heard, abs=0.03)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("codec", "span_s", "heard"),
    [
        ("aac", (0.0, 5.0), [0, 1, 2]),
        ("aac", (0.0, 0.5), [0]),
        ("aac", (1.0, 3.0), [1, 2]),
        ("pcm_s16le", (0.0, 5.0), [0, 1, 2]),
        ("pcm_s16le", (0.0, 0.5), [0]),
        ("pcm_s16le", (1.0, 3.0), [1, 2]),
    ],
)
def test_sound_longer_shorter_or_later_than_the_film_stays_in_step(
    codec: str, span_s: tuple[float, float], heard: list[int], tmp_path: Path
) -> None:
    source = make_film(tmp_path / "film.mkv", ticks=STEADY, sound=codec, sound_s=span_s)
    film = joined(tmp_path, source, STEADY, chunk=40)
    before_end = [at for at in sound_times(film) if at < 2.95]  # a last block may reach over it
    assert before_end == pytest.approx(heard, abs=0.03)
    assert (probe(film, LIMITS).duration_s or 0) < 3.2


def test_broken_sound_costs_the_sound_and_not_the_film(
    tmp_path: Path, silent: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "broken").write_bytes(b"no film any more")
    with caplog.at_level(logging.WARNING):
        film = joined(tmp_path, tmp_path / "broken", VFR)
    assert numbers(read_film(film)) == list(range(len(VFR)))
    assert "without its sound" in caplog.text


def test_damaged_sound_keeps_what_can_be_heard(tmp_path: Path) -> None:
    source = make_film(tmp_path / "film.mkv", ticks=STEADY, sound="ac3", sound_s=(0, 3))
    content = bytearray(source.read_bytes())
    for at in range(len(content) // 2, len(content) - 400, 999):
        content[at : at + 40] = b"\x99" * 40
    source.write_bytes(content)
    film = joined(tmp_path, source, STEADY)
    assert numbers(read_film(film)) == list(range(75))
    assert sound_times(film)[:1] == pytest.approx([0], abs=0.06)


def test_a_film_without_sound_stays_without(tmp_path: Path, silent: Path) -> None:
    assert not probe(joined(tmp_path, silent, VFR), LIMITS).has_audio


@pytest.mark.parametrize("codec", [None, "aac", "pcm_s16le"])
def test_a_film_no_longer_wanted_is_left_at_once_and_without_a_trace(
    codec: str | None, tmp_path: Path
) -> None:
    source = make_film(tmp_path / "film.mkv", ticks=STEADY, sound=codec, sound_s=(0, 3))
    segments = write(tmp_path, STEADY, chunk=25)
    before, answers = (
        sorted(tmp_path.iterdir()),
        chain(repeat(object=True, times=9), repeat(object=False)),
    )
    assert not join(segments, source, tmp_path / "out.mp4", lambda: next(answers))
    assert sorted(tmp_path.iterdir()) == before
    assert join(segments, source, tmp_path / "out.mp4")


def test_a_segment_given_up_leaves_no_open_file(tmp_path: Path) -> None:
    path = tmp_path / "segment.mp4"
    settings = {"sample_aspect_ratio": None, "preset": "ultrafast", "crf": 23}
    for frames in (0, 1):
        writer = SegmentWriter(path, width=SIZE[0], height=SIZE[1], **settings)
        for at in range(frames):
            writer.add(bars(at), at)
        writer.abandon()
        open_files = [os.path.realpath(each) for each in Path("/proc/self/fd").iterdir()]
        assert str(path.resolve()) not in open_files


def write_large(path: Path) -> None:
    settings = {"sample_aspect_ratio": None, "preset": "ultrafast", "crf": 0}
    writer = SegmentWriter(path, width=320, height=240, **settings)
    random = np.random.default_rng(1)
    try:
        for at in range(20):
            writer.add(random.integers(0, 256, (240, 320, 3), np.uint8), at)
        writer.close()
    finally:
        writer.abandon()


@pytest.fixture
def little_room() -> Iterator[None]:
    """No file may grow over 20 kB; Python has the signal ignored, so the write fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("little_room")
def test_a_full_disk_is_told_as_such(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="too large") as told:
        write_large(tmp_path / "segment.mp4")
    assert told.value.errno == errno.EFBIG


def test_a_size_that_h264_has_not_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="20000x16") as told:
        write(tmp_path, [0], [np.zeros((16, 20_000, 3), np.uint8)])
    assert told.value.reason == "unencodable"


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 1), (16, 16)])
def test_the_smallest_films_are_written(
    size: tuple[int, int], tmp_path: Path, silent: Path
) -> None:
    images = [np.full((size[1], size[0], 3), 99, np.uint8)] * 2
    assert len(read_film(joined(tmp_path, silent, [0, 3000], images=images))) == 2


@pytest.mark.slow
def test_4k_is_written_and_read(tmp_path: Path, silent: Path) -> None:
    images = [bars(at, (3840, 2160)) for at in range(2)]
    film = joined(tmp_path, silent, [0, 3000], images=images)
    assert numbers(read_film(film, limits=replace(LIMITS, max_pixels=10_000_000))) == [0, 1]
