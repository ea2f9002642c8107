"""What is told of a film before it is read: its rate."""

from __future__ import annotations

from pathlib import Path

import pytest

from detector_service.media import CLOCK, probe
from tests.detector.films import LIMITS, make_film

SLOW = [round(at * CLOCK / 6.4) for at in range(60)]


@pytest.mark.parametrize("suffix", [".mkv", ".webm", ".ts"])
def test_a_rate_that_the_frames_do_not_come_at_is_not_told(tmp_path: Path, suffix: str) -> None:
    codec = "libvpx" if suffix == ".webm" else "libx264"
    info = probe(make_film(tmp_path / f"film{suffix}", ticks=SLOW, codec=codec), LIMITS)
    assert (info.fps, info.frames) == (None, None)
    assert info.duration_s == pytest.approx(60 / 6.4, abs=0.2)


def test_counted_frames_tell_the_rate(tmp_path: Path) -> None:
    info = probe(make_film(tmp_path / "film.mp4", ticks=SLOW), LIMITS)
    assert (info.fps, info.frames) == (pytest.approx(6.4, abs=0.1), 60)


@pytest.mark.parametrize("suffix", [".mkv", ".ts", ".avi", ".flv", ".wmv"])
@pytest.mark.parametrize("frames", [6, 100])
def test_a_steady_rate_is_told_by_every_container(tmp_path: Path, suffix: str, frames: int) -> None:
    codec = {".avi": "mpeg4", ".flv": "flv", ".wmv": "wmv2"}.get(suffix, "libx264")
    info = probe(make_film(tmp_path / f"film{suffix}", frames=frames, codec=codec), LIMITS)
    assert info.fps == 25
    assert info.frames == pytest.approx(frames, abs=2)
