"""The real thing: the shipped weights in a real process, saturated, killed, drained, damaged."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from detector_service.backends import decode
from detector_service.backends.yolo import open_yolo
from detector_service.batcher import Answer, Batcher, BatchLimits, Work
from detector_service.canary import overlap
from detector_service.load import SAMPLE, Generator, Plan, read_frames
from detector_service.settings import PACKAGE
from tests.detector.toys import LETHAL, picture

pytestmark = pytest.mark.real

CANARY = PACKAGE / "samples" / "canary.png"
TRUTH = json.loads((PACKAGE / "samples" / "canary.json").read_text())
WEIGHTS = PACKAGE / "weights" / "cursor.pt"
START_S = 60


@dataclass
class Started:
    """A detector in a process of its own."""

    process: subprocess.Popen[Any]
    url: str

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, timeout=5)

    def patch(self, **body: object) -> httpx.Response:
        wish = {"owner": "controller", "reason": "a test", **body}
        return httpx.patch(f"{self.url}/v1/settings", json=wish, timeout=5)

    def wait_until_ready(self) -> None:
        self.wait_until(200, "/readyz")

    def wait_until(self, status: int, path: str) -> None:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            assert self.process.poll() is None, "it ended"
            try:
                if self.get(path).status_code == status:
                    return
            except httpx.TransportError:
                continue
        pytest.fail(f"{path} never answered {status}")

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(how)
        return self.process.wait(30)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def two_cores() -> Iterator[None]:
    """Let children started inside have two cores, as on a small machine."""
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(itertools.islice(sorted(mine), 2)))
    try:
        yield
    finally:
        os.sched_setaffinity(0, mine)


@contextmanager
def process(state: Path, *, port: int | None = None, **told: object) -> Iterator[Started]:
    port = port or free_port()
    told = {"backend": "torch", "torch_threads": 1, **told}
    variables = {f"DETECTOR_{name.upper()}": str(value) for name, value in told.items()}
    environment = {k: v for k, v in os.environ.items() if not k.startswith("DETECTOR_")}
    environment |= {"DETECTOR_STATE_DIR": str(state), **variables}
    with two_cores():
        child = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "detector_service", "--port", str(port)],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
    with child:
        try:
            yield Started(child, f"http://127.0.0.1:{port}")
        finally:
            if child.poll() is None:
                child.kill()


def test_the_shipped_weights_find_the_canary_and_say_so_everywhere(tmp_path: Path) -> None:
    with process(tmp_path) as detector:
        detector.wait_until_ready()
        canary = httpx.post(f"{detector.url}/v1/canary", timeout=30).json()
        assert canary["ok"] is True
        assert canary["iou"] > 0.5
        answer = httpx.post(f"{detector.url}/v1/detect", content=CANARY.read_bytes(), timeout=30)
        best = max(answer.json()["detections"], key=lambda item: item["confidence"])
        assert best["class_name"] == "cursor"
        assert overlap(tuple(best["xyxy"]), tuple(TRUTH["xyxy"])) > 0.5
        metrics = detector.get("/metrics").text
        assert "\ndetector_canary_success 1.0\n" in metrics
        assert 'model="cursor.pt",nms="external"' in metrics
        assert detector.end() == 0


def test_a_throttle_survives_kill_9_and_ramps_back_after_the_restart(tmp_path: Path) -> None:
    port = free_port()
    with process(tmp_path, port=port) as detector:
        detector.wait_until(200, "/livez")
        kept = detector.patch(values={"max_concurrency": 7}, lease_s=6, revert_every_s=3)
        assert kept.status_code == 200
        assert detector.end(signal.SIGKILL) == -signal.SIGKILL
    with process(tmp_path, port=port) as detector:
        detector.wait_until(200, "/livez")
        seen = [detector.get("/v1/settings").json()["values"]["max_concurrency"]]
        assert seen[0] in {7, 8}, "the lease may lapse while it is down, but nothing may jump"
        deadline = time.monotonic() + 30
        while seen[-1] != 10:
            assert time.monotonic() < deadline
            document = detector.get("/v1/settings").json()
            if document["values"]["max_concurrency"] != seen[-1]:
                seen.append(document["values"]["max_concurrency"])
        assert seen[-3:] == [8, 9, 10]
        assert document["base"]["max_concurrency"] == 10
        assert document["leases"] == {}


async def test_metrics_answer_within_half_a_second_while_the_device_is_saturated(
    tmp_path: Path,
) -> None:
    with process(tmp_path) as detector:
        await asyncio.to_thread(detector.wait_until_ready)
        async with httpx.AsyncClient(timeout=30) as client:
            plan = Plan(detector.url, rate=40, seconds=8)
            generator = Generator(plan, read_frames(SAMPLE), client)
            load = asyncio.create_task(generator.run(asyncio.Event()))
            took = []
            while not load.done():
                started = time.monotonic()
                for path in ("/metrics", "/v1/settings", "/livez", "/readyz", "/v2/health/ready"):
                    assert (await client.get(detector.url + path)).status_code == 200
                    took.append(time.monotonic() - started)
                    started = time.monotonic()
                await asyncio.sleep(0.05)
            await load
        assert generator.total.rejected > 0, "it was not saturated"
        assert generator.total.answered > 0
        assert generator.total.errors == 0
        assert len(took) > 60
        assert max(took) < 0.5


async def test_a_lower_ceiling_shortens_the_latency_of_a_saturated_detector(tmp_path: Path) -> None:
    with process(tmp_path, adaptive=False) as detector:
        await asyncio.to_thread(detector.wait_until_ready)
        frames = read_frames(SAMPLE)
        p95 = []
        async with httpx.AsyncClient(timeout=30) as client:
            for ceiling in (10, 1):
                patched = detector.patch(values={"max_concurrency": ceiling})
                assert patched.status_code == 200
                generator = Generator(Plan(detector.url, rate=40, seconds=5), frames, client)
                await generator.run(asyncio.Event())
                p95.append(generator.total.line()["p95"])
        assert p95[1] < p95[0] / 2


async def test_flooded_it_lowers_its_own_limit_and_left_alone_it_raises_it_again(
    tmp_path: Path,
) -> None:
    with process(tmp_path) as detector:
        await asyncio.to_thread(detector.wait_until_ready)

        def limit() -> int:
            told = detector.get("/v1/settings").json()
            assert told["values"]["max_concurrency"] == told["limiter"]["ceiling"] == 10
            return int(told["limiter"]["limit"])

        assert limit() == 10
        async with httpx.AsyncClient(timeout=30) as client:
            generator = Generator(Plan(detector.url, rate=40), read_frames(SAMPLE), client)
            stop = asyncio.Event()
            load = asyncio.create_task(generator.run(stop))
            try:
                await until_below(5, limit)
            finally:
                stop.set()
                await load
        lowest = limit()
        deadline = time.monotonic() + 60
        while limit() <= lowest:
            assert time.monotonic() < deadline, "it stays down"
            await asyncio.sleep(0.1)


async def until_below(bound: int, read: Callable[[], int]) -> None:
    deadline = time.monotonic() + 60
    while await asyncio.to_thread(read) >= bound:
        assert time.monotonic() < deadline, "it never came down"
        await asyncio.sleep(0.1)


def test_sigterm_answers_what_is_inside_and_ends_with_0(tmp_path: Path) -> None:
    with process(tmp_path) as detector, ThreadPoolExecutor(8) as pool:
        detector.wait_until_ready()
        image = CANARY.read_bytes()
        inside = [
            pool.submit(httpx.post, f"{detector.url}/v1/detect", content=image, timeout=30)
            for _ in range(8)
        ]
        deadline = time.monotonic() + 10
        while detector.get("/v1/drain").json()["inflight"] < 4:
            assert time.monotonic() < deadline
        assert detector.end() == 0
        answered = [future.result() for future in inside if not future.exception()]
        # Those that had not come in when the signal came are told so, or find nobody.
        late = [answer.json()["reason"] for answer in answered if answer.status_code != 200]
        assert set(late) <= {"stopping"}
        assert len(answered) - len(late) >= 4


TOY = """
import sys
from pathlib import Path
from detector_service.__main__ import _listen, _run
from detector_service.settings import read_settings
from tests.detector.toys import toy_app
app, backend, _ = toy_app(Path(sys.argv[1]), deadline_s=0.5)
if sys.argv[3] == "hangs":
    backend.gate.clear()
