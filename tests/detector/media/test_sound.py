"""Sound laid without a hole: gaps are silence, overlaps are cut, a restarted clock goes on."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from detector_service.media import probe
from detector_service.media.sound import RATE, Piece, _contiguous, opened_sound
from tests.detector.films import LIMITS, bars

END = Fraction(3)


def piece(at_s: float | None, seconds: float, level: float = 1.0) -> Piece:
    count = round(seconds * RATE)
    return None if at_s is None else round(at_s * RATE), np.full((1, count), level, np.float32)


def laid(*pieces: Piece, end: Fraction = END) -> np.ndarray:
    """Return the samples as they come out; each frame begins where the one before ended."""
    out, at = [], 0
    for frame in _contiguous(iter(pieces), "mono", end):
        assert frame.pts == at
        at += frame.samples
        out.append(frame.to_ndarray()[0])
    return np.concatenate(out) if out else np.zeros(0)


def seconds(samples: np.ndarray) -> float:
    return len(samples) / RATE


def test_what_follows_is_left_alone() -> None:
    assert seconds(laid(piece(0, 0.5), piece(0.5, 0.5), piece(None, 0.5))) == 1.5


def test_a_gap_is_filled_with_silence() -> None:
    sound = laid(piece(0, 0.5), piece(1.5, 0.5))
    assert seconds(sound) == 2
    assert not sound[RATE // 2 : 3 * RATE // 2].any()


def test_a_late_start_begins_with_silence() -> None:
    sound = laid(piece(0.05, 0.5))
    assert np.argmax(sound > 0) == round(0.05 * RATE)


def test_what_lies_before_the_film_is_cut() -> None:
    assert seconds(laid(piece(-10, 0.5), piece(-0.25, 0.5))) == 0.25


def test_what_lies_behind_the_film_is_cut() -> None:
    assert seconds(laid(piece(0, 2), piece(2, 5))) == 3


def test_a_small_drift_is_let_be() -> None:
    assert seconds(laid(piece(0, 0.5), piece(0.52, 0.5), piece(0.98, 0.5))) == 1.5


def test_an_overlap_is_cut() -> None:
    assert seconds(laid(piece(0, 1), piece(0.5, 1))) == 1.5


def test_a_clock_that_restarts_goes_on() -> None:
    assert seconds(laid(piece(0, 0.9), piece(0.9, 0.9), piece(0, 0.5), piece(0.5, 0.5))) == 2.8


def test_a_gap_of_years_ends_with_the_film() -> None:
    def pieces() -> Iterator[Piece]:
        yield piece(0, 0.5)
        yield piece(1e9, 0.5)
        raise AssertionError("read on after the end")

    sound = np.concatenate([f.to_ndarray()[0] for f in _contiguous(pieces(), "mono", END)])
    assert seconds(sound) == 3


def raw_film(path: Path, rate: int, count: int, channels: str = "mono") -> Path:
    """A frame, and raw sound of ``count`` samples in one packet."""
    with av.open(str(path), "w") as film:
        video = film.add_stream("mpeg4", 25)
        video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        track = film.add_stream("pcm_s16le", rate, layout=channels)
        film.mux(video.encode(av.VideoFrame.from_ndarray(bars(1), format="bgr24")))
        film.mux(video.encode(None))
        shape = (1, count * track.codec_context.layout.nb_channels)
        frame = av.AudioFrame.from_ndarray(np.zeros(shape, np.int16), "s16", channels)
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        film.mux(track.encode(frame))
        film.mux(track.encode(None))
    return path


@pytest.mark.parametrize(
    ("rate", "channels", "kept"),
    [
        (1, "mono", False),
        (3999, "mono", False),
        (4000, "mono", True),
        (384_000, "7.1", True),
        (384_001, "mono", False),
        (8000, "22.2", False),
    ],
)
def test_sound_of_a_rate_or_width_that_none_has_is_no_sound(
    rate: int, channels: str, *, kept: bool, tmp_path: Path
) -> None:
    film = raw_film(tmp_path / "film.mkv", rate, 200, channels)
    assert probe(film, LIMITS).has_audio == kept
    with opened_sound(film, lambda: True) as sound:
        assert (sound is not None) == kept


@pytest.mark.parametrize(("seconds_long", "heard"), [(60, True), (61, False)])
def test_a_frame_of_minutes_is_damage(seconds_long: int, *, heard: bool, tmp_path: Path) -> None:
    film = raw_film(tmp_path / "film.mkv", 4000, 4000 * seconds_long)
    with opened_sound(film, lambda: True) as sound:
        assert sound is not None
        assert any(True for _ in sound._pieces("mono")) == heard
