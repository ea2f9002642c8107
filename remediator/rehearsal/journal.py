"""The journal of a rehearsal: the real one, in a temporary file, on a clock that is moved by hand.

Made by `stage`. Every statement and every transaction is the real one; the surprise is only that
nothing waits for the disk or for another thread, since the file is thrown away.
"""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import event

from remediator.clock import Clock
from remediator.store.database import Database

T = TypeVar("T")


class RehearsalJournal(Database):
    """A journal that nobody will need after a power cut."""

    def __init__(self, url: str, *, clock: Clock) -> None:
        super().__init__(url, clock=clock)

        @event.listens_for(self._engine, "connect")
        def _no_waiting(connection: sqlite3.Connection, _record: Any) -> None:
            connection.execute("PRAGMA synchronous=OFF")

    async def _run(
        self,
        executor: ThreadPoolExecutor,
        body: Callable[..., T],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> T:
        # Let others run in between, as a hop to a thread does.
        await asyncio.sleep(0)
        return self.transact(body, *args, writing=executor is self._writer, **kwargs)


@contextmanager
def a_journal(clock: Clock) -> Iterator[RehearsalJournal]:
    """Open an empty journal; it is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="remediator-") as folder:
        path = Path(folder) / "journal.db"
        path.write_bytes(an_empty_journal())
        journal = RehearsalJournal(f"sqlite:///{path}", clock=clock)
        try:
            yield journal
        finally:
            journal.close()


@cache
def an_empty_journal() -> bytes:
    """Return the file of a journal in which nothing has happened."""
    # Migrating takes longer than most tests: it is done once and copied.
    with tempfile.TemporaryDirectory(prefix="remediator-") as folder:
        path = Path(folder) / "journal.db"
        journal = Database(f"sqlite:///{path}")
        journal.migrate()
        journal.close()
        return path.read_bytes()
