"""Is it still seeing? A known image goes through the device thread, and its box must come back.

Run by ``app`` at start and every few seconds, and by ``POST /v1/canary``. It uses thresholds and
an image size of its own: it proves the model and the device, not what somebody has set.
Surprise: a model without the canary's class is looked at all the same (the pass warms it up and
proves the device), but is neither good nor bad: ``ok`` is None and the series stays absent.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, ValidationError

from detector_service.backends import Image, decode
from detector_service.batcher import Batcher, Priority, Work
from detector_service.errors import InferenceError, RefusedError, StartError
from detector_service.telemetry import Telemetry

CONF = 0.25
NMS_IOU = 0.7
IMGSZ = 640
MIN_IOU = 0.5
PATIENCE_S = 30.0
MAX_PIXELS = 10_000_000

Box = tuple[float, float, float, float]


class _Truth(BaseModel):
    class_name: str
    xyxy: Annotated[list[float], Field(min_length=4, max_length=4)]


@dataclass(frozen=True)
class Sample:
    """The known image, what is on it, and where."""

    image: Image
    class_name: str
    box: Box


@dataclass(frozen=True)
class Sighting:
    """What one look gave; ``ok`` and ``iou`` are None when the model has no such class."""

    ok: bool | None
    iou: float | None
    seconds: float | None


def read_sample(folder: Path) -> Sample:
    """Read ``canary.png`` and ``canary.json``.

    Raises:
        StartError: one is missing or damaged.
    """
    try:
        truth = _Truth.model_validate_json((folder / "canary.json").read_bytes())
        image = decode((folder / "canary.png").read_bytes(), max_pixels=MAX_PIXELS)
    except (OSError, ValidationError, RefusedError) as exc:
        words = " ".join(str(exc).split())
        raise StartError(f"cannot read the canary in {folder}: {words}") from exc
    x0, y0, x1, y1 = truth.xyxy
    return Sample(image, truth.class_name, (x0, y0, x1, y1))


class Canary:
    """Looks at the sample through the batcher, and remembers the last sighting."""

    def __init__(
        self, batcher: Batcher, sample: Sample, telemetry: Telemetry, now: Callable[[], float]
    ) -> None:
        """Prepare; ``now`` is seconds since the epoch."""
        self._batcher = batcher
        self._sample = sample
        self._telemetry = telemetry
        self._now = now
        self.last: Sighting | None = None

    async def look(self) -> Sighting:
        """Look once, ahead of all waiting frames; never raises for what the model does."""
        started = time.monotonic()
        work = Work(self._sample.image, CONF, NMS_IOU, IMGSZ, priority=Priority.CANARY)
        try:
            async with asyncio.timeout(PATIENCE_S):
                answer = await self._batcher.infer(work)
        except (InferenceError, TimeoutError):
            return self._note(Sighting(self._verdict(0.0), 0.0, None))
        boxes = [
            item.xyxy for item in answer.detections if item.class_name == self._sample.class_name
        ]
        best = max((overlap(box, self._sample.box) for box in boxes), default=0.0)
        seconds = time.monotonic() - started
        return self._note(Sighting(self._verdict(best), best, seconds))

    def _verdict(self, iou: float) -> bool | None:
        opened = self._batcher.opened
        if not opened.done() or opened.exception() is not None:
            return False
        applies = self._sample.class_name in opened.result().classes.values()
        return iou > MIN_IOU if applies else None

    def _note(self, seen: Sighting) -> Sighting:
        if seen.ok is None:
            seen = Sighting(None, None, seen.seconds)
        else:
            self._telemetry.note_canary(ok=seen.ok, iou=seen.iou or 0.0, at=self._now())
        self.last = seen
        return seen


def overlap(one: Box, other: Box) -> float:
    """Return intersection over union of two boxes, 0 to 1."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(width, 0.0) * max(height, 0.0)
    union = _area(one) + _area(other) - shared
    return shared / union if union > 0 else 0.0


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])
