"""A detector that sees the number of each frame, films to show it, and what came of them.

A frame lost, doubled or out of order shows in the result (its box is where its number says) and
in the annotated film (its bars can be read there).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from detector_service.backends import Detection, Image, Pass
from detector_service.errors import InferenceError
from detector_service.jobs import Desk, Options, State, View
from detector_service.jobs.incoming import Arrived
from detector_service.media import probe
from tests.detector.films import LIMITS, make_film, number, numbers, read_film
from tests.detector.toys import Running, ToyBackend, is_canary, running, until

QUICK: dict[str, Any] = {"chunk_frames": 8, "batch_size": 4}


@dataclass
class BarReader(ToyBackend):
    """Finds one object, where the number that a frame shows says.

    It fails on frames that show one of ``poison``, and finds nothing on those of ``hides``. After
    ``passes`` it comes to a halt until ``gate`` is opened.
    """

    seen: list[int] = field(default_factory=list)
    hides: frozenset[int] = frozenset()
    poison: frozenset[int] = frozenset()
    passes: int | None = None

    def infer(self, images: Sequence[Image], *, conf: float, iou: float, imgsz: int) -> Pass:
        if any(number(image) in self.poison for image in images if not is_canary(image)):
            raise InferenceError("the model failed: poison")
        if len(self.calls) == self.passes:
            self.gate.clear()
        return super().infer(images, conf=conf, iou=iou, imgsz=imgsz)

    def _see(self, image: Image, conf: float) -> tuple[Detection, ...]:
        if is_canary(image):
            return super()._see(image, conf)
        shown = number(image)
        self.seen.append(shown)
        if shown in self.hides:
            return ()
        return (Detection(0, "cursor", 0.5 + shown / 8192, box_of(shown)),)


def box_of(shown: int) -> tuple[float, float, float, float]:
    return (shown % 60 + shown / 1000, 4.0, shown % 60 + 20.0, 30.0)


@asynccontextmanager
async def cinema(folder: Path, **told: Any) -> AsyncIterator[Running]:
    backend = told.pop("backend", None) or BarReader()
    async with running(folder, backend=backend, **{**QUICK, **told}) as detector:
        yield detector


async def submit(
    desk: Desk, film: Path, options: Options | None = None, key: str | None = None
) -> tuple[View, bool]:
    data = await asyncio.to_thread(film.read_bytes)
    draft = await desk.admit(len(data), key)
    draft.path.write_bytes(data)
    arrived = Arrived(len(data), sha256(data).hexdigest())
    info = await asyncio.to_thread(probe, draft.path, LIMITS)
    return await desk.accept(draft, arrived, info, options or Options(), key)


async def ended(desk: Desk, name: str) -> View:
    async with asyncio.timeout(30):
        async for seen in desk.watch(name):
            last = seen
    assert last.job.state.final
    return last


async def done(desk: Desk, name: str) -> View:
    seen = await ended(desk, name)
    assert seen.job.state is State.DONE, seen.job.words
    return seen


async def result_of(desk: Desk, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(b"".join(await desk.result(name)))
    return found


async def shown_in(desk: Desk, name: str) -> list[int]:
    """Return the numbers that the annotated film shows, frame by frame."""
    return numbers(read_film(await desk.annotated(name)))


async def worked_off(
    folder: Path, film: Path, options: Options | None = None, **told: Any
) -> tuple[dict[str, Any], bytes | None]:
    """Return the result (without the id) and the annotated film of an uninterrupted run."""
    async with cinema(folder, **told) as detector:
        seen, _ = await submit(detector.parts.desk, film, options)
        return await harvest(detector.parts.desk, seen.job.id)


async def harvest(desk: Desk, name: str) -> tuple[dict[str, Any], bytes | None]:
    await done(desk, name)
    found = await result_of(desk, name)
    assert found.pop("job") == name
    draws = found["mode"] == "detect"
    return found, (await desk.annotated(name)).read_bytes() if draws else None


__all__ = [
    "QUICK",
    "BarReader",
    "box_of",
    "cinema",
    "done",
    "ended",
    "harvest",
    "make_film",
    "result_of",
    "shown_in",
    "submit",
    "until",
    "worked_off",
]
