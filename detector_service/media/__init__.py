"""Films: what they are, their frames, boxes on them, and writing them; plain threads, no HTTP.

A film goes ``probe`` -> ``Reader`` -> ``draw`` -> ``SegmentWriter`` (a file a chunk) -> ``join``.
Surprise: every byte read here is a stranger's; ``decoder`` is the only door.
"""

from __future__ import annotations

from detector_service.media.drawing import draw, picture
from detector_service.media.film import CLOCK, Bookmark, FilmInfo, Frame, MediaLimits
from detector_service.media.joining import join
from detector_service.media.probe import probe
from detector_service.media.reader import Reader
from detector_service.media.segments import SegmentWriter

__all__ = [
    "CLOCK",
    "Bookmark",
    "FilmInfo",
    "Frame",
    "MediaLimits",
    "Reader",
    "SegmentWriter",
    "draw",
    "join",
    "picture",
    "probe",
]
