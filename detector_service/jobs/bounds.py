"""How much video is taken on; told by ``app`` from the settings."""

from __future__ import annotations

from dataclasses import dataclass

from detector_service.media import MediaLimits


@dataclass(frozen=True)
class Bounds:
    """How much is taken on, and how films are encoded.

    Attributes:
        workers: videos worked on at once.
        queue: jobs that have not ended, uploads on their way included.
        max_bytes: of one film.
        store_bytes: of all files of all jobs, beyond which no new one is taken.
        keep_s: seconds an ended job is kept.
        chunk_frames: looked-at frames in a chunk.
        preset: of x264; crf: its quality.
    """

    workers: int
    queue: int
    max_bytes: int
    store_bytes: int
    keep_s: float
    chunk_frames: int
    media: MediaLimits
    preset: str
    crf: int
