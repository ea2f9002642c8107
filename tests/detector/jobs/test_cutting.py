"""How a film is cut: the same from any bookmark, in bounded groups, at frames that are due."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from detector_service.jobs import Options
from detector_service.jobs.cutting import GROUP_FRAMES, HELD_BYTES, Cutter, Group
from detector_service.jobs.journal import Tail
from detector_service.jobs.video import Recipe
from detector_service.media import CLOCK, Bookmark, FilmInfo, Frame, Reader
from detector_service.screenfilter import Rules
from tests.detector.films import bars
from tests.detector.jobs.test_journal import FILM, RECIPE


class FakeReader:
    """Frames without a film."""

    def __init__(self, ticks: list[int], cutter: Cutter, after: int) -> None:
        self._ticks, self._cutter, self._after = ticks, cutter, after
        self._here = after
        self.decode_errors = 0

    def __iter__(self) -> Iterator[Frame]:
        for index in range(self._after + 1, len(self._ticks)):
            self._here = index
            previous = self._ticks[index - 1] if index else None
            wanted = self._cutter.wants(index, self._ticks[index], previous)
            # Some of them near-identical to the one before.
            yield Frame(index, self._ticks[index], bars(index // 3 * 8) if wanted else None)

    def bookmark(self) -> Bookmark:
        return Bookmark(self._here, self._ticks[self._here], None, "")


def cut(
    ticks: list[int], options: Options, recipe: Recipe, tail: Tail, info: FilmInfo = FILM
) -> list[Group]:
    cutter = Cutter(info, options, recipe, tail)
    after = -1 if tail.bookmark is None else tail.bookmark.index
    reader = cast("Reader", FakeReader(ticks, cutter, after))
    return list(cutter.groups(reader, iter(reader)))


def told(groups: list[Group]) -> list[Any]:
    return [
        ([(still.index, still.due, still.look, still.crc32) for still in group.frames], group.end)
        for group in groups
    ]


OPTIONS = st.one_of(
    st.builds(
        Options,
        annotate=st.sampled_from([None, False]),
        checksums=st.booleans(),
    ),
    st.builds(
        Options,
        mode=st.just("filter"),
        annotate=st.sampled_from([None, True]),
        rules=st.builds(Rules, sample_fps=st.sampled_from([0.1, 1.0, 2.0, 60.0])),
    ),
)


@settings(max_examples=40, deadline=None)
@given(
    steps=st.lists(st.sampled_from([1, 3600, 7200, 90_000]), min_size=1, max_size=80),
    options=OPTIONS,
    stride=st.integers(1, 12),
    batch=st.integers(1, 5),
    chunk_frames=st.integers(1, 6),
)
def test_from_any_bookmark_it_is_cut_as_without_one(
    steps: list[int], options: Options, stride: int, batch: int, chunk_frames: int
) -> None:
    ticks = [int(tick) for tick in np.cumsum([0, *steps])]
    recipe = replace(RECIPE, frame_stride=stride, batch=batch, chunk_frames=chunk_frames)
    whole = cut(ticks, options, recipe, Tail())
    assert [still.index for group in whole for still in group.frames] == list(range(len(ticks)))
    assert [group.end.last for group in whole if group.end] == [False] * (
        sum(group.end is not None for group in whole) - 1
    ) + [True]
    for at, group in enumerate(whole):
        assert sum(still.look for still in group.frames) <= batch
        assert sum(still.image is not None for still in group.frames) <= 2 * batch
        if group.end is None or group.end.bookmark is None:
            continue
        frames = group.frames[-1].index + 1
        assert whole[at + 1].frames[0].due, "a chunk begins with a frame that is looked at"
        tail = Tail(1, frames, group.end.bookmark, last=False)
        assert told(cut(ticks, options, recipe, tail)) == told(whole[at + 1 :])


def test_groups_of_large_pictures_are_small() -> None:
    info = replace(FILM, width=3840, height=2160)
    ticks = [index * CLOCK // 30 for index in range(30)]
    groups = cut(ticks, Options(), replace(RECIPE, batch=64, chunk_frames=30), Tail(), info)
    most = max(len(group.frames) for group in groups)
    assert most * 3840 * 2160 * 3 <= HELD_BYTES


def test_a_film_that_is_rarely_looked_at_ends_its_chunks_all_the_same() -> None:
    ticks = [index * CLOCK // 30 for index in range(1000)]
    recipe = replace(RECIPE, frame_stride=30, chunk_frames=8)
    ends = [group.end for group in cut(ticks, Options(), recipe, Tail()) if group.end]
    lengths = [end.bookmark.index + 1 for end in ends if end.bookmark]
    assert lengths == list(range(90, 1000, 90))


def test_a_film_that_is_rarely_looked_at_comes_in_groups_of_bounded_length() -> None:
    options = Options(mode="filter", rules=Rules(sample_fps=0.01))
    ticks = [index * 300 for index in range(3000)]
    groups = cut(ticks, options, RECIPE, Tail())
    assert max(len(group.frames) for group in groups) == GROUP_FRAMES
    assert sum(len(group.frames) for group in groups) == len(ticks)
