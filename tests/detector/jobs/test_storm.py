"""Whatever is asked in whatever order, through restarts: every film ends, whole or not at all."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from detector_service.errors import RefusedError
from detector_service.jobs import Desk, Options, State
from tests.detector.jobs.cinema import cinema, make_film, result_of, shown_in, submit, until
from tests.detector.toys import Running

pytestmark = pytest.mark.slow

ACTOR = {"owner": "somebody", "reason": "a test"}
FRAMES = 60
MOST = 25
WISHES = (Options(), Options(mode="filter"), Options(frame_stride=5))


class Storm:
    """Somebody who asks for everything, by luck."""

    def __init__(self, film: Path, seed: int) -> None:
        self._film = film
        self._luck = random.Random(seed)
        self._names: list[str] = []

    async def rage(self, detector: Running, steps: int) -> None:
        asks: list[Callable[[Running], Awaitable[Any]]] = [
            *(self._send, self._send, self._cancel, self._delete),
            *(self._drain, calm, self._ceiling, Running.detect),
        ]
        for _ in range(steps):
            with suppress(RefusedError):
                await self._luck.choice(asks)(detector)
            await detector.parts.desk._register.something()

    async def _send(self, detector: Running) -> None:
        if len(self._names) < MOST:
            seen, _ = await submit(detector.parts.desk, self._film, self._luck.choice(WISHES))
            self._names.append(seen.job.id)

    async def _cancel(self, detector: Running) -> None:
        await detector.parts.desk.cancel(self._luck.choice(self._names or ["x"]))

    async def _delete(self, detector: Running) -> None:
        await detector.parts.desk.delete(self._luck.choice(self._names or ["x"]))

    async def _drain(self, detector: Running) -> None:
        await detector.client.post("/v1/drain", json=ACTOR)

    async def _ceiling(self, detector: Running) -> None:
        await detector.patch({"max_concurrency": self._luck.choice([1, 2, 5])})


async def calm(detector: Running) -> None:
    await detector.client.request("DELETE", "/v1/drain", json=ACTOR)


async def test_after_a_storm_every_film_is_whole_and_nothing_is_left_over(tmp_path: Path) -> None:
    storm = Storm(make_film(tmp_path / "film.mp4", frames=FRAMES), seed=1)
    told: dict[str, Any] = {"video_workers": 3, "max_concurrency": 2, "adaptive": False}
    for _ in range(2):
        async with cinema(tmp_path, **told) as detector:
            await storm.rage(detector, 40)
    async with cinema(tmp_path, **told) as detector:
        desk = detector.parts.desk
        await calm(detector)
        await until(lambda: not len(desk._register) and not desk._register.hands, within_s=60)
        assert detector.parts.limiter.running == 0
        await check(desk)


async def check(desk: Desk) -> None:
    kept, whole = set(), 0
    for seen in await desk.listing():
        assert seen.job.state in {State.DONE, State.CANCELLED}, seen.job.words
        if seen.job.state is State.DONE:
            whole += 1
            result = await result_of(desk, seen.job.id)
            assert result["totals"]["frames"] == FRAMES
            if seen.job.options.draws:
                kept.add(seen.job.id)
                assert await shown_in(desk, seen.job.id) == list(range(FRAMES))
    assert {path.name for path in desk._shelf.folder.iterdir()} == kept
    assert whole >= 3, "a storm that lets nothing through proves nothing"
