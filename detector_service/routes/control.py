"""The control endpoints: settings, leases, pins, drain; canary and clean-up on demand.

Every write goes the same way: who may (token or loopback), what is asked (body and headers), one
rule of ``tunables`` in a worker thread (it syncs to disk), then the limiter is woken.
Surprise: they never wait for detections. Their thread is theirs, and their answers are made from
the document in memory.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from functools import partial

from fastapi import APIRouter, Depends, Request, Response
from starlette.concurrency import run_in_threadpool

from detector_service.backends import Backend
from detector_service.errors import RefusedError
from detector_service.gpu.sampler import resident_bytes
from detector_service.routes.parts import Parts, parts_of
from detector_service.routes.wire import json_answer, read_model, reply_answer, require_control
from detector_service.schemas import (
    Actor,
    BeforeAfter,
    CacheAnswer,
    CanaryAnswer,
    DrainWrite,
    PinWrite,
    SettingsWrite,
)
from detector_service.tunables import (
    Author,
    Document,
    Drain,
    PinWish,
    Preconditions,
    Reply,
    Write,
    drain_view,
    history_view,
    settings_view,
)
from detector_service.tunables.changes import drain, end_lease, pin, undrain, unpin, write
from detector_service.tunables.store import Command

log = logging.getLogger(__name__)

CACHE_PATIENCE_S = 30.0  # a pass in hand is waited for; a device that hangs is not

router = APIRouter()
guarded = APIRouter(dependencies=[Depends(require_control)])


@router.get("/v1/settings")
async def get_settings(request: Request) -> Response:
    """Return the settings document, its generation as ETag."""
    parts = parts_of(request)
    document = parts.document
    view = settings_view(document, parts.face())
    return json_answer(view, headers={"ETag": f'"{document.generation}"'})


@router.get("/v1/settings/history")
async def get_history(request: Request) -> Response:
    """Return the last changes of the settings, newest first."""
    return json_answer(history_view(parts_of(request).document))


@guarded.patch("/v1/settings")
async def patch_settings(request: Request) -> Response:
    """Change settings: all of them or none, for good or on a lease."""
    body, asked = await read_model(request, SettingsWrite)
    wish = Write(
        values=body.values,
        owner=body.owner,
        reason=body.reason,
        lease_s=body.lease_s,
        revert_step=body.revert_step,
        revert_every_s=body.revert_every_s,
    )
    kind = "direct" if body.lease_s is None else "lease"
    return await change(
        parts_of(request),
        lambda document, now: write(document, wish, now),
        asked,
        author=Author(kind, body.owner, body.reason),
        dry_run=body.dry_run,
    )


@guarded.delete("/v1/leases/{knob}")
async def delete_lease(request: Request, knob: str) -> Response:
    """Give a lease back: the knob returns to its base at once."""
    actor, asked = await read_model(request, Actor)
    return await change(
        parts_of(request),
        lambda document, _now: end_lease(document, knob, actor.owner),
        asked,
        author=Author("lease", actor.owner, actor.reason),
    )


@guarded.put("/v1/pins/{knob}")
async def put_pin(request: Request, knob: str) -> Response:
    """Pin a knob: nobody but the owner writes it."""
    body, asked = await read_model(request, PinWrite)
    wish = PinWish(knob, body.owner, body.reason, body.ttl_s, body.value)
    return await change(
        parts_of(request),
        lambda document, now: pin(document, wish, now),
        asked,
        author=Author("pin", body.owner, body.reason),
    )


@guarded.delete("/v1/pins/{knob}")
async def delete_pin(request: Request, knob: str) -> Response:
    """Remove a pin."""
    actor, asked = await read_model(request, Actor)
    return await change(
        parts_of(request),
        lambda document, _now: unpin(document, knob),
        asked,
        author=Author("pin", actor.owner, actor.reason),
    )


@router.get("/v1/drain")
async def get_drain(request: Request) -> Response:
    """Say whether it drains, and what is still inside."""
    parts = parts_of(request)
    return json_answer(drain_view(parts.document, parts.load()))


@guarded.post("/v1/drain")
async def post_drain(request: Request) -> Response:
    """Refuse new detections until undrained, or until the lease ends."""
    body, asked = await read_model(request, DrainWrite)

    def start(document: Document, now: float) -> Document:
        return drain(document, Drain(body.owner, body.reason, now + body.lease_s))

    return await _change_drain(parts_of(request), start, asked)


@guarded.delete("/v1/drain")
async def delete_drain(request: Request) -> Response:
    """Take detections again."""
    actor, asked = await read_model(request, Actor)
    return await _change_drain(
        parts_of(request), lambda document, _now: undrain(document, actor.owner), asked
    )


@guarded.post("/v1/canary")
async def post_canary(request: Request) -> CanaryAnswer:
    """Look at the canary now."""
    parts = parts_of(request)
    if not parts.loaded:
        raise parts.refusal() or RefusedError(503, "loading", "the model is not loaded")
    seen = await parts.canary.look()
    return CanaryAnswer(ok=seen.ok, iou=seen.iou, seconds=seen.seconds)


@guarded.post("/v1/cache/clear")
async def post_cache_clear(request: Request) -> CacheAnswer:
    """Give cached memory back, between two passes, and try full batches again.

    To do it twice does no harm, so keys and fencing tokens are not looked at.
    """
    actor, _asked = await read_model(request, Actor)
    parts = parts_of(request)
    if not (parts.loaded and parts.alive):
        raise parts.refusal() or RefusedError(503, "loading", "the model is not loaded")
    try:
        async with asyncio.timeout(CACHE_PATIENCE_S):
            answer = await asyncio.wrap_future(parts.batcher.run_on_device(_clear))
    except TimeoutError as exc:
        words = f"the device had no moment for it in {CACHE_PATIENCE_S:g} s; nothing was cleared"
        raise RefusedError(504, "deadline", words) from exc
    parts.batcher.forget_limit()
    log.info("cache cleared for %r (%r): %s", actor.owner, actor.reason, answer)
    return answer


def _clear(backend: Backend) -> CacheAnswer:
    started = time.monotonic()
    resident, device = resident_bytes(), _device_bytes(backend)
    backend.clear_cache()
    return CacheAnswer(
        resident_bytes=BeforeAfter(before=resident, after=resident_bytes()),
        device_reserved_bytes=BeforeAfter(before=device, after=_device_bytes(backend)),
        seconds=time.monotonic() - started,
    )


def _device_bytes(backend: Backend) -> int | None:
    memory = backend.memory()
    return None if memory is None else memory.reserved


async def change(
    parts: Parts, command: Command, asked: Preconditions, *, author: Author, dry_run: bool = False
) -> Response:
    """Run a write on the settings in a worker thread, and answer with the new document."""
    view = partial(settings_view, face=parts.face())
    applied = partial(parts.store.apply, author=author, dry_run=dry_run)
    return await _apply(parts, partial(applied, command, asked, view))


async def _change_drain(parts: Parts, command: Command, asked: Preconditions) -> Response:
    view = partial(drain_view, load=parts.load())
    applied = partial(parts.store.apply, author=Author("drain"), counts=False)
    return await _apply(parts, partial(applied, command, asked, view))


async def _apply(parts: Parts, applied: Callable[[], Reply]) -> Response:
    try:
        return reply_answer(await run_in_threadpool(applied))
    finally:
        # Any write may have taken the step of a ramp that was due, a drain too.
        parts.limiter.wake()
