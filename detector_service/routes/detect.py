"""``POST /v1/detect``: one image in, its detections out.

Order: refuse by state and headers, take a place, read the body, wait for a slot, decode, infer.
Each step may end by the deadline or by the client leaving; then the place is given back and
whatever still waits for the device is dropped.
Surprise: nothing of the body is read before the place is taken, so a client that waits for
``100 Continue`` never uploads an image that would be refused.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Coroutine
from typing import Any, TypeVar

from fastapi import APIRouter, Request, Response
from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from detector_service.backends import decode
from detector_service.batcher import Answer, Work
from detector_service.errors import RefusedError
from detector_service.limiter import Place
from detector_service.routes.parts import Parts, parts_of
from detector_service.routes.wire import invalid, read_capped, require_length
from detector_service.schemas import DetectAnswer, FoundObject, ImageSize, Thresholds, Timings

router = APIRouter()
T = TypeVar("T")

CLIENT_LEFT = 499  # nginx's code; nobody is there to read it
# Outcomes whose duration says how fast the service is. A body that is no image, a model that fails
# at once and a client that hangs up are quick ends, and would make a slow service look good.
SERVED = frozenset({"ok", "deadline"})


@router.post("/v1/detect", response_model=DetectAnswer)
async def detect(request: Request) -> Response:
    """Find objects in a JPEG, PNG or WebP image: the raw body, or the multipart field ``file``."""
    parts = parts_of(request)
    parts.telemetry.detection_requests.inc()
    place, wanted = _admit(parts, request)
    outcome = "error"
    try:
        async with asyncio.timeout(parts.document.values["deadline_s"]):
            body = await _read_image(request, parts.settings.max_body_bytes)
            answer = await _while_connected(request, _look(parts, place, body, wanted))
        outcome = "ok"
        parts.telemetry.processing_latency.observe(answer.timings.total_s)
        return Response(answer.model_dump_json(), media_type="application/json")
    except TimeoutError as exc:
        outcome = "deadline"
        raise RefusedError(504, "deadline", "the deadline passed before an answer") from exc
    except ClientDisconnect:
        outcome = "cancelled"
        return Response(status_code=CLIENT_LEFT)
    except asyncio.CancelledError:
        outcome = "cancelled"
        raise
    finally:
        parts.limiter.leave(place)
        parts.telemetry.requests.labels(outcome).inc()
        if outcome in SERVED:
            parts.telemetry.request_duration.observe(time.monotonic() - place.admitted_at)


def _admit(parts: Parts, request: Request) -> tuple[Place, Thresholds]:
    try:
        refusal = parts.refusal()
        if refusal is not None:
            raise refusal
        require_length(request, parts.settings.max_body_bytes)
        wanted = Thresholds.model_validate(dict(request.query_params))
        return parts.limiter.admit(), wanted
    except (RefusedError, ValidationError) as exc:
        refused = invalid(exc) if isinstance(exc, ValidationError) else exc
        parts.telemetry.requests.labels("rejected").inc()
        parts.telemetry.rejected.labels(refused.reason).inc()
        raise refused from exc


async def _look(parts: Parts, place: Place, body: bytes, wanted: Thresholds) -> DetectAnswer:
    await parts.limiter.slot(place)
    document = parts.document
    values = document.values
    loop = asyncio.get_running_loop()
    pixels = parts.settings.max_pixels
    image = await loop.run_in_executor(parts.decoders, lambda: decode(body, max_pixels=pixels))
    work = Work(
        image=image,
        conf=values["conf_threshold"] if wanted.conf is None else wanted.conf,
        iou=values["iou_threshold"] if wanted.iou is None else wanted.iou,
        imgsz=int(values["imgsz"]),
        expires_at=place.admitted_at + values["deadline_s"],
    )
    answer = await parts.batcher.infer(work)
    _count(parts, place, answer)
    return DetectAnswer(
        model=parts.batcher.opened.result().name,
        image=ImageSize(width=image.shape[1], height=image.shape[0]),
        detections=[FoundObject(**vars(item)) for item in answer.detections],
        timings=Timings(
            queue_s=answer.started_at - place.admitted_at,
            inference_s=answer.seconds,
            total_s=time.monotonic() - place.admitted_at,
        ),
        generation=document.generation,
    )


def _count(parts: Parts, place: Place, answer: Answer) -> None:
    parts.telemetry.detection_frames.inc()
    parts.telemetry.queue_wait.observe(answer.started_at - place.admitted_at)
    for item in answer.detections:
        parts.telemetry.detection_objects.labels(item.class_name).inc()


async def _read_image(request: Request, limit: int) -> bytes:
    body = await read_capped(request, limit)
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        return body
    parser = MultiPartParser(request.headers, _once(body), max_files=1, max_part_size=limit)
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError) as exc:
        raise RefusedError(422, "multipart", f"the form cannot be read: {exc}") from exc
    try:
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise RefusedError(422, "multipart", "the form has no file in its field 'file'")
        return await file.read()
    finally:
        await form.close()


async def _once(body: bytes) -> AsyncGenerator[bytes, None]:
    yield body


async def _while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Run ``work``, unless the client leaves first.

    Raises:
        ClientDisconnect: the client left; ``work`` was cancelled.
    """
    doing = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnect(request))
    try:
        await asyncio.wait({doing, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            raise ClientDisconnect
        return doing.result()
    finally:
        doing.cancel()
        gone.cancel()
        await asyncio.gather(doing, gone, return_exceptions=True)


async def _disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
