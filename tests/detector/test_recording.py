"""A real screen is filmed, and the service says what was on it; the film's script is the truth.

A sample is taken every half second, so a segment may begin and end one sample late or early, and
one more for a pointer that the weights miss at its edge: `TOLERANCE_S`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from tests.browser import NAMES
from tests.detector.moviegoer import Moviegoer
from tests.detector.recording import (
    COMES_AND_GOES,
    FPS,
    NEVER_COMES,
    Film,
    Programs,
    busy_screen,
    film,
)
from tests.detector.test_real import process

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("recording"), pytest.mark.timeout(300)]

Span = tuple[float, float]

SIZE = (960, 540)
KEPT = ((0.0, 10.0), (23.0, 36.0))
TOO_SHORT = (15.0, 18.0)
TOLERANCE_S = 1.0
# The box is the visible arrow, whose tip is the hot spot; the weights place it to a few pixels.
NEAR_PX = 12
STRIDE = 3


@pytest.fixture(scope="module")
def films(
    daemon: Callable[..., str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Film, Film]:
    """Film the same screen twice: the pointer comes and goes, and it never comes."""
    programs = Programs(daemon("Xvfb"), daemon("xdotool"), daemon("xterm"), daemon(*NAMES))
    folder = tmp_path_factory.mktemp("recording")
    with busy_screen(programs, SIZE, folder / "home") as screen:
        seen = film(screen, folder / "seen.mp4", COMES_AND_GOES)
        return seen, film(screen, folder / "unseen.mp4", NEVER_COMES)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moviegoer]:
    state = tmp_path_factory.mktemp("detector")
    with process(state, imgsz=640, torch_threads=2) as detector:
        detector.wait_until_ready()
        with Moviegoer(detector.url) as client:
            yield client


def test_the_segments_are_those_in_which_the_pointer_was_on_the_screen(
    films: tuple[Film, Film], client: Moviegoer
) -> None:
    seen, _ = films
    judged = client.show(seen.path, mode="filter").result["filter"]
    assert judged["keep"] is True
    kept, refused = spans(judged["segments"]), spans(judged["rejected"])
    assert edges(kept) == pytest.approx(edges(KEPT), abs=TOLERANCE_S)
    assert edges(refused) == pytest.approx(edges([TOO_SHORT]), abs=TOLERANCE_S)
    assert judged["rejected"][0]["refusal"] == "too_short"
    assert judged["sampled"] == 72
    assert judged["skipped"] > 0, "the screen rests now and then, which costs no inference"
    assert f1(kept, KEPT, seen.duration_s) > 0.95


def test_a_recording_without_a_pointer_is_not_kept(
    films: tuple[Film, Film], client: Moviegoer
) -> None:
    _, unseen = films
    judged = client.show(unseen.path, mode="filter").result["filter"]
    assert judged["keep"] is False
    assert judged["segments"] == []
    assert judged["cursor_share"] < 0.2


def test_every_box_of_a_film_is_where_the_pointer_was_in_that_very_frame(
    films: tuple[Film, Film], client: Moviegoer
) -> None:
    seen, _ = films
    shown = client.show(seen.path, mode="detect", frame_stride=STRIDE, annotate=False)
    frames = shown.result["frames"]
    told = range(0, len(seen.pointer), STRIDE)
    assert [frame["index"] for frame in frames] == list(told)
    times = [frame["time_s"] for frame in frames]
    assert times == pytest.approx([number / FPS for number in told], abs=0.001)
    looks = [(frame, seen.pointer[frame["index"]]) for frame in frames]
    hits = [on(frame, at) for frame, at in looks if at]
    assert sum(hits) / len(hits) > 0.9
    strays = [bool(frame["detections"]) for frame, at in looks if at is None]
    assert sum(strays) / len(strays) < 0.05


def on(frame: dict[str, Any], at: tuple[int, int]) -> bool:
    """Say whether the surest box of a frame has its upper left corner at a point."""
    boxes = sorted(frame["detections"], key=lambda item: item["confidence"])
    return bool(boxes) and boxes[-1]["xyxy"][:2] == pytest.approx(at, abs=NEAR_PX)


def spans(segments: Sequence[dict[str, Any]]) -> list[Span]:
    return [(item["start_s"], item["end_s"]) for item in segments]


def edges(kept: Sequence[Span]) -> list[float]:
    return [edge for span in kept for edge in span]


def f1(found: Sequence[Span], truth: Sequence[Span], duration_s: float) -> float:
    """Return the F1 score of the kept time, in tenths of a second."""

    def tenths(kept: Sequence[Span]) -> set[int]:
        return {n for n in range(round(duration_s * 10)) if any(a <= n / 10 < b for a, b in kept)}

    mine, wanted = tenths(found), tenths(truth)
    return 2 * len(mine & wanted) / (len(mine) + len(wanted))
