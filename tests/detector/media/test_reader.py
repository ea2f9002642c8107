"""Frames of odd films: none lost, doubled or reordered, and the same ones after a bookmark."""

from __future__ import annotations

import shutil
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from detector_service.errors import MediaError
from detector_service.media import Bookmark, Frame, MediaLimits, Reader, probe
from detector_service.media.reader import ALIKE
from tests.detector.films import (
    LIMITS,
    SIZE,
    bars,
    make_film,
    numbers,
    read_bookmarked,
    read_film,
)

B_FRAMES = {"bf": "3", "g": "10"}
OPEN_GOP = {"x264-params": "open-gop=1:keyint=10:bframes=3:b-adapt=0"}
REFRESH = {"x264-params": "intra-refresh=1:keyint=10:bframes=0"}
INTERLACED = {"flags": "+ilme+ildct", "x264-params": "interlaced=1"}
FRAGMENTS = {"movflags": "frag_keyframe+empty_moov"}
VFR = [0, 100, 5000, 90_000, 90_001, 200_000]

FILMS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("film.mp4", {}),
    "b-frames": ("film.mp4", {"options": B_FRAMES}),
    "b-frames in Matroska": ("film.mkv", {"options": B_FRAMES}),
    "b-frames without times": ("film.avi", {"options": B_FRAMES}),
    "open groups": ("film.mp4", {"options": OPEN_GOP}),
    "open groups in a stream": ("film.ts", {"options": OPEN_GOP, "sound": "aac"}),
    "no keyframes but refresh": ("film.mp4", {"options": REFRESH}),
    "hevc": ("film.mp4", {"codec": "libx265", "options": {"x265-params": "log-level=none"}}),
    "vp8": ("film.webm", {"codec": "libvpx"}),
    "vp9": ("film.webm", {"codec": "libvpx-vp9"}),
    "mpeg-4": ("film.avi", {"codec": "mpeg4"}),
    "mpeg-2": ("film.mpg", {"codec": "mpeg2video"}),
    "flash": ("film.flv", {"codec": "flv"}),
    "windows media": ("film.wmv", {"codec": "wmv2"}),
    "fragments": ("film.mp4", {"container": FRAGMENTS, "options": {"g": "10"}}),
    "10 bits": ("film.mp4", {"pix_fmt": "yuv420p10le"}),
    "gray": ("film.mp4", {"pix_fmt": "gray"}),
    "alpha": ("film.mov", {"codec": "qtrle", "pix_fmt": "argb"}),
    "alpha, 10 bits": ("film.mov", {"codec": "prores_ks", "pix_fmt": "yuva444p10le"}),
    "full range": ("film.avi", {"codec": "mjpeg", "pix_fmt": "yuvj420p"}),
    "odd size": ("film.mkv", {"codec": "ffv1", "pix_fmt": "bgr0", "size": (97, 63)}),
    "interlaced": ("film.mp4", {"options": INTERLACED}),
    "turned by 90": ("film.mp4", {"rotation": 90}),
    "turned by 180": ("film.mp4", {"rotation": 180}),
    "turned by 270": ("film.mp4", {"rotation": 270}),
    "oblong pixels": ("film.mp4", {"aspect": Fraction(4, 3)}),
    "uneven times": ("film.mp4", {"ticks": VFR}),
    "late start": ("film.mp4", {"ticks": [at + 900_000 for at in VFR]}),
    "late start in Matroska": ("film.mkv", {"ticks": [90_000 * at for at in (10, 11, 15, 16)]}),
    "one frame": ("film.mp4", {"frames": 1}),
}


def same(one: list[Frame], other: list[Frame]) -> bool:
    return len(one) == len(other) and all(
        (a.index, a.tick) == (b.index, b.tick) and np.array_equal(a.image, b.image)
        for a, b in zip(one, other, strict=True)
    )


SEEKS = ["b-frames", "b-frames in Matroska", "open groups", "no keyframes but refresh"]


