"""Which samples are due, which are near-identical, which segments are kept."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from itertools import pairwise

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector_service.backends import Image
from detector_service.screenfilter import Rules, Sameness, Sample, bridged, due, judge
from detector_service.settings import PACKAGE

CLOCK = 90_000
SAMPLES = PACKAGE / "samples"


def seen(pattern: str, fps: float = 2.0) -> list[Sample]:
    """Return samples from a drawing: ``#`` shows the pointer, ``.`` does not."""
    return [Sample(index / fps, mark == "#") for index, mark in enumerate(pattern)]


def spans(pattern: str, rules: Rules | None = None, **more: float) -> list[tuple[float, float]]:
    judged = judge(seen(pattern), rules or Rules(), **more)
    return [(segment.start_s, segment.end_s) for segment in judged.segments]


def test_a_segment_of_exactly_six_seconds_is_kept_and_one_sample_less_is_too_short() -> None:
    kept = judge(seen("." * 4 + "#" * 12 + "." * 4), Rules())
    assert kept.keep
    assert [(s.start_s, s.end_s, s.samples, s.refusal) for s in kept.segments] == [(2, 8, 12, None)]
    assert (kept.kept_s, kept.cursor_share) == (6.0, 0.6)
    short = judge(seen("." * 4 + "#" * 11 + "." * 4), Rules())
    assert not short.keep
    assert [s.refusal for s in short.rejected] == ["too_short"]


def test_a_gap_is_bridged_when_it_is_shorter_than_two_seconds_and_not_when_it_is_two() -> None:
    assert spans("#" * 12 + "..." + "#" * 12) == [(0.0, 13.5)]
    assert spans("#" * 12 + "...." + "#" * 12) == [(0.0, 6.0), (8.0, 14.0)]


def test_a_share_of_exactly_four_fifths_is_kept_and_less_is_not() -> None:
    enough = judge(seen("####." * 3 + "#"), Rules(min_cursor_share=13 / 16))
    assert [s.cursor_share for s in enough.segments] == [13 / 16]
    fewer = judge(seen("##." * 6 + "#"), Rules())
    assert [s.refusal for s in fewer.rejected] == ["too_few_cursor_frames"]
    assert judge(seen("####." * 3 + "#"), Rules(min_cursor_share=1.0)).keep is False


def test_the_last_sample_lasts_to_the_end_of_the_film() -> None:
    assert spans("#" * 12) == [(0.0, 6.0)]
    assert spans("#" * 12, duration_s=5.9) == []
    assert spans("#" * 12, duration_s=6.2) == [(0.0, 6.2)]
    assert spans("#" * 12, duration_s=1.0) == []  # a header that lies cannot turn time round


def test_a_film_with_no_or_one_sample_is_judged_and_not_kept() -> None:
    nothing = judge([], Rules(), duration_s=3.0)
    assert (nothing.keep, nothing.cursor_share, nothing.sampled) == (False, 0.0, 0)
    one = judge([Sample(0.0, cursor=True, confidence=0.9)], Rules(), duration_s=0.0)
    assert [(s.samples, s.refusal) for s in one.rejected] == [(1, "too_short")]


def test_a_still_picture_that_is_one_long_frame_counts_for_as_long_as_it_is_shown() -> None:
    still = [Sample(0.0, cursor=True), Sample(30.0, cursor=False)]
    assert [(s.start_s, s.end_s) for s in judge(still, Rules(), 31.0).segments] == [(0.0, 30.0)]


def test_times_on_an_awkward_grid_are_compared_as_written() -> None:
    samples = [Sample(6.04 + index * 0.48, cursor=True) for index in range(13)]
    assert judge(samples, Rules(min_segment_s=6.0), 6.04 + 6.0).keep


def test_skipped_samples_count_as_samples_and_are_told() -> None:
    samples = [Sample(i / 2, cursor=True, confidence=0.9, skipped=i % 3 > 0) for i in range(12)]
    judged = judge(samples, Rules())
    assert (judged.keep, judged.sampled, judged.skipped) == (True, 12, 8)


patterns = st.text("#.", max_size=120)
rules = st.builds(
    Rules,
    min_cursor_share=st.floats(0, 1),
    min_segment_s=st.floats(0, 20),
    max_gap_s=st.floats(0, 10),
)


@given(patterns, rules)
def test_segments_are_ordered_disjoint_and_hold_what_they_promise(
    pattern: str, wanted: Rules
) -> None:
    samples = seen(pattern)
    judged = judge(samples, wanted)
    everything = sorted([*judged.segments, *judged.rejected], key=lambda s: s.start_s)
    assert all(one.end_s < other.start_s for one, other in pairwise(everything))
    assert all(other.start_s - one.end_s >= wanted.max_gap_s for one, other in pairwise(everything))
    for segment in judged.segments:
        assert segment.end_s - segment.start_s >= wanted.min_segment_s
        assert wanted.min_cursor_share <= segment.cursor_share <= 1
    for sample in samples:
        if sample.cursor:
            assert any(s.start_s <= sample.time_s < s.end_s for s in everything)
    assert 0 <= judged.cursor_share <= 1
    assert judged.keep == bool(judged.segments)


