"""`/livez`, `/readyz`, `/metrics`: about the controller itself. They never wait for work."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from remediator.errors import StoreUnavailableError
from remediator.store import changes, controls, queries
from remediator.store.database import Database, Tx
from remediator.telemetry import Metrics


def build_router(
    *, db: Database, metrics: Metrics, ready: Callable[[], Awaitable[dict[str, object]]]
) -> APIRouter:
    """Return the health router."""
    router = APIRouter(tags=["health"])

    @router.get("/livez")
    async def livez() -> dict[str, bool]:
        """200 while the process answers."""
        return {"alive": True}

    @router.get("/readyz")
    async def readyz() -> JSONResponse:
        """200 when the journal can be reached; says what else is known."""
        facts = await ready()
        try:
            await db.read(_look)
        except StoreUnavailableError as error:
            return JSONResponse({"ready": False, "journal": str(error), **facts}, status_code=503)
        return JSONResponse({"ready": True, "journal": "ok", **facts})

    @router.get("/metrics")
    async def show_metrics() -> Response:
        """Prometheus text exposition of the controller's own series."""
        try:
            await _refresh(db, metrics)
        except StoreUnavailableError:
            # Counters are still worth scraping; the stale gauges must not pretend.
            metrics.runs.clear()
            for gauge in (metrics.held_changes, metrics.blind, metrics.paused):
                gauge.set(math.nan)
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return router


def _look(tx: Tx) -> None:
    # A transaction that asks nothing does not even open a SQLite file.
    controls.last_sign(tx, controls.WATCHDOG)


async def _refresh(db: Database, metrics: Metrics) -> None:
    counts, held, blind, pauses = await db.read(_gauges)
    metrics.runs.clear()
    for kind, state, verdict, number in counts:
        metrics.runs.labels(kind=kind, state=state, verdict=verdict).set(number)
    metrics.held_changes.set(held)
    metrics.blind.set(blind)
    metrics.paused.set(pauses)


def _gauges(tx: Tx) -> tuple[list[tuple[str, str, str, int]], int, int, int]:
    return (
        queries.run_counts(tx),
        len(changes.open_changes(tx)),
        int(controls.last_sign(tx, controls.BLIND) is not None),
        len(controls.in_force(tx, controls.Kind.PAUSE, controls.Kind.KILL)),
    )
