"""A film cut into chunks and groups: which frames are looked at, what goes through at once.

Used by the pipeline's decoding thread. A chunk begins with a frame that is due and has nothing to
do with the one before; a group is the frames that are in memory, and in a pass, together.
Surprise: everything is decided by the frames alone, never by time or load, so that a film that
was interrupted is cut exactly as one that was not; equal cuts are equal passes are equal floats.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from detector_service.backends import Image
from detector_service.jobs.journal import Tail
from detector_service.jobs.video import Options, Recipe
from detector_service.media import CLOCK, Bookmark, FilmInfo, Frame, Reader
from detector_service.screenfilter import Sameness, due

DECODED_PER_LOOK: Final = 8  # a chunk of a film that is rarely looked at ends after so many frames
HELD_BYTES: Final = 64 * 2**20  # pixels of one group; some six groups exist at once
GROUP_FRAMES: Final = 1024  # where few are looked at; enough to fill a batch at 2 of 30 a second
CHANNELS: Final = 3


@dataclass(frozen=True)
class Still:
    """One frame in a group.

    Attributes:
        image: its pixels, None where nobody needs them.
        due: it belongs in the result.
        look: it goes through the model; a frame that is due and does not is near-identical to the
            last one that did.
        crc32: of its pixels, where asked for.
    """

    index: int
    tick: int
    image: Image | None
    due: bool
    look: bool
    crc32: int | None


@dataclass(frozen=True)
class ChunkEnd:
    """What is known where a chunk ends; ``bookmark`` is None in the last one, which needs none."""

    bookmark: Bookmark | None
    last: bool
    decode_errors: int


@dataclass(frozen=True)
class Group:
    """Frames in order; ``end`` where they are the last of their chunk."""

    frames: tuple[Still, ...]
    end: ChunkEnd | None = None


class Cutter:
    """Cuts one film, from wherever it stands."""

    def __init__(self, info: FilmInfo, options: Options, recipe: Recipe, tail: Tail) -> None:
        """Cut what comes after ``tail``."""
        self._options = options
        self._recipe = recipe
        self._previous = None if tail.bookmark is None else tail.bookmark.tick
        held = HELD_BYTES // (info.width * info.height * CHANNELS)
        self._held = min(2 * recipe.batch, max(held, 1))
        self._looks = min(recipe.batch, self._held)
        self._stills: list[Still] = []
        self._group_looks = self._group_held = 0
        self._errors = 0
        self._begin()

    def wants(self, index: int, tick: int, previous: int | None) -> bool:
        """Say whether the pixels of a frame are needed; asked by the reader."""
        return self._options.draws or self._is_due(index, tick, previous)

    def groups(self, reader: Reader, frames: Iterator[Frame]) -> Iterator[Group]:
        """Yield the groups, the last of which ends the film; ``frames`` come from ``reader``."""
        end: ChunkEnd | None = None
        for frame in frames:
            is_due = self._is_due(frame.index, frame.tick, self._previous)
            if is_due and end is not None:
                yield self._group(end)
                self._begin()
            elif self._full:
                yield self._group(None)
            self._add(frame, is_due=is_due)
            self._previous = frame.tick
            end = self._end(reader, last=False) if self._may_end(frame.index) else None
        yield self._group(self._end(reader, last=True))

    def _begin(self) -> None:
        self._decoded = self._looked = 0
        self._sameness = Sameness(self._options.rules.skip_below)

    def _add(self, frame: Frame, *, is_due: bool) -> None:
        look, crc32 = is_due, None
        if is_due and frame.image is not None:
            if self._options.mode == "filter":
                look = self._sameness.changed(frame.image)
            if self._options.checksums:
                crc32 = zlib.crc32(frame.image.data)
        image = frame.image if look or self._options.draws else None
        self._stills.append(Still(frame.index, frame.tick, image, is_due, look, crc32))
        self._decoded += 1
        self._looked += look
        self._group_looks += look
        self._group_held += image is not None

    @property
    def _full(self) -> bool:
        return (
            self._group_looks >= self._looks
            or self._group_held >= self._held
            or len(self._stills) >= GROUP_FRAMES
        )

    def _may_end(self, index: int) -> bool:
        """Say whether the chunk may end behind this frame, if the next one is due."""
        enough = self._recipe.chunk_frames
        if self._looked < enough and self._decoded < enough * DECODED_PER_LOOK:
            return False
        # Bookmarks cost a conversion: none where it is known that the next frame is not due.
        return self._options.mode == "filter" or (index + 1) % self._recipe.frame_stride == 0

    def _end(self, reader: Reader, *, last: bool) -> ChunkEnd:
        return ChunkEnd(
            None if last else reader.bookmark(), last, reader.decode_errors - self._errors
        )

    def _group(self, end: ChunkEnd | None) -> Group:
        frames, self._stills = tuple(self._stills), []
        self._group_looks = self._group_held = 0
        self._errors += end.decode_errors if end else 0
        return Group(frames, end)

    def _is_due(self, index: int, tick: int, previous: int | None) -> bool:
        if self._options.mode == "detect":
            return index % self._recipe.frame_stride == 0
        return due(tick, previous, self._options.rules.sample_fps, CLOCK)
