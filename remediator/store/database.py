"""Opening the journal and running transactions on it.

Synchronous SQLAlchemy Core: one function `body(tx, ...)` is one transaction and one hop to the
database thread (why: docs/decisions/0001). The surprise: `tx.now` is read once per transaction
from the **database's** clock, and leases use nothing else, so replicas need no agreeing clocks.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from alembic import command
from alembic.config import Config
from alembic.util.exc import CommandError
from sqlalchemy import (
    URL,
    Connection,
    CursorResult,
    Engine,
    create_engine,
    event,
    inspect,
    make_url,
    text,
)
from sqlalchemy.exc import SQLAlchemyError

from remediator.clock import Clock, system_clock
from remediator.errors import ConfigurationError, StoreUnavailableError

P = ParamSpec("P")
T = TypeVar("T")

# How long a writer waits for another process's transaction before it says "unavailable".
BUSY_TIMEOUT_S = 5.0
POLL_S = 0.02
# What SQLite says, and what to do about it. A damaged file is never touched.
_HINTS = {
    "unable to open": "its folder must exist and be writable",
    "readonly": "the file and its folder must be writable",
    "not a database": "move that file away, or name another",
    "malformed": "move that file away and restore a backup, or name another",
    "locked": "another program holds it; end that one first",
}


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
        busy_timeout_s: how long a SQLite writer waits for another process, in seconds.

    Raises:
        ConfigurationError: the url names nothing that a journal can be kept in.
    """

    def __init__(
        self, url: str, *, clock: Clock = system_clock, busy_timeout_s: float = BUSY_TIMEOUT_S
    ) -> None:
        parsed = _parse(url)
        # What people read: without the password.
        self.url = parsed.render_as_string(hide_password=True)
        self._clock = clock
        self._sqlite = parsed.get_backend_name() == "sqlite"
        self._engine = _create_engine(parsed, busy_timeout_s=busy_timeout_s)
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
                self._refuse_foreign(connection)
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
        except SQLAlchemyError as error:
            raise ConfigurationError(
                f"the journal {self.url} cannot be opened: {_with_hint(_reason(error))}"
            ) from error
        except CommandError as error:
            raise ConfigurationError(
                f"the journal {self.url} was written by another version: {error}; "
                f"upgrade this one, or name another journal"
            ) from error

    def _refuse_foreign(self, connection: Connection) -> None:
        tables = inspect(connection).get_table_names()
        if tables and "alembic_version" not in tables:
            raise ConfigurationError(
                f"the journal {self.url} is the database of something else (it has a table "
                f"{min(tables)!r}); name another one"
            )

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


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except SQLAlchemyError as error:
        raise ConfigurationError(
            f"database {url!r} is not an address; write it like sqlite:////var/lib/remediator.db"
        ) from error
    if parsed.drivername == "postgresql+psycopg":
        return parsed
    if parsed.get_backend_name() != "sqlite":
        raise ConfigurationError(
            f"database {parsed.drivername}://... is not supported: use sqlite:///PATH, or "
            f"postgresql+psycopg://... for several replicas"
        )
    if parsed.database in {None, "", ":memory:"}:
        # Every connection would get an empty database of its own, gone with the process.
        raise ConfigurationError("a journal in memory is none: give a file, sqlite:///PATH")
    return parsed


def _create_engine(url: URL, *, busy_timeout_s: float) -> Engine:
    if url.get_backend_name() != "sqlite":
        try:
            return create_engine(url, pool_pre_ping=True)
        except ImportError as error:
            raise ConfigurationError(
                "PostgreSQL needs its driver: pip install 'remediator[postgres]'"
            ) from error
    engine = create_engine(
        url, connect_args={"timeout": busy_timeout_s, "check_same_thread": False}
    )

    @event.listens_for(engine, "connect")
    def _prepare(connection: sqlite3.Connection, _record: Any) -> None:
        # We begin transactions ourselves (below); sqlite3 must not do it behind our back.
        connection.isolation_level = None
        _enter_wal(connection, within_s=busy_timeout_s)
        # FULL: an acknowledged webhook survives a power cut, not only a kill (notes, durable).
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _enter_wal(connection: sqlite3.Connection, *, within_s: float) -> None:
    """Switch a new file to its write-ahead log; of two processes one has to wait.

    SQLite does not wait by itself here, whatever its busy timeout: the switch needs the file alone.
    """
    deadline = time.monotonic() + within_s
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not busy or time.monotonic() > deadline:
                raise
            time.sleep(POLL_S)
        else:
            return


def _with_hint(reason: str) -> str:
    found = (hint for said, hint in _HINTS.items() if said in reason)
    return "; ".join([reason, *found])


def _reason(error: SQLAlchemyError) -> str:
    return str(getattr(error, "orig", None) or error)
