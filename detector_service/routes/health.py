"""``/livez``, ``/readyz`` and ``/metrics``: answered from memory, whatever the load.

``/v2`` has the same under the names of the open inference protocol (KServe's, spoken by Triton),
for platforms that probe those: 200 is true, 400 is false. Inference itself is not served there.
Surprise: liveness says nothing of load. It is false only when the device thread has ended, or has
been inside one pass for longer than ``DETECTOR_HANG_S``: the two things only a restart helps.
"""

from __future__ import annotations

import os
from importlib import metadata
from typing import Any

from fastapi import APIRouter, Request, Response

from detector_service.errors import RefusedError
from detector_service.routes.parts import parts_of
from detector_service.routes.wire import json_answer
from detector_service.telemetry import CONTENT_TYPE
from detector_service.tunables import rfc3339

router = APIRouter()


@router.get("/livez")
async def livez(request: Request) -> Response:
    """200 while the process and its device thread are alive, else 503."""
    parts = parts_of(request)
    body = {
        "alive": parts.alive,
        "device": parts.batcher.state.value,
        "heartbeat_age_s": round(parts.batcher.beat_age_s, 3),
    }
    return json_answer(body, status=200 if parts.alive else 503)


@router.get("/readyz")
async def readyz(request: Request) -> Response:
    """200 when detections are welcome, else 503."""
    parts = parts_of(request)
    seen = parts.canary.last
    body = {
        "ready": parts.ready,
        "loaded": parts.loaded,
        "warm": parts.warm,
        "draining": parts.draining or parts.stopping,
        "canary_ok": None if seen is None else seen.ok,
        "started_at": rfc3339(parts.started_at),
        "pid": os.getpid(),
    }
    return json_answer(body, status=200 if parts.ready else 503)


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """Return the Prometheus text exposition."""
    return Response(parts_of(request).telemetry.render(), media_type=CONTENT_TYPE)


@router.get("/v2")
async def server_metadata() -> dict[str, Any]:
    """Say what serves."""
    version = metadata.version("remediator")
    return {"name": "detector_service", "version": version, "extensions": []}


@router.get("/v2/health/live")
async def server_live(request: Request) -> Response:
    """200 while alive, else 400."""
    return _verdict("live", true=parts_of(request).alive)


@router.get("/v2/health/ready")
async def server_ready(request: Request) -> Response:
    """200 when detections are welcome, else 400."""
    return _verdict("ready", true=parts_of(request).ready)


@router.get("/v2/models/{name}/ready")
async def model_ready(request: Request, name: str) -> Response:
    """200 when the model is loaded and detections are welcome, else 400."""
    _require_model(request, name)
    return _verdict("ready", true=parts_of(request).ready, name=name)


@router.get("/v2/models/{name}")
async def model_metadata(request: Request, name: str) -> dict[str, Any]:
    """Say what the model takes and gives; its version is known once it is loaded."""
    _require_model(request, name)
    parts = parts_of(request)
    info = parts.batcher.opened.result() if parts.loaded else None
    return {
        "name": name,
        "versions": [] if info is None else [info.version],
        "platform": "" if info is None else f"ultralytics_{info.backend}",
        "inputs": [{"name": "image", "datatype": "BYTES", "shape": [1]}],
        "outputs": [{"name": "detections", "datatype": "BYTES", "shape": [-1]}],
    }


def _verdict(word: str, *, true: bool, **more: str) -> Response:
    return json_answer({**more, word: true}, status=200 if true else 400)


def _require_model(request: Request, name: str) -> None:
    served = parts_of(request).settings.model.stem
    if name != served:
        raise RefusedError(404, "unknown_model", f"no model named {name!r}; served is {served!r}")
