"""Which stretches of a film show a mouse pointer: the keep decision of the filter mode, no IO.

Called by ``jobs``. After ScreenFilter of VideoAgentTrek (arXiv 2510.19488), which gathers screen
recordings out of web videos: a frame or two a second is looked at, stretches of at least 6 s with
the pointer in at least 80 % of their frames are kept, and gaps of less than 2 s are bridged.
Surprise: "nothing changed" is judged by the block that changed most, not by the mean difference of
the whole frame as the original's code does (below 10 grey levels: skip). A pointer is about 0.1 %
of the pixels: in the sample video the mean of no two neighbouring frames differs by more than 1.5
grey levels, so the original would look once and then skip a pointer that moves, or leaves.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from detector_service.backends import Image

TOO_SHORT = "too_short"
TOO_FEW_CURSOR_FRAMES = "too_few_cursor_frames"

# Pixels; less than the smallest common pointer (about 12 x 19), so that one lies over much of some
# block wherever it is.
BLOCK = 8
# Lengths are compared in whole microseconds: 12.04 - 6.04 must be 6.
DECIMALS = 6


@dataclass(frozen=True)
class Rules:
    """What is looked at, and what is kept.

    Attributes:
        sample_fps: frames looked at per second; the first frame in each such interval.
        min_cursor_share: least share of a segment's samples that show the pointer; equal is enough.
        min_segment_s: least length of a segment; equal is enough.
        max_gap_s: stretches without the pointer that are shorter than this are bridged; equal is
            not.
        skip_below: a sample whose blocks all changed by less than this (grey levels, 0 to 255)
            takes over the answer of the last one looked at; 0: look at every sample. In the sample
            video the faintest move of the pointer changes some block by 8. The same picture half a
            second later changes by 0 to 3, seldom 10 (x264, three presets, crf 18 to 28): it is
            then looked at for nothing, which is the harmless side.
        cursor_class: name of the class that is the pointer.
    """

    sample_fps: float = 2.0
    min_cursor_share: float = 0.8
    min_segment_s: float = 6.0
    max_gap_s: float = 2.0
    skip_below: float = 6.0
    cursor_class: str = "cursor"


@dataclass(frozen=True, slots=True)
class Sample:
    """One frame that was due; it stands for the time until the next sample.

    Attributes:
        time_s: seconds from the start of the film.
        cursor: the pointer was found.
        confidence: of the surest pointer; None without one.
        skipped: near-identical to the last frame that was looked at, whose answer it took over.
    """

    time_s: float
    cursor: bool
    confidence: float | None = None
    skipped: bool = False


@dataclass(frozen=True)
class Segment:
    """A stretch that begins and ends with the pointer in view; times in seconds.

    Attributes:
        cursor_share: share of its samples that show the pointer, 0 to 1.
        samples: how many samples it has.
        refusal: ``too_short`` or ``too_few_cursor_frames``; None: it is kept.
    """

    start_s: float
    end_s: float
    cursor_share: float
    samples: int
    refusal: str | None = None


@dataclass(frozen=True)
class Judgement:
    """What came of a film.

    Attributes:
        keep: at least one segment is kept.
        cursor_share: share of all samples that show the pointer, 0 to 1; 0 without samples.
        segments: those kept, in order.
        rejected: those that are not, in order, each with its ``refusal``.
        sampled: how many samples there are.
        skipped: how many of them took over an answer.
        kept_s: seconds in ``segments``.
        rules: what it was judged by.
    """

    keep: bool
    cursor_share: float
    segments: tuple[Segment, ...]
    rejected: tuple[Segment, ...]
    sampled: int
    skipped: int
    kept_s: float
    rules: Rules


Span = tuple[float, float]


def due(tick: int, previous_tick: int | None, sample_fps: float, clock: int) -> bool:
    """Say whether the frame at ``tick`` is the next sample.

    It is when it is the first frame of its interval of ``1 / sample_fps`` seconds, so two
    neighbouring frames decide it and a film that is resumed gets the same samples.

    Args:
        tick: time of the frame, in ticks from the start of the film.
        previous_tick: of the frame before it, looked at or not; None: there is none.
        sample_fps: samples wanted per second; more than there are frames means every frame.
        clock: ticks per second.
    """
    if previous_tick is None:
        return True
    return _interval(tick, sample_fps, clock) > _interval(previous_tick, sample_fps, clock)


def judge(samples: Sequence[Sample], rules: Rules, duration_s: float | None = None) -> Judgement:
    """Find the segments and decide.

    Args:
        samples: in order of time.
        rules: what is wanted.
        duration_s: length of the film, to which the last sample lasts; None: it is not known, the
            last sample lasts ``1 / sample_fps``.
    """
    times = [sample.time_s for sample in samples]
    found: list[Segment] = []
    for start, end in bridged(_sightings(samples, rules, duration_s), rules.max_gap_s):
        first = bisect_left(times, start)
        # A film may end with the very frame that is its last sample.
        last = max(bisect_left(times, end), first + 1)
        found.append(_segment((start, end), samples[first:last], rules))
    kept = tuple(segment for segment in found if segment.refusal is None)
    return Judgement(
        keep=bool(kept),
        cursor_share=_share(samples),
        segments=kept,
        rejected=tuple(segment for segment in found if segment.refusal is not None),
        sampled=len(samples),
        skipped=sum(sample.skipped for sample in samples),
        kept_s=round(sum(segment.end_s - segment.start_s for segment in kept), DECIMALS),
        rules=rules,
    )


def bridged(spans: Sequence[Span], max_gap_s: float) -> list[Span]:
    """Join spans (start, end; in order) with less than ``max_gap_s`` seconds between them.

    Spans that touch are joined whatever ``max_gap_s`` is.
    """
    joined: list[Span] = []
    for start, end in spans:
        gap = round(start - joined[-1][1], DECIMALS) if joined else math.inf
        if gap <= 0 or gap < max_gap_s:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined


class Sameness:
    """Tells near-identical samples, so that they need not go through the model.

    The reference is the last sample that was looked at, not the last sample: a slow fade cannot
    creep past it. A chunk of a film starts with a new one, whose first answer is always True:
    chunks are worked off independently, and after a restart again.
    """

    def __init__(self, skip_below: float) -> None:
        """Call a picture the same while every block changed by less than ``skip_below``."""
        self._skip_below = skip_below
        self._reference: npt.NDArray[np.int16] | None = None

    def changed(self, image: Image) -> bool:
        """Say whether ``image`` has to be looked at; if so, it is what the next is compared to."""
        blocks = _blocks(image)
        before = self._reference
        if before is not None and before.shape == blocks.shape:
            most = int(np.abs(blocks - before).max())
            if most < self._skip_below:
                return False
        self._reference = blocks
        return True


def _interval(tick: int, sample_fps: float, clock: int) -> int:
    return math.floor(tick * sample_fps / clock)


def _sightings(samples: Sequence[Sample], rules: Rules, duration_s: float | None) -> list[Span]:
    if not samples:
        return []
    last = samples[-1].time_s
    end = last + 1 / rules.sample_fps if duration_s is None else max(duration_s, last)
    ends = [*(sample.time_s for sample in samples[1:]), end]
    return [
        (sample.time_s, until) for sample, until in zip(samples, ends, strict=True) if sample.cursor
    ]


def _segment(span: Span, inside: Sequence[Sample], rules: Rules) -> Segment:
    start, end = span
    share = _share(inside)
    refusal = None
    if round(end - start, DECIMALS) < rules.min_segment_s:
        refusal = TOO_SHORT
    elif share < rules.min_cursor_share:
        refusal = TOO_FEW_CURSOR_FRAMES
    return Segment(start, end, share, len(inside), refusal)


def _share(samples: Sequence[Sample]) -> float:
    return sum(sample.cursor for sample in samples) / len(samples) if samples else 0.0


def _blocks(image: Image) -> npt.NDArray[np.int16]:
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    height, width = grey.shape
    size = (max(width // BLOCK, 1), max(height // BLOCK, 1))
    means = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    return np.asarray(means, dtype=np.int16)
