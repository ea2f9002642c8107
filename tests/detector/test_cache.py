"""``POST /v1/cache/clear``: between passes, told in figures, and a fresh start for full batches."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from detector_service.backends import Memory
from tests.detector.toys import LETHAL, Running, ToyBackend, running, until

ASKED = {"owner": "controller", "reason": "memory grows"}


class Hoarder(ToyBackend):
    """Holds memory until it is told to let go."""

    reserved = 100

    def memory(self) -> Memory:
        return Memory(allocated=10, reserved=self.reserved)

    def clear_cache(self) -> None:
        self.reserved = 10


async def clear(detector: Running, **options: Any) -> httpx.Response:
    return await detector.client.post("/v1/cache/clear", **{"json": ASKED, **options})


async def test_it_says_what_was_held_before_and_after(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with running(tmp_path, backend=Hoarder()) as detector:
        answer = await clear(detector, headers={"Idempotency-Key": "k", "X-Fencing-Token": "1"})
        again = await clear(detector, headers={"Idempotency-Key": "k"})
    assert answer.status_code == 200
    body = answer.json()
    assert body["device_reserved_bytes"] == {"before": 100, "after": 10}
    assert body["resident_bytes"]["before"] > 2**20
    assert again.json()["device_reserved_bytes"] == {"before": 10, "after": 10}
    assert "cache cleared for 'controller' ('memory grows')" in caplog.text


async def test_without_a_gpu_only_the_process_has_figures(tmp_path: Path) -> None:
    async with running(tmp_path) as detector:
        body = (await clear(detector)).json()
    assert body["device_reserved_bytes"] == {"before": None, "after": None}


async def test_it_waits_for_the_pass_in_hand_and_goes_before_what_is_queued(
    tmp_path: Path,
) -> None:
    backend = Hoarder()
    async with running(tmp_path, backend=backend, batch_size=1) as detector:
        backend.gate.clear()
        queued = await detector.held_up(1, 2, 3)
        await until(lambda: backend.calls)
        clearing = asyncio.create_task(clear(detector))
        await until(lambda: detector.parts.batcher._errands)
        assert backend.reserved == 100
        calls = len(backend.calls)
        backend.gate.set()
        assert (await clearing).status_code == 200
        await asyncio.gather(*queued)
        assert calls == 1


async def test_a_limit_learned_from_running_out_of_memory_is_forgotten(tmp_path: Path) -> None:
    async with running(tmp_path, batch_size=8) as detector:
        detector.parts.batcher._room.ran_out(8)
        assert detector.parts.batcher.batch_limit == 4
        await clear(detector)
        assert detector.parts.batcher.batch_limit == 8


async def test_a_device_that_has_no_moment_for_it_is_a_deadline_and_nothing_is_cleared_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("detector_service.routes.control.CACHE_PATIENCE_S", 0.02)
    backend = Hoarder()
    async with running(tmp_path, backend=backend) as detector:
        backend.gate.clear()
        queued = await detector.held_up(1)
        await until(lambda: backend.calls)
        late = await clear(detector)
        assert (late.status_code, late.json()["reason"]) == (504, "deadline")
        backend.gate.set()
        await asyncio.gather(*queued)
        await detector.detect(2)
        assert backend.reserved == 100


async def test_it_works_while_draining_and_asks_who_and_why(tmp_path: Path) -> None:
    async with running(tmp_path) as detector:
        await detector.client.post("/v1/drain", json=ASKED)
        assert (await clear(detector)).status_code == 200
        nobody = await clear(detector, json={"owner": "c"})
        assert (nobody.status_code, list(nobody.json()["problems"])) == (422, ["reason"])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_a_device_that_is_lost_has_nothing_to_clear(tmp_path: Path) -> None:
    async with running(tmp_path) as detector:
        await detector.detect(LETHAL)
        answer = await clear(detector)
        assert (answer.status_code, answer.json()["reason"]) == (503, "sick")
