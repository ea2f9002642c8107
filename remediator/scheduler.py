"""APScheduler as the clock: it says when, and owns no truth.

Made by `app`. Memory job store on every replica; each tick works from rows, so a tick that is lost
or doubled changes nothing. The surprise: this is the other broad `except` (see
`engine.reconcile`): a tick that fails is counted and the next one tries again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime

import structlog
from apscheduler.events import EVENT_JOB_EXECUTED, JobExecutionEvent
from apscheduler.executors.asyncio import AsyncIOExecutor
from apscheduler.jobstores.base import JobLookupError
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from remediator.errors import StoreUnavailableError
from remediator.telemetry import Metrics

log = structlog.get_logger(__name__)

Tick = Callable[[], Awaitable[None]]

# Long enough for a message that is being sent to be noted as sent.
STOP_WITHIN_S = 5.0


class Scheduler:
    """Calls the ticks."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._ticking: set[asyncio.Task[None]] = set()
        self._poked: set[str] = set()
        # It warns at every tick that it skips; skipping is what `max_instances=1` is for.
        logging.getLogger("apscheduler").setLevel(logging.ERROR)
        self._scheduler = AsyncIOScheduler(
            executors={"default": AsyncIOExecutor()},
            timezone=UTC,
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )
        self._scheduler.add_listener(self._again, EVENT_JOB_EXECUTED)

    def every(self, seconds: float, name: str, tick: Tick) -> None:
        """Call `tick` every so many seconds, never twice at once."""

        async def guarded() -> None:
            self._poked.discard(name)
            # A task of our own: APScheduler cancels its tasks when it stops.
            ticking = asyncio.create_task(self._guard(name, tick), name=name)
            self._ticking.add(ticking)
            ticking.add_done_callback(self._ticking.discard)
            with self._metrics.ticks.labels(tick=name).time(), suppress(asyncio.CancelledError):
                await asyncio.wait({ticking})

        self._scheduler.add_job(
            guarded, "interval", seconds=seconds, id=name, next_run_time=datetime.now(UTC)
        )

    async def _guard(self, name: str, tick: Tick) -> None:
        try:
            await tick()
        except StoreUnavailableError as error:
            self._metrics.failed_ticks.labels(tick=name).inc()
            log.warning("journal unavailable", tick=name, why=str(error))
        except Exception:
            self._metrics.failed_ticks.labels(tick=name).inc()
            log.exception("tick failed", tick=name)

    def poke(self, name: str) -> None:
        """Call a tick as soon as possible. A lost poke costs one interval."""
        self._poked.add(name)
        self._at_once(name)

    def _again(self, ended: JobExecutionEvent) -> None:
        # A poke during a tick was skipped, and that tick may have looked too early to see why.
        if ended.job_id in self._poked:
            self._at_once(ended.job_id)

    def _at_once(self, name: str) -> None:
        try:
            self._scheduler.modify_job(name, next_run_time=datetime.now(UTC))
        except JobLookupError:
            log.debug("poked before it was scheduled", tick=name)

    def start(self) -> None:
        """Begin ticking on the running event loop."""
        self._scheduler.start()

    async def stop(self) -> None:
        """Stop ticking; a tick in progress gets five seconds to finish."""
        self._scheduler.pause()
        if self._ticking:
            await asyncio.wait(self._ticking, timeout=STOP_WITHIN_S)
        for late in self._ticking:
            log.warning("tick cut short", tick=late.get_name())
            late.cancel()
        self._scheduler.shutdown(wait=False)
        await asyncio.sleep(0)