starts = st.lists(st.integers(0, 10_000), max_size=40, unique=True).map(sorted)


@given(starts, st.floats(0, 50))
def test_bridging_what_is_bridged_changes_nothing(edges: list[int], gap_s: float) -> None:
    pairs = [(a / 100, b / 100) for a, b in zip(edges[::2], edges[1::2], strict=False)]
    once = bridged(pairs, gap_s)
    assert bridged(once, gap_s) == once


@given(
    st.lists(st.integers(1, 40_000), min_size=1, max_size=80),
    st.sampled_from([0.1, 1 / 3, 1.0, 2.0, 5.0, 60.0]),
)
def test_at_most_one_frame_of_each_interval_is_due_and_none_is_passed_over(
    steps: list[int], fps: float
) -> None:
    ticks = [sum(steps[:count]) for count in range(len(steps) + 1)]
    befores: Sequence[int | None] = [None, *ticks]
    taken = [t for t, before in zip(ticks, befores, strict=False) if due(t, before, fps, CLOCK)]
    cells = [int(tick * fps / CLOCK) for tick in taken]
    assert cells == sorted(set(cells))
    assert set(cells) == {int(tick * fps / CLOCK) for tick in ticks}


def test_two_a_second_of_a_film_of_25_frames_a_second_are_due() -> None:
    ticks = [frame * 3600 for frame in range(101)]
    chosen = [
        frame
        for frame, tick in enumerate(ticks)
        if due(tick, ticks[frame - 1] if frame else None, 2.0, CLOCK)
    ]
    assert chosen == [0, 13, 25, 38, 50, 63, 75, 88, 100]


@pytest.fixture(scope="module")
def film() -> list[Image]:
    with av.open(str(SAMPLES / "screen.mp4")) as container:
        return [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]


def encoded_again(frames: Sequence[Image], crf: int) -> list[Image]:
    held = io.BytesIO()
    with av.open(held, "w", format="mp4") as out:
        stream = out.add_stream(
            "libx264", rate=25, options={"crf": str(crf), "preset": "ultrafast"}
        )
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="bgr24")))
        out.mux(stream.encode(None))
    held.seek(0)
    with av.open(held) as container:
        return [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]


def test_a_pointer_that_moved_or_left_in_the_sample_video_is_never_skipped(
    film: list[Image],
) -> None:
    truth = json.loads((SAMPLES / "screen.json").read_text())["frames"]
    moved = 0
    for (one, before), (other, after) in pairwise(zip(truth, film, strict=True)):
        if one["xyxy"] == other["xyxy"] and one["shape"] == other["shape"]:
            continue
        moved += 1
        sameness = Sameness(Rules().skip_below)
        assert sameness.changed(before)
        assert sameness.changed(after), (one, other)
    assert moved > 50


@pytest.mark.parametrize("crf", [23, 35])
def test_the_same_picture_compressed_again_is_skipped(film: list[Image], crf: int) -> None:
    frames = [film[index] for index in (0, 40, 80) for _ in range(25)]
    again = encoded_again(frames, crf)[::12]  # two samples a second, of 25 frames
    sameness = Sameness(Rules().skip_below)
    assert [sameness.changed(image) for image in again] == [
        index in {0, 3, 5} for index in range(7)
    ]


def screen(*, pointer: tuple[int, int] | None = None, size: tuple[int, int] = (480, 270)) -> Image:
    image = np.full((size[1], size[0], 3), 250, np.uint8)
    if pointer is not None:
        x, y = pointer
        image[y : y + 19, x : x + 12] = 0
        image[y + 1 : y + 18, x + 1 : x + 11] = 255  # a white pointer on a white page: its outline
    return image


def test_a_white_pointer_on_a_white_page_is_seen_to_come_move_and_leave() -> None:
    sameness = Sameness(Rules().skip_below)
    assert sameness.changed(screen())
    assert sameness.changed(screen(pointer=(100, 100)))
    assert not sameness.changed(screen(pointer=(100, 100)))
    assert sameness.changed(screen(pointer=(140, 100)))
    assert sameness.changed(screen())


def test_a_slow_fade_is_noticed_since_the_reference_is_what_was_looked_at() -> None:
    sameness = Sameness(8.0)
    looked = [sameness.changed(np.full((64, 64, 3), level, np.uint8)) for level in range(0, 40, 2)]
    assert looked == [level % 8 == 0 for level in range(0, 40, 2)]


def test_a_threshold_of_zero_looks_at_every_sample_and_a_new_chunk_at_its_first() -> None:
    every = Sameness(0.0)
    assert [every.changed(screen()) for _ in range(3)] == [True, True, True]
    assert [Sameness(255.0).changed(screen()) for _ in range(2)] == [True, True]


def test_pictures_smaller_than_a_block_or_of_another_size_are_compared_or_looked_at() -> None:
    sameness = Sameness(8.0)
    tiny = np.zeros((3, 5, 3), np.uint8)
    assert sameness.changed(tiny)
    assert not sameness.changed(tiny)
    assert sameness.changed(screen())
