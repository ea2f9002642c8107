"""What a video job is: its options, its recipe, its states, and what one chunk of it left behind.

Frozen values, used by everything in ``jobs`` and by the routes. Surprise: a job has no field for
"how far". Its chunks say that; whatever was not committed with a chunk did not happen.
"""

from __future__ import annotations

import re
import secrets
from base64 import b32encode
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final, Literal

from pydantic import ConfigDict

from detector_service.media import Bookmark, FilmInfo
from detector_service.screenfilter import Rules

MAX_TRIES: Final = 3  # a video that ends the process this often without a finished chunk is failed

_ID = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?\.[a-z2-7]{26}", re.ASCII)
_SLUG_LENGTH = 40


class State(StrEnum):
    """Where a job is; the last three are final."""

    FETCHING = "fetching"
    QUEUED = "queued"
    RUNNING = "running"
    PARKED = "parked"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Say whether it never changes again."""
        return not MOVES[self]


MOVES: Final[Mapping[State, frozenset[State]]] = {
    # To itself: a fetch is begun.
    State.FETCHING: frozenset({State.FETCHING, State.QUEUED, State.FAILED, State.CANCELLED}),
    State.QUEUED: frozenset({State.RUNNING, State.FAILED, State.CANCELLED}),
    # To itself: started again, after the process ended without a word.
    State.RUNNING: frozenset(
        {State.RUNNING, State.PARKED, State.DONE, State.FAILED, State.CANCELLED}
    ),
    State.PARKED: frozenset({State.RUNNING, State.FAILED, State.CANCELLED}),
    State.DONE: frozenset(),
    State.FAILED: frozenset(),
    State.CANCELLED: frozenset(),
}
"""Every allowed change of state."""


@dataclass(frozen=True)
class Options:
    """What somebody asked for; None: what is in force when the job first starts.

    Attributes:
        mode: ``detect`` looks at every ``frame_stride``-th frame; ``filter`` samples by ``rules``
            and says which segments show the pointer.
        conf: confidence threshold; iou: of NMS; imgsz: side the frames are scaled to, pixels.
        annotate: make an MP4 with the boxes drawn in; None: in detect mode only.
        checksums: give the CRC-32 of the BGR pixels of every frame that was looked at.
        rules: of the filter mode.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    mode: Literal["detect", "filter"] = "detect"
    conf: float | None = None
    iou: float | None = None
    imgsz: int | None = None
    frame_stride: int | None = None
    annotate: bool | None = None
    checksums: bool = False
    rules: Rules = field(default_factory=Rules)

    @property
    def draws(self) -> bool:
        """Say whether an annotated film is made."""
        return self.mode == "detect" if self.annotate is None else self.annotate


@dataclass(frozen=True)
class Recipe:
    """All that shapes the result, fixed when the job first starts and never mixed afterwards.

    Attributes:
        conf: confidence threshold; iou: of NMS; imgsz: pixels; frame_stride: in frames.
        generation: of the settings document it was taken from.
        batch: most frames that go through the model at once.
        chunk_frames: looked-at frames of one chunk, which also ends after 8 times as many decoded.
        preset: of x264; crf: its quality; segments written otherwise cannot be joined.
        model: file name of the weights; version, backend, precision, runtime: see ``ModelInfo``.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    conf: float
    iou: float
    imgsz: int
    frame_stride: int
    generation: int
    batch: int
    chunk_frames: int
    preset: str
    crf: int
    model: str
    version: str
    backend: str
    precision: str
    runtime: str

    @property
    def engine(self) -> tuple[str, str, str, str]:
        """Return what has to be loaded to go on with it."""
        return (self.version, self.backend, self.precision, self.runtime)

    def run_by(self, other: Recipe) -> Recipe:
        """Return the same settings for the model of ``other``."""
        return replace(
            self,
            model=other.model,
            version=other.version,
            backend=other.backend,
            precision=other.precision,
            runtime=other.runtime,
        )


@dataclass(frozen=True)
class Job:
    """One video job as the journal has it; times in seconds since the epoch.

    Attributes:
        seq: order of acceptance.
        reason: a word: why it is parked or failed; words: the same for people.
        origin: where it was fetched from, without secrets; None: it was uploaded.
        url: what to fetch, secrets included; None: nothing (more) to fetch.
        size: bytes of the source; digest: their SHA-256, in hex; both None until it is here.
        tries: starts, of the fetch or the work, since something last went well.
        worked_s: seconds of work whose chunks are committed.
        frames_done: frames in committed chunks.
    """

    seq: int
    id: str
    state: State
    options: Options
    created_at: float
    reason: str | None = None
    words: str | None = None
    origin: str | None = None
    url: str | None = None
    size: int | None = None
    digest: str | None = None
    film: FilmInfo | None = None
    recipe: Recipe | None = None
    started_at: float | None = None
    ended_at: float | None = None
    tries: int = 0
    worked_s: float = 0.0
    frames_done: int = 0


Object = tuple[int, str, float, tuple[float, float, float, float]]


@dataclass(frozen=True)
class Seen:
    """What one frame that was looked at (or took over an answer) gave.

    Attributes:
        tick: time from the start of the film, in ``media.CLOCK`` ticks a second.
        found: class id, class name, confidence (4 decimals), xyxy (2 decimals, pixels of the
            upright frame) of each object; None: the model failed on this frame.
        skipped: near-identical to the last frame looked at, whose answer it took over.
        crc32: of the BGR pixels, where it was asked for.
    """

    index: int
    tick: int
    found: tuple[Object, ...] | None
    skipped: bool = False
    crc32: int | None = None


@dataclass(frozen=True)
class Chunk:
    """A finished part of a film.

    Attributes:
        number: from 1; first_index: of its first frame; frames: how many were decoded (0 only in a
            last chunk).
        bookmark: of its last frame; None: the film has not one frame.
        last: the film ends here.
        decode_errors: damaged places met while reading it.
        seen: of the frames that were due.
    """

    number: int
    first_index: int
    frames: int
    bookmark: Bookmark | None
    last: bool
    decode_errors: int
    seen: tuple[Seen, ...]


def new_id(slug: str) -> str:
    """Return a fresh job id, ``SLUG.RANDOM``: 128 random bits, since who knows it may read it."""
    return f"{slug}.{b32encode(secrets.token_bytes(16)).decode().lower().rstrip('=')}"


def slug_of(instance: str) -> str:
    """Return the part of job ids that names this instance, so that a balancer can route by it."""
    words = re.sub("[^a-z0-9]+", "-", instance.lower())
    return words.strip("-")[:_SLUG_LENGTH].strip("-") or "detector"


def is_id(text: str) -> bool:
    """Say whether ``text`` has the form of a job id; no path is made from anything else."""
    return _ID.fullmatch(text) is not None