@pytest.mark.parametrize("kind", SEEKS)
def test_going_on_far_into_a_film_does_not_read_it_from_the_start(
    kind: str, tmp_path: Path
) -> None:
    name, told = FILMS[kind]
    film = make_film(tmp_path / name, frames=300, size=(48, 32), **told)
    frames, bookmarks = read_bookmarked(film)
    for at in (151, 298):
        packets: list[None] = []
        with Reader(
            film,
            probe(film, LIMITS),
            LIMITS,
            pixels=lambda *_: True,
            after=bookmarks[at],
            on_packet=lambda packets=packets: packets.append(None),
        ) as reader:
            first = next(reader)
            assert ALIKE <= len(packets) < 2 * ALIKE + 50
            assert same([first, *reader], frames[at + 1 :])


@pytest.mark.parametrize("kind", FILMS)
def test_every_frame_comes_once_in_order_and_so_do_those_after_a_bookmark(
    kind: str, tmp_path: Path
) -> None:
    name, told = FILMS[kind]
    film = make_film(tmp_path / name, **told)
    frames, bookmarks = read_bookmarked(film)
    count = len(told.get("ticks", range(told.get("frames", 30))))
    assert numbers(frames) == list(range(count))
    assert [frame.index for frame in frames] == list(range(count))
    assert frames[0].tick == 0
    info = probe(film, LIMITS)
    upright = (info.height, info.width, 3)
    assert all(frame.image is not None and frame.image.shape == upright for frame in frames)
    for at in {0, count // 3, count - 2, count - 1} & set(range(count)):
        assert same(read_film(film, after=bookmarks[at]), frames[at + 1 :])


def test_uneven_times_are_kept_to_the_tick(tmp_path: Path) -> None:
    film = make_film(tmp_path / "film.mp4", ticks=[at + 900_000 for at in VFR])
    assert [frame.tick for frame in read_film(film)] == VFR


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_a_turned_film_is_told_upright(turn: int, tmp_path: Path) -> None:
    told: dict[str, Any] = {"rotation": turn, "aspect": Fraction(4, 3)}
    info = probe(make_film(tmp_path / "film.mp4", **told), LIMITS)
    assert (info.width, info.height, info.rotation) == (*SIZE, turn)
    assert info.sample_aspect_ratio == (Fraction(4, 3) if turn == 180 else Fraction(3, 4))


def test_the_facts_of_a_film_are_told(tmp_path: Path) -> None:
    info = probe(make_film(tmp_path / "film.mp4", frames=25, sound="aac"), LIMITS)
    assert (info.container, info.codec, info.fps, info.frames) == ("mov", "h264", 25.0, 25)
    assert info.duration_s == pytest.approx(1.0)
    assert info.has_audio


def test_a_stream_without_a_length_is_read_all_the_same(tmp_path: Path) -> None:
    film = tmp_path / "film.webm"
    with film.open("wb") as file:
        pipe = OneWay(file)
        write_plain(pipe, "webm", "libvpx")
    info = probe(film, LIMITS)
    assert (info.duration_s, info.frames) == (None, None)
    assert numbers(read_film(film)) == list(range(20))


class OneWay:
    """A file that cannot be rewound, as a recorder's pipe."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, data: bytes) -> int:
        written: int = self._file.write(data)
        return written


def write_plain(file: Any, kind: str, *codecs: str) -> None:
    """Write 20 frames with one video stream a codec; the first shows the numbers."""
    with av.open(file, "w", format=kind) as film:
        streams: list[Any] = [film.add_stream(codec, 25) for codec in codecs]
        for stream in streams:
            stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        for number in range(20):
            for place, stream in enumerate(streams):
                image = bars(number + 1000 * place)
                film.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        for stream in streams:
            film.mux(stream.encode(None))


def test_the_first_of_several_video_streams_is_read(tmp_path: Path) -> None:
    film = tmp_path / "film.mkv"
    write_plain(str(film), "matroska", "libx264", "mpeg4")
    assert numbers(read_film(film)) == list(range(20))


def test_frames_whose_size_changes_come_in_the_first_ones_size(tmp_path: Path) -> None:
    """Two recordings joined byte by byte, as a transport stream may be."""
    one = make_film(tmp_path / "one.ts", frames=10)
    two = make_film(tmp_path / "two.ts", frames=10, size=(192, 128))
    film = tmp_path / "film.ts"
    film.write_bytes(one.read_bytes() + two.read_bytes())
    frames, bookmarks = read_bookmarked(film)
    assert {np.shape(frame.image) for frame in frames} == {(SIZE[1], SIZE[0], 3)}
    assert numbers(frames) == [*range(10), *range(10)]
    assert same(read_film(film, after=bookmarks[14]), frames[15:])


def test_a_static_film_with_times_that_repeat_goes_on_at_the_right_frame(tmp_path: Path) -> None:
    """Joined recordings of a still screen: neither time nor pixels name a frame there."""
    still = [bars(5)] * 10
    part = make_film(tmp_path / "part.ts", frames=10, codec="mpeg2video", pictures=still)
    film = tmp_path / "film.ts"
    film.write_bytes(part.read_bytes() * 3)
    frames, bookmarks = read_bookmarked(film)
    assert len(frames) == 30
    for at in (3, 9, 13, 25):
        assert same(read_film(film, after=bookmarks[at]), frames[at + 1 :])


@pytest.mark.parametrize("name", ["film.mkv", "film.ts", "film.avi", "film.flv"])
def test_a_film_cut_off_in_the_middle_gives_what_is_there(name: str, tmp_path: Path) -> None:
    codec = "flv" if name.endswith("flv") else "mpeg2video"
    film = make_film(tmp_path / name, frames=200, codec=codec)
    film.write_bytes(film.read_bytes()[: film.stat().st_size // 2])
    frames, bookmarks = read_bookmarked(film)
    assert 50 < len(frames) < 150
    assert numbers(frames)[:-1] == list(range(len(frames) - 1))  # the last one may be half there
    assert same(read_film(film, after=bookmarks[3]), frames[4:])


def test_an_mp4_whose_pictures_end_early_gives_those_that_are_there(tmp_path: Path) -> None:
    film = make_film(tmp_path / "film.mp4", frames=200, container={"movflags": "+faststart"})
    film.write_bytes(film.read_bytes()[:-1500])
    frames, _ = read_bookmarked(film)
    assert 50 < len(frames) < 200
    assert numbers(frames)[:-1] == list(range(len(frames) - 1))


@pytest.mark.parametrize(
    "options",
    [{"g": "5"}, *(pytest.param(o, marks=pytest.mark.slow) for o in (B_FRAMES, OPEN_GOP))],
)
def test_damage_is_counted_and_comes_out_the_same_after_a_bookmark(
    options: dict[str, str], tmp_path: Path
) -> None:
    film = make_film(tmp_path / "film.mp4", frames=200, size=(48, 32), options=options)
    content = bytearray(film.read_bytes())
    start = content.index(b"mdat")
    size = int.from_bytes(content[start - 4 : start], "big")
    for at in range(start + size // 4, start + size - 8, size // 12):
        content[at : at + 6] = b"\x55" * 6
    film.write_bytes(content)
    whole, bookmarks = read_bookmarked(film)
    total = errors_of(film)
    assert total > 0
    assert len(whole) > 100
    for at in range(0, len(whole), 11):
        assert same(read_film(film, after=bookmarks[at]), whole[at + 1 :])
    half = len(whole) // 2
    assert errors_of(film, until=half) + errors_of(film, after=bookmarks[half]) == total


def errors_of(film: Path, *, until: int | None = None, after: Bookmark | None = None) -> int:
    info = probe(film, LIMITS)
    with Reader(film, info, LIMITS, pixels=lambda *_: False, after=after) as reader:
        for frame in reader:
            if frame.index == until:
                break
        return reader.decode_errors


def test_pixels_come_only_where_they_are_wanted(tmp_path: Path) -> None:
    film = make_film(tmp_path / "film.mp4", frames=9)
    asked: list[tuple[int, int, int | None]] = []

    def third(index: int, tick: int, previous: int | None) -> bool:
        asked.append((index, tick, previous))
        return index % 3 == 0

    with Reader(film, probe(film, LIMITS), LIMITS, pixels=third) as reader:
        given = [frame.index for frame in reader if frame.image is not None]
    assert given == [0, 3, 6]
    assert asked[:3] == [(0, 0, None), (1, 3600, 0), (2, 7200, 3600)]


def test_after_a_bookmark_the_tick_before_is_still_told(tmp_path: Path) -> None:
    film = make_film(tmp_path / "film.mp4", frames=9)
    _, bookmarks = read_bookmarked(film)
    asked: list[tuple[int, int, int | None]] = []
    with Reader(
        film,
        probe(film, LIMITS),
        LIMITS,
        pixels=lambda *told: asked.append(told) or False,
        after=bookmarks[4],
    ) as reader:
        next(reader)
    assert asked == [(5, 18_000, 14_400)]


def test_another_film_under_the_same_name_is_noticed(tmp_path: Path) -> None:
    film = make_film(tmp_path / "film.mp4")
    _, bookmarks = read_bookmarked(film)
    other = make_film(tmp_path / "other.mp4", pictures=[bars(99)] * 30)
    shutil.copy(other, film)
    with pytest.raises(MediaError, match="changed") as told:
        read_film(film, after=bookmarks[10])
    assert told.value.reason == "changed"


def test_a_bookmark_behind_the_end_is_noticed(tmp_path: Path) -> None:
    film = make_film(tmp_path / "film.mp4")
    _, bookmarks = read_bookmarked(film)
    with pytest.raises(MediaError, match="changed"):
        read_film(film, after=replace(bookmarks[-1], index=500, pts=None))


def test_a_wait_on_the_way_to_a_bookmark_can_be_given_up(tmp_path: Path) -> None:
    film = make_film(tmp_path / "film.avi", codec="mpeg4")
    _, bookmarks = read_bookmarked(film)
    info = probe(film, LIMITS)

    def give_up() -> None:
        raise InterruptedError

    with (
        Reader(
            film, info, LIMITS, pixels=lambda *_: True, after=bookmarks[20], on_packet=give_up
        ) as reader,
        pytest.raises(InterruptedError),
    ):
        next(reader)


def test_more_frames_or_seconds_than_allowed_end_the_reading(tmp_path: Path) -> None:
    film = make_film(tmp_path / "film.mp4")
    info = probe(film, LIMITS)
    for limits in (MediaLimits(10**6, 10, 29), MediaLimits(10**6, 1.15, 1000)):
        with Reader(film, info, limits, pixels=lambda *_: False) as reader:
            with pytest.raises(MediaError) as told:
                list(reader)
            assert told.value.reason == "too_long"


@pytest.mark.slow
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_random_films_go_on_after_random_bookmarks(data: st.DataObject, tmp_path: Path) -> None:
    count = data.draw(st.integers(20, 260))
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    gaps = [int(gap) for gap in random.integers(90, data.draw(st.integers(91, 9000)), count)]
    codec = {
        "bf": str(data.draw(st.integers(0, 4))),
        "g": str(data.draw(st.integers(1, 20))),
        "x264-params": f"open-gop={data.draw(st.integers(0, 1))}:ref=4",
    }
    name = data.draw(st.sampled_from(["film.mp4", "film.mkv", "film.mov", "film.ts"]))
    ticks = [sum(gaps[:at]) for at in range(len(gaps))]
    film = make_film(tmp_path / name, ticks=ticks, options=codec, size=(48, 32))
    frames, bookmarks = read_bookmarked(film)
    assert numbers(frames) == list(range(len(gaps)))
    if name.endswith(("mp4", "mov")):
        assert [frame.tick for frame in frames] == ticks
    for at in data.draw(st.sets(st.integers(0, len(gaps) - 1), min_size=1, max_size=3)):
        assert same(read_film(film, after=bookmarks[at]), frames[at + 1 :])


@pytest.mark.slow
def test_memory_stays_flat_over_a_film_of_many_frames(tmp_path: Path) -> None:
    film = make_film(
        tmp_path / "film.mp4", frames=15_000, size=(64, 48), options={"preset": "ultrafast"}
    )
    limits = replace(LIMITS, max_seconds=3600)
    with Reader(film, probe(film, limits), limits, pixels=lambda *_: True) as reader:
        levels = [resident() for frame in reader if frame.index % 5000 == 4999]
    assert levels[-1] - levels[0] < 8 * 2**20


def resident() -> int:
    """Bytes of memory this process has in use."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
