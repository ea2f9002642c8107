"""``POST /v1/detect``: one image in, its detections out, or the picture with them drawn in.

Order: refuse by state and headers, take a place, read the body, wait for a slot, decode, infer,
and where it was asked for, draw (in the threads that decode, so the device never waits for it).
Each step may end by the deadline or by the client leaving; then the place is given back and
whatever still waits for the device is dropped.
Surprise: nothing of the body is read before the place is taken, so a client that waits for
``100 Continue`` never uploads an image that would be refused.
"""

from __future__ import annotations

import asyncio
import json
import time
from base64 import b64encode
from collections.abc import AsyncGenerator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import APIRouter, Request, Response
from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from detector_service.backends import decode
from detector_service.batcher import Work
from detector_service.errors import MediaError, RefusedError
from detector_service.limiter import Place
from detector_service.media import draw, picture
from detector_service.routes.parts import Parts, parts_of
from detector_service.routes.upload import is_form
from detector_service.routes.wire import invalid, media_refusal, read_capped, require_length
from detector_service.schemas import DetectAnswer, DetectQuery, FoundObject, ImageSize, Timings

router = APIRouter()
T = TypeVar("T")

CLIENT_LEFT = 499  # nginx's code; nobody is there to read it
# Outcomes whose duration says how fast the service is. A body that is no image, a model that fails
# at once and a client that hangs up are quick ends, and would make a slow service look good.
SERVED = frozenset({"ok", "deadline"})
PICTURES = ("image/jpeg", "image/png", "image/webp")
HEADER_BYTES = 4096  # what servers and proxies commonly take for one header


@dataclass(frozen=True)
class Wish:
    """What is asked: the query, and the media type if the picture itself is to be the answer."""

    query: DetectQuery
    accepted: str | None

    @property
    def kind(self) -> str | None:
        """Return the media type to draw, or None: no picture is wanted."""
        embedded = self.query.annotated
        return self.accepted or (None if embedded is None else f"image/{embedded}")


@router.post("/v1/detect", response_model=DetectAnswer)
async def detect(request: Request) -> Response:
    """Find objects in a JPEG, PNG or WebP image: the raw body, or the multipart field ``file``."""
    parts = parts_of(request)
    parts.telemetry.detection_requests.inc()
    place, wish = _admit(parts, request)
    outcome = "error"
    try:
        async with asyncio.timeout(parts.document.values["deadline_s"]):
            body = await _read_image(request, parts.settings.max_body_bytes)
            answer, drawn = await _while_connected(request, _look(parts, place, body, wish))
        outcome = "ok"
        parts.telemetry.processing_latency.observe(answer.timings.total_s)
        return _render(answer, drawn, wish)
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
        parts.limiter.leave(place, served=outcome in SERVED)
        parts.telemetry.requests.labels(outcome).inc()
        if outcome in SERVED:
            parts.telemetry.request_duration.observe(time.monotonic() - place.admitted_at)


def _admit(parts: Parts, request: Request) -> tuple[Place, Wish]:
    try:
        refusal = parts.refusal()
        if refusal is not None:
            raise refusal
        require_length(request, parts.settings.max_body_bytes)
        query = DetectQuery.model_validate(dict(request.query_params))
        wish = Wish(query, accepted_picture(request.headers.get("accept", "")))
        return parts.limiter.admit(), wish
    except (RefusedError, ValidationError) as exc:
        refused = invalid(exc) if isinstance(exc, ValidationError) else exc
        parts.telemetry.requests.labels("rejected").inc()
        parts.telemetry.rejected.labels(refused.reason).inc()
        raise refused from exc


async def _look(
    parts: Parts, place: Place, body: bytes, wish: Wish
) -> tuple[DetectAnswer, bytes | None]:
    await parts.limiter.slot(place)
    document = parts.document
    values, asked = document.values, wish.query
    pixels = parts.settings.max_pixels
    image = await _beside(parts, "decode", lambda: decode(body, max_pixels=pixels))
    work = Work(
        image=image,
        conf=values["conf_threshold"] if asked.conf is None else asked.conf,
        iou=values["iou_threshold"] if asked.iou is None else asked.iou,
        imgsz=int(values["imgsz"]),
        expires_at=place.admitted_at + values["deadline_s"],
    )
    answer = await parts.batcher.infer(work)
    model = parts.batcher.opened.result()
    parts.telemetry.queue_wait.observe(answer.started_at - place.admitted_at)
    scores = ((item.class_name, item.confidence) for item in answer.detections)
    parts.telemetry.note_frame(model.classes.values(), scores)
    drawn, kind = None, wish.kind
    if kind is not None:
        try:
            drawn = await _beside(
                parts, "annotate", lambda: picture(draw(image, answer.detections), kind)
            )
        except MediaError as exc:
            raise media_refusal(exc) from exc
    found = DetectAnswer(
        model=model.name,
        image=ImageSize(width=image.shape[1], height=image.shape[0]),
        detections=[FoundObject(**vars(item)) for item in answer.detections],
        timings=Timings(
            queue_s=answer.started_at - place.admitted_at,
            inference_s=answer.seconds,
            total_s=time.monotonic() - place.admitted_at,
        ),
        generation=document.generation,
    )
    return found, drawn


async def _beside(parts: Parts, stage: str, work: Callable[[], T]) -> T:
    """Run one stage in the decoders' threads, and time it without its wait for a thread."""

    def timed() -> T:
        with parts.telemetry.stage_duration.labels(stage).time():
            return work()

    return await asyncio.get_running_loop().run_in_executor(parts.decoders, timed)


def _render(answer: DetectAnswer, drawn: bytes | None, wish: Wish) -> Response:
    if drawn is not None and wish.accepted is not None:
        return Response(drawn, media_type=wish.accepted, headers=_summary(answer))
    if drawn is not None:
        url = f"data:{wish.kind};base64,{b64encode(drawn).decode()}"
        answer = answer.model_copy(update={"annotated": url})
    return Response(answer.model_dump_json(exclude_none=True), media_type="application/json")


def _summary(answer: DetectAnswer) -> dict[str, str]:
    """Return what fits into headers: the detections as ASCII JSON, or only how many there are."""
    headers = {"X-Detections-Count": str(len(answer.detections))}
    found = [item.model_dump() for item in answer.detections]
    line = json.dumps(found, separators=(",", ":"))
    if len(line) <= HEADER_BYTES:
        headers["X-Detections"] = line
    return headers


def accepted_picture(accept: str) -> str | None:
    """Return the picture type that an ``Accept`` header prefers to JSON, or None.

    Only a type that is named counts: ``*/*`` means JSON, and so does a tie.
    """
    weights = dict(_weight(part) for part in accept.split(","))
    best = max(PICTURES, key=lambda kind: weights.get(kind, 0.0))
    return best if weights.get(best, 0.0) > weights.get("application/json", 0.0) else None


def _weight(part: str) -> tuple[str, float]:
    kind, *parameters = (piece.strip().lower() for piece in part.split(";"))
    told = next((piece[2:] for piece in parameters if piece.startswith("q=")), "1")
    try:
        return kind, float(told)
    except ValueError:
        return kind, 0.0


async def _read_image(request: Request, limit: int) -> bytes:
    body = await read_capped(request, limit)
    if not is_form(request):
        return body
    parser = MultiPartParser(request.headers, _once(body), max_files=1, max_part_size=limit)
    parser.spool_max_size = limit  # in memory, where the body is already
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
