"""A deterministic model, a hand-moved clock and a running app for the detector's tests.

``ToyBackend`` reads the top-left pixel of an image: its blue value *is* the answer, so an answer
that belongs to another image is visible at once.
"""

from __future__ import annotations

import asyncio
import io
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI
from PIL import Image as Pillow

from detector_service.app import build
from detector_service.backends import Detection, Image, Memory, ModelInfo, Pass
from detector_service.errors import InferenceError
from detector_service.routes import Parts
from detector_service.settings import Settings
from detector_service.tunables import StateFile
from detector_service.tunables.statefile import Writer, write_durably

CANARY_PIXEL = (7, 8, 9)
CANARY_BOX = (10.0, 10.0, 30.0, 40.0)
POISON = 250  # the model fails on this image
LETHAL = 251  # the device is lost on this image
PATIENCE_S = 10.0


class Clock:
    """Seconds since the epoch, moved by hand, and a steady clock that is never set."""

    def __init__(self, at: float = 1_800_000_000.0) -> None:
        self._began_at = at
        self._passed = 0.0

    def __call__(self) -> float:
        return self._began_at + self._passed

    def steady(self) -> float:
        return self._passed

    def forward(self, seconds: float) -> None:
        self._passed += seconds

    def set(self, by: float) -> None:
        """Have somebody set the wall clock."""
        self._began_at += by


@dataclass(frozen=True)
class Call:
    """What one pass was asked."""

    values: tuple[int, ...]
    conf: float
    iou: float
    imgsz: int


@dataclass
class ToyBackend:
    """Answers at once, unless ``gate`` is closed; keeps what it was asked."""

    class_name: str = "cursor"
    nms: str = "external"
    blind: bool = False
    gate: threading.Event = field(default_factory=threading.Event)
    calls: list[Call] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.gate.set()

    @property
    def info(self) -> ModelInfo:
        return ModelInfo("toy.pt", "0123456789ab", {0: self.class_name}, self.nms, "none")

    def infer(self, images: Sequence[Image], *, conf: float, iou: float, imgsz: int) -> Pass:
        values = tuple(int(image[0, 0, 0]) for image in images)
        if not all(is_canary(image) for image in images):
            self.calls.append(Call(values, conf, iou, imgsz))
            assert self.gate.wait(PATIENCE_S)
        if LETHAL in values:
            raise ZeroDivisionError
        if POISON in values:
            raise InferenceError("the model failed: poison")
        return Pass([self._see(image, conf) for image in images])

    def memory(self) -> Memory | None:
        return None

    def clear_cache(self) -> None:
        """Nothing is cached."""

    def _see(self, image: Image, conf: float) -> tuple[Detection, ...]:
        if is_canary(image):
            seen = () if self.blind else (self._found(0.9, CANARY_BOX),)
        else:
            at = float(image[0, 0, 0])
            box = (at, at, at + 10, at + 10)
            seen = tuple(self._found(score, box) for score in (0.9, 0.6, 0.4, 0.2))
        return tuple(item for item in seen if item.confidence >= conf)

    def _found(self, score: float, box: tuple[float, float, float, float]) -> Detection:
        return Detection(0, self.class_name, score, box)


def is_canary(image: Image) -> bool:
    return tuple(image[0, 0].tolist()) == CANARY_PIXEL


def picture(value: int, *, size: tuple[int, int] = (64, 48), kind: str = "PNG") -> bytes:
    """Return an image file whose blue channel is ``value`` everywhere."""
    buffer = io.BytesIO()
    Pillow.new("RGB", size, (100, 100, value)).save(buffer, kind)
    return buffer.getvalue()


def write_canary(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    red_green_blue = CANARY_PIXEL[::-1]
    Pillow.new("RGB", (64, 48), red_green_blue).save(folder / "canary.png")
    truth = {"class_name": "cursor", "xyxy": list(CANARY_BOX)}
    (folder / "canary.json").write_text(json.dumps(truth))
    return folder


@dataclass
class Running:
    """An app with its lifespan on, and a client that reaches it."""

    app: FastAPI
    client: httpx.AsyncClient
    backend: ToyBackend
    clock: Clock
    url: str

    @property
    def parts(self) -> Parts:
        parts: Parts = self.app.state.parts
        return parts

    async def detect(self, value: int = 1, **options: Any) -> httpx.Response:
        return await self.client.post("/v1/detect", content=picture(value), **options)

    async def patch(self, values: dict[str, Any], **more: Any) -> httpx.Response:
        headers = more.pop("headers", {})
        body = {"values": values, "owner": "controller", "reason": "a test", **more}
        return await self.client.patch("/v1/settings", json=body, headers=headers)

    async def settings(self) -> dict[str, Any]:
        answer: dict[str, Any] = (await self.client.get("/v1/settings")).json()
        return answer

    async def metric(self, name: str) -> float | None:
        """Return the sample whose name and labels are exactly ``name``, or None."""
        for line in (await self.client.get("/metrics")).text.splitlines():
            if line.startswith(f"{name} "):
                return float(line.rsplit(" ", 1)[1])
        return None

    async def held_up(self, *values: int, **options: Any) -> list[asyncio.Task[httpx.Response]]:
        """Start detections one after the other, each once the one before is inside."""
        started = []
        for value in values:
            before = len(self.parts.limiter._places)
            started.append(asyncio.create_task(self.detect(value, **options)))
            await until(lambda before=before: len(self.parts.limiter._places) > before)
        return started


async def until(true: Callable[[], Any], *, within_s: float = PATIENCE_S) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline, "it never came true"
        await asyncio.sleep(0.002)


def toy_app(
    folder: Path,
    *,
    backend: ToyBackend | None = None,
    clock: Clock | None = None,
    writer: Writer = write_durably,
    **told: Any,
) -> tuple[FastAPI, ToyBackend, Clock]:
    """Build an app whose state is under ``folder``."""
    backend, clock = backend or ToyBackend(), clock or Clock()
    file = StateFile(folder / "state", writer)
    file.folder.mkdir(parents=True, exist_ok=True)
    # A gate decides how long a toy takes, so its latency is no reason to lower a limit.
    own: dict[str, Any] = {"canary_dir": write_canary(folder / "canary"), "adaptive": False}
    settings = Settings(**(own | told))
    app = build(settings, file, lambda: backend, now=clock, monotonic=clock.steady)
    return app, backend, clock


@asynccontextmanager
async def running(
    folder: Path, *, client_host: str = "127.0.0.1", **told: Any
) -> AsyncIterator[Running]:
    """Run an app without a socket: fast, for all that needs no network."""
    app, backend, clock = toy_app(folder, **told)
    transport = httpx.ASGITransport(app, client=(client_host, 1))
    url = "http://127.0.0.1"
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url=url) as client,
    ):
        found = Running(app, client, backend, clock, url)
        await until(lambda: found.parts.warm or found.parts.failure)
        try:
            yield found
        finally:
            backend.gate.set()


@asynccontextmanager
async def listening(folder: Path, **told: Any) -> AsyncIterator[Running]:
    """Run an app behind a real server on a free port."""
    app, backend, clock = toy_app(folder, **told)
    config = uvicorn.Config(app, port=0, log_config=None, timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    port = server.servers[0].sockets[0].getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    try:
        async with httpx.AsyncClient(base_url=url) as client:
            found = Running(app, client, backend, clock, url)
            await until(lambda: found.parts.warm)
            yield found
    finally:
        backend.gate.set()
        server.should_exit = True
        await serving
