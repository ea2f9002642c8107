"""``/v1/videos``: films taken in, how they stand, what came of them.

Who knows a job's id may ask for it, cancel it and delete it; only the list of all of them, which
tells the ids, is for those who may change settings.
Surprise: while the model is being loaded images are refused and videos are not. They are kept on
disk, and somebody's upload should not depend on the second in which it ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from dataclasses import asdict
from typing import Any, Final, TypeVar

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi.responses import FileResponse, StreamingResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import ValidationError
from starlette.requests import ClientDisconnect

from detector_service.errors import MediaError, RefusedError, StateWriteError
from detector_service.jobs import Draft, Job, Options, State, View
from detector_service.jobs.incoming import Arrived
from detector_service.media import FilmInfo
from detector_service.routes.detect import CLIENT_LEFT
from detector_service.routes.parts import Parts, parts_of
from detector_service.routes.upload import is_form, media_type, receive, require_room
from detector_service.routes.wire import (
    CONTROL_BODY_BYTES,
    invalid,
    json_answer,
    media_refusal,
    preconditions,
    read_capped,
    require_control,
)
from detector_service.schemas import VideoByUrl, VideoList, VideoOptions
from detector_service.screenfilter import Rules
from detector_service.tunables import rfc3339

router = APIRouter()
T = TypeVar("T")

MAX_LISTENERS: Final = 64
LISTENERS_RETRY_S: Final = 10
ENDED: Final = "end"
STOP_LOOK_S: Final = 0.5


@router.post("/v1/videos", status_code=202)
async def post_video(request: Request) -> Response:
    """Take a film in: the raw body, the multipart field ``file``, or JSON with a ``url``."""
    parts = parts_of(request)
    try:
        seen, new = await _take(parts, request)
    except ClientDisconnect:
        return Response(status_code=CLIENT_LEFT)
    except (RefusedError, MediaError, ValidationError) as exc:
        refused = _refused(exc)
        parts.telemetry.rejected.labels(refused.reason).inc()
        raise refused from exc
    headers = {"Location": _link(seen.job)}
    if not new:
        headers["Idempotent-Replayed"] = "true"
    return json_answer(shown(seen), status=202, headers=headers)


@router.get("/v1/videos", dependencies=[Depends(require_control)])
async def list_videos(request: Request) -> Response:
    """Return the jobs, newest first; ``next`` is the ``before`` of the next page, or null."""
    try:
        asked = VideoList.model_validate(dict(request.query_params))
    except ValidationError as exc:
        raise invalid(exc) from exc
    state = None if asked.state is None else State(asked.state)
    found = await parts_of(request).desk.listing(state=state, before=asked.before, most=asked.limit)
    more = found[-1].job.seq if len(found) == asked.limit else None
    return json_answer({"videos": [shown(seen) for seen in found], "next": more})


@router.get("/v1/videos/{name}")
async def get_video(request: Request, name: str) -> Response:
    """Say how a job stands."""
    return json_answer(shown(await parts_of(request).desk.look(name)))


@router.post("/v1/videos/{name}/cancel")
async def cancel_video(request: Request, name: str) -> Response:
    """Cancel a job for good; one that has ended stays as it is."""
    return json_answer(shown(await parts_of(request).desk.cancel(name)))


@router.delete("/v1/videos/{name}", status_code=204)
async def delete_video(request: Request, name: str) -> Response:
    """Remove an ended job and its files."""
    await parts_of(request).desk.delete(name)
    return Response(status_code=204)


@router.get("/v1/videos/{name}/result")
async def get_result(request: Request, name: str) -> Response:
    """Return what was found in the film."""
    pieces = await parts_of(request).desk.result(name)
    return StreamingResponse(pieces, media_type="application/json")


@router.get("/v1/videos/{name}/annotated")
@router.head("/v1/videos/{name}/annotated")
async def get_annotated(request: Request, name: str) -> Response:
    """Return the film with the boxes drawn in; ranges are served, which players need to seek."""
    path = await parts_of(request).desk.annotated(name)
    try:
        status = await asyncio.to_thread(path.stat)
    except FileNotFoundError as exc:
        raise RefusedError(404, "not_found", "the film has just been deleted") from exc
    return FileResponse(path, media_type="video/mp4", stat_result=status)


async def _seat(request: Request, name: str) -> AsyncIterator[None]:
    """Let one more listen, before the stream begins and its status can no longer be chosen."""
    parts = parts_of(request)
    await parts.desk.look(name)
    if request.headers.get("last-event-id") == ENDED:
        # A browser connects again when a stream ends. This is how it is told not to.
        raise HTTPException(204)
    if parts.listeners >= MAX_LISTENERS:
        raise RefusedError(
            429,
            "too_many_listeners",
            f"{MAX_LISTENERS} already listen to events; ask GET {_link(name)} now and then instead",
            retry_after_s=LISTENERS_RETRY_S,
        )
    parts.listeners += 1
    try:
        yield
    finally:
        parts.listeners -= 1


@router.get(
    "/v1/videos/{name}/events",
    response_class=EventSourceResponse,
    dependencies=[Depends(_seat)],
)
async def get_events(request: Request, name: str) -> AsyncIterator[ServerSentEvent]:
    """Tell how the job stands, now and whenever that changes, until it has ended."""
    try:
        async for seen in parts_of(request).desk.watch(name):
            if seen.job.state.final:
                yield ServerSentEvent(event=ENDED, id=ENDED, data=shown(seen))
            else:
                yield ServerSentEvent(event="progress", data=shown(seen))
    except RefusedError as exc:  # deleted meanwhile
        yield ServerSentEvent(event=ENDED, id=ENDED, data=exc.body())
    except StateWriteError:
        return  # the service ends; who listens will connect to the next one


async def _take(parts: Parts, request: Request) -> tuple[View, bool]:
    """Take a film in; what can be refused by the headers is refused before the body is read."""
    refusal = parts.refusal()
    if refusal is not None and refusal.reason != "loading":
        raise refusal
    key = preconditions(request, b"").key
    if media_type(request) == "application/json":
        if request.query_params:
            words = "the options of a film by URL go into the JSON, not into the query"
            raise RefusedError(422, "invalid", words)
        raw = await read_capped(request, CONTROL_BODY_BYTES)
        wanted = VideoByUrl.model_validate_json(raw)
        return await asyncio.shield(parts.desk.accept_url(wanted.url, options(wanted), key))
    asked = options(VideoOptions.model_validate(dict(request.query_params)))
    require_room(request, parts.settings.max_video_bytes)
    draft = await parts.desk.admit(_length(request, parts.settings.max_video_bytes), key)
    try:
        arrived, film = await _read(parts, request, draft)
    except BaseException:
        await asyncio.shield(parts.desk.discard(draft))
        raise
    # A request that is cancelled now must not take the files of a job that may have been kept.
    return await asyncio.shield(parts.desk.accept(draft, arrived, film, asked, key))


async def _read(parts: Parts, request: Request, draft: Draft) -> tuple[Arrived, FilmInfo]:
    try:
        arrived = await _unless_stopping(parts, receive(request, draft.path, draft.room))
    except MediaError as exc:
        if draft.room < parts.settings.max_video_bytes:
            words = f"the store for videos has no more than {draft.room} bytes left"
            raise RefusedError(
                507, "storage_full", f"{words}; delete videos that are done"
            ) from exc
        raise
    return arrived, await _unless_stopping(parts, parts.desk.probe(draft))


async def _unless_stopping(parts: Parts, work: Coroutine[Any, Any, T]) -> T:
    """Run ``work``, unless the service ends first: an upload may take hours, a restart may not.

    Raises:
        RefusedError: 503 ``stopping``; ``work`` was cancelled.
    """
    doing = asyncio.ensure_future(work)
    try:
        while not doing.done():
            refusal = parts.refusal()
            if parts.stopping and refusal is not None:
                raise refusal
            await asyncio.wait({doing}, timeout=STOP_LOOK_S)
        return doing.result()
    finally:
        doing.cancel()
        await asyncio.gather(doing, return_exceptions=True)


def _length(request: Request, max_bytes: int) -> int | None:
    """Return how many bytes the film may have by the headers, None unknown."""
    told = request.headers.get("content-length", "")
    if not told.isdigit():
        return None
    return min(int(told), max_bytes) if is_form(request) else int(told)


def _refused(exc: RefusedError | MediaError | ValidationError) -> RefusedError:
    if isinstance(exc, MediaError):
        return media_refusal(exc)
    return invalid(exc) if isinstance(exc, ValidationError) else exc


def options(asked: VideoOptions) -> Options:
    """Return what was asked for, as the jobs know it."""
    return Options(
        mode=asked.mode,
        conf=asked.conf,
        iou=asked.iou,
        imgsz=asked.imgsz,
        frame_stride=asked.frame_stride,
        annotate=asked.annotate,
        checksums=asked.checksums,
        rules=Rules(**asked.rules()),
    )


def shown(seen: View) -> dict[str, Any]:
    """Return a job as JSON."""
    job = seen.job
    link = _link(job)
    return {
        "id": job.id,
        "state": job.state,
        "reason": job.reason,
        "words": job.words,
        "progress": {
            "frames_done": seen.frames_done,
            "frames_total": seen.frames_total,
            "fps": _rounded(seen.fps),
            "eta_s": _rounded(seen.eta_s),
        },
        "options": _options(job.options),
        "settings": None if job.recipe is None else asdict(job.recipe),
        "source": {"url": job.origin, "size": job.size, "sha256": job.digest},
        "film": None if job.film is None else _film(job.film),
        "timings": {
            "created_at": rfc3339(job.created_at),
            "started_at": None if job.started_at is None else rfc3339(job.started_at),
            "ended_at": None if job.ended_at is None else rfc3339(job.ended_at),
            "worked_s": _rounded(job.worked_s),
        },
        "links": {
            "self": link,
            "events": f"{link}/events",
            "result": f"{link}/result",
            "annotated": f"{link}/annotated" if job.options.draws else None,
            "cancel": f"{link}/cancel",
        },
    }


def _options(asked: Options) -> dict[str, Any]:
    """Return the options by the names they are sent with."""
    flat = asdict(asked)
    rules = flat.pop("rules")
    return {**flat, "annotate": asked.draws, **(rules if asked.mode == "filter" else {})}


def _film(film: FilmInfo) -> dict[str, Any]:
    shape = film.sample_aspect_ratio
    told = None if shape is None else f"{shape.numerator}:{shape.denominator}"
    return {**asdict(film), "sample_aspect_ratio": told}


def _link(job: Job | str) -> str:
    return f"/v1/videos/{job if isinstance(job, str) else job.id}"


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, 3)
