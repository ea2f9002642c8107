"""The composition root of the detector: read it top to bottom. Called by ``__main__`` and tests.

Surprise: it serves before the model is loaded, so that health, metrics and settings answer while
detections get 503; a model that cannot be loaded, or a device lost later, ends the server instead.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from detector_service.backends import NO_CUDA, Backend, ModelInfo
from detector_service.backends.choice import open_backend
from detector_service.batcher import Batcher, BatchLimits
from detector_service.canary import Canary, read_sample
from detector_service.errors import DetectorError, InferenceError, RefusedError, StateWriteError
from detector_service.gpu.sampler import Sampler, Sources
from detector_service.jobs import Bounds, Desk, State
from detector_service.jobs.fetch import Fetcher, read_allowed
from detector_service.limiter import AdaptiveLimit, Limiter, Limits
from detector_service.media import MediaLimits
from detector_service.routes import ROUTERS, Parts
from detector_service.routes.wire import answer_failed, answer_refused, answer_unwritable
from detector_service.settings import Settings
from detector_service.telemetry import Telemetry
from detector_service.tunables import StateFile, TunableStore

log = logging.getLogger(__name__)

TICK_S = 0.25
STOP_DEVICE_S = 3.0
STOP_SAMPLER_S = 0.5

OpenBackend = Callable[[], Backend]


def build(
    settings: Settings,
    file: StateFile,
    open_backend: OpenBackend,
    *,
    instance: str | None = None,
    now: Callable[[], float] = time.time,
    monotonic: Callable[[], float] = time.monotonic,
) -> FastAPI:
    """Wire one detector.

    Args:
        settings: what the process was told.
        file: where the settings document lives; the caller holds its lock.
        open_backend: loads the model, on the device thread.
        instance: the process' name to others.
        now: seconds since the epoch; leases and drains follow it.
        monotonic: seconds of a clock nobody sets; tells when ``now`` was set back.

    Raises:
        StartError: a damaged state file, wrong first values, or an unreadable canary.
    """
    telemetry = Telemetry()
    document = file.load(settings.initial())
    store = TunableStore(
        file,
        document,
        now,
        monotonic=monotonic,
        watch=lambda field, kind: _count_change(telemetry, field, kind),
    )
    adaptive = AdaptiveLimit(settings.objective_s, time.monotonic()) if settings.adaptive else None
    limiter = Limiter(lambda: _limits(store), adaptive)
    batcher = Batcher(
        open_backend,
        # A pass may take four times what was planned before it counts as one that hangs.
        lambda: _batch_limits(store, settings.hang_s / 4),
        on_pass=lambda frames, seconds, stages: _count_pass(telemetry, frames, seconds, stages),
        on_drop=lambda reason: telemetry.frames_dropped.labels(reason).inc(),
        on_out_of_memory=telemetry.out_of_memory.inc,
    )
    instance = instance or settings.instance or f"{settings.host}:{settings.port}"
    desk = Desk(
        file.folder,
        _bounds(settings),
        instance=instance,
        document=lambda: store.current,
        refusal=lambda: _reason(parts.refusal()),
        batcher=batcher,
        limiter=limiter,
        telemetry=telemetry,
        fetcher=Fetcher(read_allowed(settings.video_urls), settings.max_video_bytes),
        now=now,
    )
    parts = Parts(
        settings=settings,
        telemetry=telemetry,
        store=store,
        limiter=limiter,
        batcher=batcher,
        desk=desk,
        canary=Canary(batcher, read_sample(settings.canary_dir), telemetry, now),
        decoders=ThreadPoolExecutor(settings.decode_threads, thread_name_prefix="decode"),
        instance=instance,
        started_at=now(),
        token=settings.control_token(),
    )
    _follow(parts)
    app = FastAPI(title="detector", docs_url=None, redoc_url=None, lifespan=_lifespan)
    app.state.parts = parts
    app.add_middleware(InProgress, parts=parts)
    app.add_exception_handler(RefusedError, answer_refused)
    app.add_exception_handler(StateWriteError, answer_unwritable)
    app.add_exception_handler(InferenceError, answer_failed)
    for router in ROUTERS:
        app.include_router(router)
    return app


def open_default(settings: Settings, scratch: Path) -> OpenBackend:
    """Return what loads the configured checkpoint; torch is imported only when it is called."""
    return lambda: open_backend(
        settings.model,
        backend=settings.backend,
        threads=settings.torch_threads,
        imgsz=int(settings.initial()["imgsz"]),
        cache=settings.cache,
        scratch=scratch,
    )


class InProgress:
    """Counts HTTP requests while they are served."""

    def __init__(self, app: ASGIApp, parts: Parts) -> None:
        """Wrap ``app``."""
        self._app = app
        self._gauge = parts.telemetry.http_in_progress

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (or the lifespan, which is none)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        with self._gauge.track_inprogress():
            await self._app(scope, receive, send)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    parts: Parts = app.state.parts
    sampler = Sampler(parts.telemetry.registry, _sources(parts))
    loop = asyncio.get_running_loop()
    parts.stop = partial(loop.call_soon_threadsafe, _stop, parts)
    await parts.desk.open()
    parts.batcher.start()
    sampler.start()
    try:
        async with asyncio.TaskGroup() as group:
            vital = (
                *(_watch_device(parts), _await_loss(parts), _choose_limit(parts), _tick(parts)),
                parts.desk.run(),
            )
            background = [group.create_task(_or_end(parts, work)) for work in vital]
            yield
            _stop(parts)
            await parts.desk.close()
            for running in background:
                running.cancel()
    finally:
        parts.desk.shut()
        sampler.stop(STOP_SAMPLER_S)
        parts.batcher.stop(STOP_DEVICE_S)
        parts.decoders.shutdown(wait=False, cancel_futures=True)


def _stop(parts: Parts) -> None:
    """Take nothing new, and put videos aside; images are finished by the server."""
    parts.stopping = True
    parts.desk.stop()


async def _or_end(parts: Parts, work: Coroutine[Any, Any, None]) -> None:
    """Run ``work``; if it ends by itself, so does the server.

    Serving on without the clock would keep a lapsed lease for ever, and nobody would notice.
    """
    try:
        await work
    finally:
        parts.end()


async def _watch_device(parts: Parts) -> None:
    """Wait for the model, warm it up with the canary, then look at the canary for ever."""
    try:
        info = await asyncio.wrap_future(parts.batcher.opened)
    except DetectorError as exc:
        parts.failure = exc
        return
    _show_model(parts.telemetry, info, parts.settings.commit)
    seen = await parts.canary.look()
    parts.warm = True
    log.info("ready: model %s (%s), canary ok=%s", info.name, info.version, seen.ok)
    while True:
        await asyncio.sleep(parts.settings.canary_every_s)
        before, seen = seen, await parts.canary.look()
        if seen.ok is not before.ok:
            log.warning("canary ok=%s (was %s), IoU %s", seen.ok, before.ok, seen.iou)


async def _await_loss(parts: Parts) -> None:
    """Return when the device thread has failed: no answer will come but from a new process."""
    await asyncio.wrap_future(parts.batcher.lost)
    log.error("the device thread failed; ending, so that a supervisor starts the service anew")


async def _choose_limit(parts: Parts) -> None:
    """Let the adaptive limit follow the load; apart from ``_tick``, which may wait for a disk."""
    while True:
        parts.limiter.look()
        await asyncio.sleep(TICK_S)


async def _tick(parts: Parts) -> None:
    """Let leases, pins and the drain end by the clock; in a thread that nobody else can take."""
    loop, alone = asyncio.get_running_loop(), ThreadPoolExecutor(1, thread_name_prefix="tick")
    try:
        while True:
            if await loop.run_in_executor(alone, parts.store.tick):
                parts.limiter.wake()
            await asyncio.sleep(TICK_S)
    finally:
        alone.shutdown(wait=False)


def _on_gpu(batcher: Batcher) -> bool | None:
    if not batcher.opened.done() or batcher.opened.exception() is not None:
        return None
    return batcher.opened.result().cuda != NO_CUDA


def _sources(parts: Parts) -> Sources:
    batcher = parts.batcher
    return Sources(
        busy_seconds=batcher.busy_seconds,
        on_gpu=lambda: _on_gpu(batcher),
        warm=lambda: parts.warm,
        healthy=lambda: not batcher.lost.done(),
        device_memory=lambda: batcher.run_on_device(lambda backend: backend.memory()),
    )


def _bounds(settings: Settings) -> Bounds:
    return Bounds(
        workers=settings.video_workers,
        queue=settings.video_queue,
        max_bytes=settings.max_video_bytes,
        store_bytes=settings.video_store_bytes,
        keep_s=settings.video_keep_s,
        chunk_frames=settings.chunk_frames,
        media=MediaLimits(settings.max_pixels, settings.max_video_s, settings.max_video_frames),
        preset=settings.encode_preset,
        crf=settings.encode_crf,
    )


def _reason(refusal: RefusedError | None) -> str | None:
    return None if refusal is None else refusal.reason


def _limits(store: TunableStore) -> Limits:
    values = store.current.values
    return Limits(int(values["max_concurrency"]), int(values["queue_limit"]))


def _batch_limits(store: TunableStore, pass_s: float) -> BatchLimits:
    values = store.current.values
    return BatchLimits(int(values["batch_size"]), values["batch_wait_ms"] / 1000, pass_s)


def _count_change(telemetry: Telemetry, field: str, kind: str) -> None:
    telemetry.config_changes.labels(field, kind).inc()


def _count_pass(
    telemetry: Telemetry, frames: int, seconds: float, stages: Mapping[str, float]
) -> None:
    telemetry.inference_duration.observe(seconds)
    for stage, share in stages.items():
        telemetry.stage_duration.labels(stage).observe(share)
    telemetry.batch_size.observe(frames)
    telemetry.last_inference.set_to_current_time()


def _show_model(telemetry: Telemetry, info: ModelInfo, commit: str) -> None:
    telemetry.config_info.labels(
        info.name, info.version, info.nms, info.backend, info.precision
    ).set(1)
    version = metadata.version("remediator")
    telemetry.build_info.labels(version, commit, info.runtime, info.cuda).set(1)


def _follow(parts: Parts) -> None:
    telemetry, store, limiter = parts.telemetry, parts.store, parts.limiter
    telemetry.started.set(parts.started_at)
    reads = (
        (telemetry.conf_threshold, lambda: store.current.values["conf_threshold"]),
        (telemetry.iou_threshold, lambda: store.current.values["iou_threshold"]),
        (telemetry.ceiling, lambda: store.current.values["max_concurrency"]),
        (telemetry.limit, lambda: limiter.limit),
        (telemetry.batch_limit, lambda: parts.batcher.batch_limit),
        (telemetry.generation, lambda: store.current.generation),
        (telemetry.leases_active, lambda: len(store.current.leases)),
        (telemetry.inflight, lambda: limiter.running),
        (telemetry.queue_depth, lambda: limiter.queued),
        (telemetry.ready, lambda: parts.ready),
        (telemetry.draining, lambda: parts.draining),
    )
    for gauge, read in reads:
        telemetry.follow(gauge, read)
    telemetry.follow(telemetry.video_backlog, parts.desk.backlog_s)
    for state in State:
        if not state.final:
            count = partial(parts.desk.count, state)
            telemetry.follow(telemetry.video_jobs.labels(state), count)
