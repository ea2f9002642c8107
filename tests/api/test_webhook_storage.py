"""What cannot be stored is answered 503, nothing of it is stored, and the next post is served."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from sqlalchemy import Connection, event, text

from remediator.store.database import Database, Tx
from tests.api.edge import Edge, Hands, a_payload, an_alert, controller

pytestmark = pytest.mark.slow

PAYLOAD = a_payload(an_alert())


def stands_for_later(answer: httpx.Response) -> bool:
    """Say whether Alertmanager will try again within half a second."""
    return answer.status_code == 503 and answer.headers.get("retry-after") == "1"


class Disk:
    """Bounds how large the journal may grow, as a full disk does."""

    def __init__(self, db: Database) -> None:
        self.pages: int | None = None
        event.listen(db._engine, "begin", self._bound)

    def _bound(self, connection: Connection) -> None:
        pages = 2**31 if self.pages is None else self.pages
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")


def pages(tx: Tx) -> int:
    return int(tx.conn.execute(text("PRAGMA page_count")).scalar_one())


async def test_a_full_disk_is_answered_503_stores_nothing_by_halves_and_heals(edge: Edge) -> None:
    disk = Disk(edge.db)
    assert (await edge.post(PAYLOAD)).status_code == 200
    before = await edge.count()
    disk.pages = await edge.db.read(pages)
    large = a_payload(*(an_alert(f"{i:04x}", padding="x" * 500) for i in range(500)))
    assert stands_for_later(await edge.post(large))
    assert await edge.count() == before
    assert await edge.metric('remediator_webhooks_total{outcome="unavailable"}') == 1
    disk.pages = None
    assert (await edge.post(large)).status_code == 200
    assert await edge.count() == (before[0] + 1, before[1] + 500)


async def test_a_body_that_is_no_webhook_waits_for_room_too(edge: Edge) -> None:
    disk = Disk(edge.db)
    disk.pages = await edge.db.read(pages)
    assert stands_for_later(await edge.post(b"x" * 60_000))
    disk.pages = None
    assert (await edge.post(b"x" * 60_000)).status_code == 400
    assert len(await edge.deliveries()) == 1


async def test_reading_goes_on_while_the_disk_is_full(edge: Edge) -> None:
    await edge.post(PAYLOAD)
    Disk(edge.db).pages = 1
    assert len(await edge.alerts()) == 1
    assert (await edge.client.get("/metrics")).status_code == 200
    assert (await edge.client.get("/livez")).status_code == 200


@pytest.fixture
async def hasty(tmp_path: Path) -> AsyncIterator[Edge]:
    """A controller that waits a tenth of a second for another writer."""
    clock = Hands()
    db = Database(f"sqlite:///{tmp_path / 'journal.db'}", clock=clock, busy_timeout_s=0.1)
    async with controller(tmp_path, db=db) as edge:
        yield edge
    db.close()


async def test_a_journal_that_another_writer_holds_is_answered_503_and_then_served(
    hasty: Edge, tmp_path: Path
) -> None:
    with closing(sqlite3.connect(tmp_path / "journal.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        answer = await hasty.post(PAYLOAD)
        assert stands_for_later(answer)
        assert "locked" in answer.json()["detail"]
        # Looking is not held up by who writes.
        assert await hasty.alerts() == []
        other.execute("ROLLBACK")
    assert (await hasty.post(PAYLOAD)).status_code == 200


async def test_a_writer_that_lets_go_in_time_is_waited_for(edge: Edge, tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        waiting = asyncio.create_task(edge.post(PAYLOAD))
        done, _ = await asyncio.wait({waiting}, timeout=0.3)
        assert not done
        other.execute("COMMIT")
        assert (await waiting).status_code == 200


async def test_a_journal_that_became_read_only_is_answered_503(edge: Edge) -> None:
    def forbid(connection: Connection) -> None:
        connection.exec_driver_sql("PRAGMA query_only=1")

    event.listen(edge.db._engine, "begin", forbid)
    assert stands_for_later(await edge.post(PAYLOAD))
    assert await edge.alerts() == []


async def test_a_journal_that_is_damaged_is_neither_ready_nor_empty(
    edge: Edge, tmp_path: Path
) -> None:
    await edge.post(PAYLOAD)
    assert (await edge.client.get("/readyz")).status_code == 200
    edge.db._engine.dispose()
    path = tmp_path / "journal.db"
    path.write_bytes(b"\0" * path.stat().st_size)
    ready = await edge.client.get("/readyz")
    assert ready.status_code == 503
    assert ready.json()["ready"] is False
    assert stands_for_later(await edge.post(PAYLOAD))
    assert stands_for_later(await edge.client.get("/api/v1/alerts"))
    scraped = (await edge.client.get("/metrics")).text
    assert "remediator_held_changes NaN" in scraped
    assert "remediator_blind NaN" in scraped


async def test_a_caller_that_leaves_early_does_not_undo_what_was_stored(edge: Edge) -> None:
    body = json.dumps(PAYLOAD).encode()
    posted = asyncio.create_task(edge.post(body))
    await asyncio.wait({posted}, timeout=0.001)
    posted.cancel()
    await asyncio.wait({posted})
    # Whatever became of the first, the re-send must find a journal that works.
    assert (await edge.post(body)).status_code == 200
    assert len(await edge.alerts()) == 1
