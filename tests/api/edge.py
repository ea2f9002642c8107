"""A controller at arm's length: its real application on a real journal, and what people post to it.

Used by the tests of the webhook and of the API. Time stands still unless a test moves it.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
from fastapi import FastAPI
from sqlalchemy import func, select

from remediator import app as root
from remediator.clock import Clock
from remediator.settings import Settings
from remediator.store.database import Database, Tx
from remediator.store.tables import alerts, deliveries, notifications

PAYLOADS = Path(__file__).parent / "payloads"
WEBHOOK = "/webhooks/alertmanager"
STARTED = "2026-11-22T20:44:37.562Z"
YEAR_ONE = "0001-01-01T00:00:00Z"
NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


@dataclass
class Hands:
    """A clock that a test moves."""

    now: datetime = NOON

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **length: float) -> None:
        self.now += timedelta(**length)


@dataclass
class Edge:
    """One controller and a caller beside it."""

    db: Database
    clock: Hands
    app: FastAPI
    client: httpx.AsyncClient

    async def post(self, body: Any, **headers: str) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.client.post(WEBHOOK, content=content, headers=headers)

    async def alerts(self, **query: Any) -> list[dict[str, Any]]:
        answer = await self.client.get("/api/v1/alerts", params={"limit": 500, **query})
        assert answer.status_code == 200, answer.text
        return list(answer.json())

    async def metric(self, line: str) -> float:
        text = (await self.client.get("/metrics")).text
        found = [row for row in text.splitlines() if row.startswith(line + " ")]
        return float(found[0].rpartition(" ")[2]) if found else 0.0

    async def deliveries(self) -> list[Any]:
        return await self.db.read(_deliveries)

    async def messages(self) -> list[Any]:
        return await self.db.read(_messages)

    async def count(self) -> tuple[int, int]:
        """Return how many deliveries and alerts are stored."""
        return await self.db.read(_count)


def _deliveries(tx: Tx) -> list[Any]:
    return list(tx.conn.execute(select(deliveries).order_by(deliveries.c.id)))


def _messages(tx: Tx) -> list[Any]:
    return list(tx.conn.execute(select(notifications)))


def _count(tx: Tx) -> tuple[int, int]:
    one = tx.conn.execute(select(func.count()).select_from(deliveries)).scalar_one()
    two = tx.conn.execute(select(func.count()).select_from(alerts)).scalar_one()
    return one, two


@cache
def _migrated() -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "journal.db"
        journal = Database(f"sqlite:///{path}")
        journal.migrate()
        journal.close()
        return path.read_bytes()


def a_journal(path: Path, clock: Clock) -> Database:
    """Return a new journal; its tables are made once and copied, which is much of the time."""
    if not path.exists():
        path.write_bytes(_migrated())
    return Database(f"sqlite:///{path}", clock=clock)


@asynccontextmanager
async def controller(
    folder: Path, *, db: Database | None = None, caller: str = "127.0.0.1", **settings: Any
) -> AsyncIterator[Edge]:
    """Build the whole application; its ticks do not run, so that nothing moves by itself."""
    clock = Hands()
    playbooks = folder / "playbooks"
    playbooks.mkdir(exist_ok=True)
    journal = db or a_journal(folder / "journal.db", clock)
    app = root.build(Settings(playbooks=playbooks, **settings), db=journal)
    transport = httpx.ASGITransport(app=app, client=(caller, 40000), raise_app_exceptions=False)
    try:
        async with httpx.AsyncClient(
            transport=transport, base_url="http://127.0.0.1:8090"
        ) as client:
            yield Edge(db=journal, clock=clock, app=app, client=client)
    finally:
        if db is None:
            journal.close()


def recorded(name: str) -> dict[str, Any]:
    """Return a payload that a real Alertmanager sent."""
    return dict(json.loads((PAYLOADS / f"{name}.json").read_text()))


def an_alert(fingerprint: str = "f00d", *, status: str = "firing", **labels: str) -> dict[str, Any]:
    """Return one alert as Alertmanager puts it into a payload."""
    return {
        "status": status,
        "labels": {"alertname": "DetectorSlow", "instance": "detector-1", **labels},
        "annotations": {},
        "startsAt": STARTED,
        "endsAt": YEAR_ONE if status == "firing" else "2026-11-22T20:50:00Z",
        "generatorURL": "",
        "fingerprint": fingerprint,
    }


def a_payload(*alerts_: dict[str, Any], **changed: Any) -> dict[str, Any]:
    """Return a payload around these alerts."""
    return {
        "version": "4",
        "groupKey": '{}:{alertname="DetectorSlow"}',
        "truncatedAlerts": 0,
        "status": "firing",
        "receiver": "remediator",
        "groupLabels": {},
        "commonLabels": {},
        "commonAnnotations": {},
        "externalURL": "http://alertmanager:9093",
        "alerts": list(alerts_),
        **changed,
    }


@dataclass
class Pokes:
    """Remembers what was poked."""

    names: list[str] = field(default_factory=list)

    @property
    def poke(self) -> Callable[[str], None]:
        return self.names.append
