"""APScheduler as the clock: it says when, and owns no truth.

Made by `app`. Memory job store on every replica; each tick works from rows, so a tick that is lost
or doubled changes nothing. The surprise: this is the other broad `except` (see
`engine.reconcile`): a tick that fails is counted and the next one tries again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import structlog
from apscheduler.executors.asyncio import AsyncIOExecutor
from apscheduler.jobstores.base import JobLookupError
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from remediator.errors import StoreUnavailableError
from remediator.telemetry import Metrics

log = structlog.get_logger(__name__)

Tick = Callable[[], Awaitable[None]]


class Scheduler:
    """Calls the ticks."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        # It warns at every tick that it skips; skipping is what `max_instances=1` is for.
        logging.getLogger("apscheduler").setLevel(logging.ERROR)
        self._scheduler = AsyncIOScheduler(
            executors={"default": AsyncIOExecutor()},
            timezone=UTC,
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )

    def every(self, seconds: float, name: str, tick: Tick) -> None:
        """Call `tick` every so many seconds, never twice at once."""

        async def guarded() -> None:
            with self._metrics.ticks.labels(tick=name).time():
                await self._guard(name, tick)

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
        try:
            self._scheduler.modify_job(name, next_run_time=datetime.now(UTC))
        except JobLookupError:
            log.debug("poked before it was scheduled", tick=name)

    def start(self) -> None:
        """Begin ticking on the running event loop."""
        self._scheduler.start()

    async def stop(self) -> None:
        """Stop ticking; a tick in progress finishes."""
        self._scheduler.shutdown(wait=False)
        await asyncio.sleep(0)
