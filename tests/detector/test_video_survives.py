"""A film whose service is killed, stopped, drained and throttled ends like one left alone.

Real process, shipped weights. What is compared is everything a client gets: the result, byte for
byte but for the name of the job, and the annotated film, byte for byte.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from detector_service.load import SAMPLE
from tests.detector.moviegoer import Moviegoer
from tests.detector.test_real import Started, free_port, process

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

ACTOR = {"owner": "controller", "reason": "a test"}
TOLD = {"chunk_frames": 4, "batch_size": 4, "adaptive": False}
ASKED = {"mode": "detect", "imgsz": 480, "conf": 0.25, "checksums": True}


def test_kill_9_a_stop_a_drain_and_a_throttle_change_no_byte_of_what_comes_of_a_film(
    tmp_path: Path,
) -> None:
    with process(tmp_path / "alone", **TOLD) as detector:
        detector.wait_until_ready()
        with Moviegoer(detector.url) as client:
            job = client.send(SAMPLE, **ASKED)
            client.wait(job)
            alone = what_came_of(client, job)

    state, port = tmp_path / "disturbed", free_port()
    with process(state, port=port, **TOLD) as detector:
        job = sent(detector)
        frames = killed_once(detector, job, lambda view: view["state"] == "running")
    with process(state, port=port, **TOLD) as detector:
        frames = killed_once(detector, job, beyond(frames + 20))
    with process(state, port=port, **TOLD) as detector:
        frames = done(wait(detector, job, beyond(frames + 12)))
        assert detector.end(signal.SIGTERM) == 0
    with process(state, port=port, **TOLD) as detector:
        wait(detector, job, beyond(frames + 8))
        assert detector.patch(values={"max_concurrency": 1}).status_code == 200
        assert drain(detector).status_code == 200
        frames = killed_once(detector, job, lambda view: view["state"] == "parked")
    with process(state, port=port, **TOLD) as detector:
        detector.wait_until(200, "/livez")
        with Moviegoer(detector.url) as client:
            parked = client.view(job)
            assert (parked["state"], done(parked)) == ("parked", frames)
            assert undrain(detector).status_code == 200
            client.wait(job)
            assert what_came_of(client, job) == alone


def sent(detector: Started) -> str:
    detector.wait_until_ready()
    with Moviegoer(detector.url) as client:
        return client.send(SAMPLE, **ASKED)


def killed_once(detector: Started, job: str, there: Callable[[dict[str, Any]], bool]) -> int:
    """Kill the process as soon as a job is where it should be; return the frames it had done."""
    view = wait(detector, job, there)
    assert detector.end(signal.SIGKILL) == -signal.SIGKILL
    return done(view)


def wait(detector: Started, job: str, there: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    detector.wait_until(200, "/livez")
    with Moviegoer(detector.url) as client:
        return client.wait(job, there)


def beyond(frames: int) -> Callable[[dict[str, Any]], bool]:
    return lambda view: done(view) >= frames


def done(view: dict[str, Any]) -> int:
    return int(view["progress"]["frames_done"])


def what_came_of(client: Moviegoer, job: str) -> tuple[bytes, bytes]:
    """Return the result without the name of the job, and the annotated film."""
    name = job.rpartition("/")[2].encode()
    result = client.read(f"{job}/result")
    assert name in result
    return result.replace(name, b""), client.read(f"{job}/annotated")


def drain(detector: Started) -> httpx.Response:
    return httpx.post(f"{detector.url}/v1/drain", json=ACTOR)


def undrain(detector: Started) -> httpx.Response:
    return httpx.request("DELETE", f"{detector.url}/v1/drain", json=ACTOR)
