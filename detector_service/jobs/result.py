"""The result of a finished job as JSON, streamed from its chunks; called by the routes.

Numbers were rounded when they were kept, and nothing of the clock on the wall is in it: the same
film with the same settings gives the same bytes, whatever happened on the way.
Surprise: the chunks are read twice, first for the totals, which come first in the document, and
then for the frames; so a film of any length takes the memory of one chunk.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from typing import Any, Final

from detector_service.jobs.journal import Journal
from detector_service.jobs.video import Chunk, Job, Seen
from detector_service.media import CLOCK
from detector_service.screenfilter import Sample, judge

BINS: Final = 10
DIGITS: Final = 6  # microseconds


@dataclass
class _Totals:
    """What is summed over all chunks."""

    frames: int = 0
    looked: int = 0
    skipped: int = 0
    detections: int = 0
    failed_frames: int = 0
    decode_errors: int = 0
    objects: Counter[str] = field(default_factory=Counter)
    confidence: dict[str, list[int]] = field(default_factory=dict)

    def add(self, chunk: Chunk) -> None:
        self.frames += chunk.frames
        self.decode_errors += chunk.decode_errors
        for seen in chunk.seen:
            self._look(seen)

    def _look(self, seen: Seen) -> None:
        """Count a frame; what it took over from another is counted like its own."""
        self.looked += not seen.skipped
        self.skipped += seen.skipped
        self.failed_frames += seen.found is None
        for _, name, confidence, _ in seen.found or ():
            self.detections += 1
            self.objects[name] += 1
            bins = self.confidence.setdefault(name, [0] * BINS)
            bins[min(int(confidence * BINS), BINS - 1)] += 1

    def shown(self) -> dict[str, Any]:
        return {
            "frames": self.frames,
            "looked": self.looked,
            "skipped": self.skipped,
            "failed_frames": self.failed_frames,
            "decode_errors": self.decode_errors,
            "detections": self.detections,
            "objects": dict(sorted(self.objects.items())),
            "confidence": dict(sorted(self.confidence.items())),
        }


def stream(job: Job, journal: Journal) -> Iterator[bytes]:
    """Yield the JSON document of a job that is done, in pieces.

    Its fields: ``job``, ``mode``, ``film``, ``model``, ``settings`` (with the generation),
    ``totals`` (``confidence``: per class the objects in ten bins of 0.1), in filter mode
    ``filter``, and ``frames``, each with ``index``, ``time_s`` and ``detections``.
    """
    totals, samples = _Totals(), list[Sample]()
    for chunk in journal.chunks(job):
        totals.add(chunk)
        if job.options.mode == "filter":
            samples += _samples(chunk, job.options.rules.cursor_class)
    head = _head(job) | {"totals": totals.shown()}
    if job.options.mode == "filter":
        rules = job.options.rules
        head["filter"] = asdict(judge(samples, rules, _lasts(job, samples)))
    yield _dump(head)[:-1] + b',"frames":['
    comma = b""
    for chunk in journal.chunks(job):
        if chunk.seen:
            yield comma + b",".join(_dump(frame(job, seen)) for seen in chunk.seen)
            comma = b","
    yield b"]}"


def frame(job: Job, seen: Seen) -> dict[str, Any]:
    """Return what the result says of one frame."""
    shown: dict[str, Any] = {"index": seen.index, "time_s": time_s(seen.tick)}
    if seen.crc32 is not None:
        shown["crc32"] = seen.crc32
    if seen.skipped:
        shown["skipped"] = True
    if seen.found is None:
        return shown | {"failed": True, "detections": []}
    if job.options.mode == "filter":
        shown["cursor"] = any(name == job.options.rules.cursor_class for _, name, *_ in seen.found)
    detections = [
        {"class_id": number, "class_name": name, "confidence": confidence, "xyxy": xyxy}
        for number, name, confidence, xyxy in seen.found
    ]
    return shown | {"detections": detections}


def time_s(tick: int) -> float:
    """Return seconds from the start of the film."""
    return round(tick / CLOCK, DIGITS)


def _samples(chunk: Chunk, cursor_class: str) -> Iterator[Sample]:
    """Yield what is known; a frame on which the model failed says nothing about the pointer."""
    for seen in chunk.seen:
        if seen.found is not None:
            sure = [score for _, name, score, _ in seen.found if name == cursor_class]
            best = max(sure, default=None)
            yield Sample(time_s(seen.tick), best is not None, best, seen.skipped)


def _lasts(job: Job, samples: Sequence[Sample]) -> float | None:
    """Return when the film ends; nothing is claimed of what a header promised and no frame showed.

    A download that broke off keeps the header of the whole film.
    """
    if not samples or job.film is None or job.film.duration_s is None:
        return None
    return min(job.film.duration_s, samples[-1].time_s + 1 / job.options.rules.sample_fps)


def _head(job: Job) -> dict[str, Any]:
    recipe = None if job.recipe is None else asdict(job.recipe)
    names = ("conf", "iou", "imgsz", "frame_stride", "generation")
    engine = ("model", "version", "backend", "precision", "runtime")
    return {
        "job": job.id,
        "mode": job.options.mode,
        "film": None if job.film is None else asdict(job.film),
        "source": {"size": job.size, "sha256": job.digest},
        "model": recipe and {name: recipe[name] for name in engine},
        "settings": recipe and {name: recipe[name] for name in names},
    }


def _dump(value: object) -> bytes:
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, default=_plain)
    return text.encode()


def _plain(value: object) -> str:
    if isinstance(value, Fraction):
        return f"{value.numerator}:{value.denominator}"
    raise TypeError(f"{type(value).__name__} has no place in a result")