sys.exit(_run(app, _listen(read_settings(port=int(sys.argv[2])))))
"""


@contextmanager
def toy_process(folder: Path, how: str) -> Iterator[Started]:
    port = free_port()
    command = [sys.executable, "-c", TOY, str(folder), str(port), how]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as child:
        try:
            detector = Started(child, f"http://127.0.0.1:{port}")
            detector.wait_until_ready()
            yield detector
        finally:
            child.kill()


def test_sigterm_ends_a_process_whose_device_thread_hangs(tmp_path: Path) -> None:
    with toy_process(tmp_path, "hangs") as detector:
        assert httpx.post(f"{detector.url}/v1/detect", content=picture(1)).status_code == 504
        assert detector.end() == 0


def test_a_process_whose_device_thread_dies_ends_with_1_for_its_supervisor(tmp_path: Path) -> None:
    with toy_process(tmp_path, "runs") as detector:
        answer = httpx.post(f"{detector.url}/v1/detect", content=picture(LETHAL))
        assert answer.status_code == 503
        assert detector.process.wait(30) == 1


def test_damaged_weights_are_refused_in_one_line_with_exit_code_2(tmp_path: Path) -> None:
    torn = tmp_path / "torn.pt"
    with zipfile.ZipFile(WEIGHTS) as good, zipfile.ZipFile(torn, "w") as bad:
        for item in good.infolist():
            data = good.read(item)
            bad.writestr(item.filename, data[: len(data) // 2])
    with process(tmp_path / "state", model=torn) as detector:
        _, said = detector.process.communicate(timeout=START_S)
        assert detector.process.returncode == 2
    assert said.startswith(f"detector_service: cannot load the model file {torn} as ")
    assert said.count("\n") == 1


def test_frames_and_thresholds_of_many_clients_never_get_foreign_answers(tmp_path: Path) -> None:
    frames = [decode(data, max_pixels=10**7) for data in read_frames(SAMPLE, most=12)]
    confs = (0.05, 0.2, 0.5, 0.8)

    def work(number: int, conf: float) -> Work:
        return Work(frames[number], conf, 0.7, 320)

    asked = [(number, conf) for number in range(len(frames)) for conf in confs]
    subject = Batcher(
        lambda: open_yolo(WEIGHTS, threads=1, scratch=tmp_path), lambda: BatchLimits(8, 0)
    )
    subject.start()
    subject.opened.result(START_S)
    alone = [boxes(subject.submit(work(*each)).result(30)) for each in asked]
    assert any(alone), "the weights see nothing in the sample video"
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda each: boxes(subject.submit(work(*each)).result(60)), asked))
    assert subject.stop(10)
    for each, one, other in zip(asked, alone, together, strict=True):
        assert other == pytest.approx(one, abs=0.5), each


def boxes(answer: Answer) -> list[float]:
    return [edge for item in answer.detections for edge in item.xyxy]
