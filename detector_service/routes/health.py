"""``/livez``, ``/readyz`` and ``/metrics``: answered from memory, whatever the load.

Surprise: liveness says nothing of load. It is false only when the device thread has ended, or has
been inside one pass for longer than ``DETECTOR_HANG_S``: the two things only a restart helps.
"""

from __future__ import annotations

import os

from fastapi import APIRouter, Request, Response

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
