"""The result of a job as JSON: summed up when it is done, streamed from its chunks when asked.

Numbers were rounded when they were kept, and nothing of the clock on the wall is in it: the same
film with the same settings gives the same bytes, whatever happened on the way.
Surprise: what comes first in the document is known last, so it is summed once, kept with the end
of the job, and a result of any length then takes the memory of one chunk.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from typing import Any, Final

from detector_service.errors import RefusedError
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


def summed(job: Job, journal: Journal) -> str:
    """Return ``totals`` and, in filter mode, ``filter`` of a film that was worked off, as JSON."""
    totals, samples = _Totals(), list[Sample]()
    for chunk in journal.chunks(job):
        totals.add(chunk)
        if job.options.mode == "filter":
            samples += _samples(chunk, job.options.rules.cursor_class)
    found: dict[str, Any] = {"totals": totals.shown()}
    if job.options.mode == "filter":
        found["filter"] = asdict(judge(samples, job.options.rules, _lasts(job, samples)))
    return _dump(found).decode()


def stream(job: Job, summary: str, journal: Journal) -> Iterator[bytes]:
    """Yield the JSON document of a job that is done, in pieces.

    Its fields: ``job``, ``mode``, ``film``, ``model``, ``settings`` (with the generation),
    ``totals`` (``confidence``: per class the objects in ten bins of 0.1), in filter mode
    ``filter``, and ``frames``, each with ``index``, ``time_s`` and ``detections``.

    Raises:
        RefusedError: 404, the job was deleted meanwhile; a document that broke off must not parse.
    """
    # Spliced, since it may be long: a film cut into very many segments.
    yield b"".join([_dump(_head(job))[:-1], b",", summary.encode()[1:-1], b',"frames":['])
    comma, left = b"", job.frames_done
    for chunk in journal.chunks(job):
        if chunk.seen:
            yield comma + b",".join(_dump(frame(job, seen)) for seen in chunk.seen)
            comma = b","
        left -= chunk.frames
    if left:
        words = "the video was deleted while its result was sent"
        raise RefusedError(404, "not_found", words)
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
