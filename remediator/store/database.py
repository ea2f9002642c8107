"""Opening the journal and running transactions on it.

Synchronous SQLAlchemy Core: one function `body(tx, ...)` is one transaction and one hop to the
database thread (why: docs/decisions/0001). The surprise: `tx.now` is read once per transaction
from the **database's** clock, and leases use nothing else, so replicas need no agreeing clocks.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, CursorResult, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import SQLAlchemyError

from remediator.clock import Clock, system_clock
from remediator.errors import ConfigurationError, StoreUnavailableError

P = ParamSpec("P")
T = TypeVar("T")

# How long a writer waits for another process's transaction before it says "unavailable".
BUSY_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Tx:
    """One open transaction.

    Attributes:
        conn: the connection; only `store` touches it.
        now: the database's clock when the transaction began, aware, in UTC.
    """

    conn: Connection
    now: datetime


Body = Callable[Concatenate[Tx, P], T]


class Database:
    """The journal's connections: one writer thread and one reader thread.

    Args:
        url: `sqlite:///path` or `postgresql+psycopg://...`.
        clock: what SQLite's clock is; a test passes a value it moves by hand.
    """

    def __init__(self, url: str, *, clock: Clock = system_clock) -> None:
        self.url = url
        self._clock = clock
        self._sqlite = make_url(url).get_backend_name() == "sqlite"
        self._engine = _create_engine(url)
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal")
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal-read")

    def migrate(self) -> None:
        """Bring the tables up to date.

        Raises:
            ConfigurationError: the file cannot be opened or is not a journal of ours.
        """
        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        config.attributes["engine"] = self._engine
        try:
            with (
                self._engine.connect() as connection,
                connection.execution_options(writes=True).begin(),
            ):
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
        except SQLAlchemyError as error:
            msg = f"the journal {self.url} cannot be opened: {_reason(error)}"
            raise ConfigurationError(msg) from error

    async def write(self, body: Body[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `body` as one transaction that may write; it is durable when this returns.

        Raises:
            StoreUnavailableError: nothing was committed.
        """
        return await self._run(self._writer, body, args, kwargs)

    async def read(self, body: Body[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `body` as one transaction that only reads, beside the writer.

        Raises:
            StoreUnavailableError: the journal could not be read.
        """
        return await self._run(self._reader, body, args, kwargs)

    async def _run(
        self,
        executor: ThreadPoolExecutor,
        body: Callable[..., T],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> T:
        loop = asyncio.get_running_loop()
        writing = executor is self._writer
        return await loop.run_in_executor(
            executor, lambda: self.transact(body, *args, writing=writing, **kwargs)
        )

    def transact(
        self, body: Callable[..., T], *args: Any, writing: bool = True, **kwargs: Any
    ) -> T:
        """Run `body` in the calling thread. `write` and `read` are the way in from async code."""
        try:
            with self._engine.connect() as opened:
                connection = opened.execution_options(writes=writing)
                with connection.begin():
                    return body(Tx(conn=connection, now=self._now(connection)), *args, **kwargs)
        except SQLAlchemyError as error:
            msg = f"the journal is unavailable: {_reason(error)}"
            raise StoreUnavailableError(msg) from error

    def _now(self, connection: Connection) -> datetime:
        if self._sqlite:
            # SQLite runs in this process: the host's clock is the database's clock.
            return self._clock()
        value: datetime = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
        return value.astimezone(UTC)

    def close(self) -> None:
        """Finish what is running and let go of the file."""
        self._writer.shutdown(wait=True)
        self._reader.shutdown(wait=True)
        self._engine.dispose()


def moment(tx: Tx) -> datetime:
    """Return the journal's clock: a transaction body that only looks at it."""
    return tx.now


def inserted_id(result: CursorResult[Any]) -> int:
    """Return the integer key of the row that an insert made."""
    key = result.inserted_primary_key
    if key is None:
        msg = "the insert made no row"
        raise StoreUnavailableError(msg)
    return int(key[0])


def _create_engine(url: str) -> Engine:
    if make_url(url).get_backend_name() != "sqlite":
        return create_engine(url, pool_pre_ping=True)
    engine = create_engine(
        url, connect_args={"timeout": BUSY_TIMEOUT_S, "check_same_thread": False}
    )

    @event.listens_for(engine, "connect")
    def _prepare(connection: sqlite3.Connection, _record: Any) -> None:
        # We begin transactions ourselves (below); sqlite3 must not do it behind our back.
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode=WAL")
        # FULL: an acknowledged webhook survives a power cut, not only a kill (notes, durable).
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _reason(error: SQLAlchemyError) -> str:
    return str(getattr(error, "orig", None) or error)
