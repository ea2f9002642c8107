"""All the SQL of the video jobs: one SQLite file, short transactions; called from worker threads.

A write that returns is on disk (``synchronous=FULL``). Every change of state asks ``MOVES`` in its
transaction, so when cancel and finish race the first to commit wins and the other is told so.
Surprise: reads and writes share one connection behind one lock. The longest a reader waits is one
fsync, and what it reads is never older than what somebody was promised.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from detector_service.errors import RefusedError, StartError, StateWriteError
from detector_service.jobs.rows import (
    SCHEMA,
    bookmark_of,
    chunk_of,
    chunk_row,
    columns_of,
    film_text,
    job_of,
    recipe_text,
)
from detector_service.jobs.video import MOVES, Chunk, Job, Recipe, State
from detector_service.media import Bookmark, FilmInfo

VERSION: Final = 1
FULL: Final = frozenset({sqlite3.SQLITE_FULL})
_FINAL: Final = tuple(state for state in State if state.final)


@dataclass(frozen=True)
class Tail:
    """Where a film stands: its last finished chunk.

    Attributes:
        number: of that chunk, 0: there is none yet.
        frames: in all finished chunks.
        bookmark: where to go on; None: at the start.
        last: the whole film is done.
    """

    number: int = 0
    frames: int = 0
    bookmark: Bookmark | None = None
    last: bool = False


class Journal:
    """The jobs and their chunks."""

    def __init__(self, path: Path) -> None:
        """Make the file, or look whether it can be used; ``open`` before anything else.

        Raises:
            StartError: it is damaged, of a newer version, or cannot be opened; it is kept as it is.
        """
        self.path = path
        self._lock = threading.Lock()
        self._opened: sqlite3.Connection | None = None
        try:
            with closing(self._connect()) as connection:
                self._check(connection)
        except sqlite3.OperationalError as exc:
            raise StartError(f"cannot open the journal of videos {path}: {exc}") from exc
        except sqlite3.DatabaseError as exc:
            raise self._damaged(str(exc)) from exc

    def open(self) -> None:
        """Take the connection."""
        self._opened = self._connect()

    def close(self) -> None:
        """Give the connection back; waits for a transaction in hand."""
        with self._lock:
            if self._opened is not None:
                self._opened.close()
                self._opened = None

    def job(self, name: str) -> Job | None:
        """Return the job with this id, or None."""
        found = self._read("SELECT * FROM jobs WHERE id = ?", name)
        return job_of(found[0]) if found else None

    def jobs(
        self, *, state: State | None = None, before: int | None = None, most: int = 100
    ) -> list[Job]:
        """Return jobs, newest first; ``before`` (a ``seq``) goes on where a page ended."""
        found = self._read(
            "SELECT * FROM jobs WHERE (?1 IS NULL OR state = ?1) AND (?2 IS NULL OR seq < ?2) "
            "ORDER BY seq DESC LIMIT ?3",
            *(state, before, most),
        )
        return [job_of(row) for row in found]

    def live(self) -> list[Job]:
        """Return the jobs that have not ended, oldest first."""
        return [job_of(row) for row in self._read(_where_final("NOT IN", "ORDER BY seq"))]

    def ended_before(self, at: float) -> list[Job]:
        """Return the jobs that ended before ``at`` (epoch seconds)."""
        query = _where_final("IN", "AND ended_at < ? ORDER BY seq")
        return [job_of(row) for row in self._read(query, at)]

    def ids(self) -> list[str]:
        """Return the ids of all jobs."""
        return [row["id"] for row in self._read("SELECT id FROM jobs")]

    def tail(self, job: Job) -> Tail:
        """Return where the film of ``job`` stands."""
        found = self._read(
            "SELECT number, first_index + frames AS frames, bookmark, last FROM chunks "
            "WHERE job = ? ORDER BY number DESC LIMIT 1",
            job.seq,
        )
        if not found:
            return Tail()
        row = found[0]
        return Tail(row["number"], row["frames"], bookmark_of(row["bookmark"]), bool(row["last"]))

    def pieces(self, job: Job) -> list[int]:
        """Return the numbers of the finished chunks that have frames, in order."""
        query = "SELECT number FROM chunks WHERE job = ? AND frames > 0 ORDER BY number"
        return [row["number"] for row in self._read(query, job.seq)]

    def chunks(self, job: Job) -> Iterator[Chunk]:
        """Yield the finished chunks in order, one at a time in memory."""
        number = 0
        while found := self._read(
            "SELECT * FROM chunks WHERE job = ? AND number > ? ORDER BY number LIMIT 1",
            *(job.seq, number),
        ):
            chunk = chunk_of(found[0])
            yield chunk
            number = chunk.number

    def summary(self, job: Job) -> str | None:
        """Return what was kept with the end of a job that is done; None: it was deleted."""
        found = self._read("SELECT summary FROM summaries WHERE job = ?", job.seq)
        return found[0]["summary"] if found else None

    def knows(self, key: str) -> bool:
        """Say whether a job was made with this Idempotency-Key."""
        return bool(self._read("SELECT 1 FROM jobs WHERE idempotency_key = ?", key))

    def add(self, job: Job, *, key: str | None, fingerprint: str) -> tuple[Job, bool]:
        """Keep a new job (its ``seq`` is given here); returns it, and whether it is new.

        Args:
            job: what is accepted.
            key: the client's Idempotency-Key; with it the same content gets the same job.
            fingerprint: digest of the content and the options.

        Raises:
            RefusedError: 409, the key was used for other content.
            StateWriteError: it could not be made durable; nothing was changed.
        """
        with self._transaction() as connection:
            if key is not None:
                query = "SELECT * FROM jobs WHERE idempotency_key = ?"
                known = connection.execute(query, (key,)).fetchone()
                if known is not None:
                    return _replayed(known, key, fingerprint), False
            columns = {**columns_of(job), "idempotency_key": key, "fingerprint": fingerprint}
            names, marks = ", ".join(columns), ", ".join(f":{name}" for name in columns)
            query = f"INSERT INTO jobs ({names}) VALUES ({marks})"  # noqa: S608 - our own names
            return replace(job, seq=connection.execute(query, columns).lastrowid or 0), True

    def fetch(self, job: Job, *, tries: int) -> Job | None:
        """Say how often the fetch was begun and did not end; None: it was cancelled meanwhile."""
        return self._move(job, State.FETCHING, {"tries": tries})

    def fetched(self, job: Job, film: FilmInfo, *, size: int, digest: str) -> Job | None:
        """Queue a job whose source has arrived; None: it was cancelled meanwhile."""
        arrived = {"film": film_text(film), "size": size, "digest": digest}
        return self._move(job, State.QUEUED, {**arrived, "url": None, "tries": 0})

    def start(self, job: Job, recipe: Recipe, now: float) -> Job | None:
        """Count a try, fix the recipe where there is none yet; None: it was cancelled meanwhile.

        A recipe whose model is not the one loaded now cannot be followed any further: the film
        starts over with the same settings.
        """
        started_at = job.started_at if job.started_at is not None else now
        told: dict[str, Any] = {"tries": job.tries + 1, "started_at": started_at}
        anew = job.recipe is not None and job.recipe.engine != recipe.engine
        if job.recipe is None or anew:
            kept = recipe if job.recipe is None else job.recipe.run_by(recipe)
            told |= {"recipe": recipe_text(kept), "frames_done": 0, "worked_s": 0.0}
        return self._move(job, State.RUNNING, {**told, "reason": None, "words": None}, clear=anew)

    def add_chunk(self, job: Job, chunk: Chunk, worked_s: float) -> bool:
        """Keep a finished chunk, whose segment must be on disk; False: the job no longer runs.

        Raises:
            StateWriteError: it could not be made durable; nothing was changed.
        """
        with self._transaction() as connection:
            kept = connection.execute(
                "UPDATE jobs SET tries = 0, frames_done = frames_done + ?, worked_s = worked_s + ? "
                "WHERE seq = ? AND state = ?",
                (chunk.frames, worked_s, job.seq, State.RUNNING),
            )
            if kept.rowcount == 0:
                return False
            connection.execute(
                "INSERT INTO chunks VALUES (?, ?, ?, ?, ?, ?, ?, ?)", chunk_row(job.seq, chunk)
            )
            return True

    def park(self, job: Job, reason: str, words: str, *, clean: bool) -> Job | None:
        """Put a running job aside; ``clean``: nothing went wrong, so its tries are forgotten."""
        told: dict[str, Any] = {"reason": reason, "words": words}
        return self._move(job, State.PARKED, told | ({"tries": 0} if clean else {}))

    def end(
        self,
        job: Job,
        state: State,
        now: float,
        reason: str | None = None,
        words: str | None = None,
        *,
        summary: str | None = None,
    ) -> Job | None:
        """Give a job its final state; None: it has one already (or may not take this one)."""
        told = {"reason": reason, "words": words, "ended_at": now, "url": None}
        return self._move(job, state, told, summary=summary)

    def forget(self, job: Job) -> None:
        """Remove an ended job and its chunks."""
        with self._transaction() as connection:
            query = f"DELETE FROM jobs WHERE seq = ? AND state IN ({_marks(_FINAL)})"  # noqa: S608 - question marks
            connection.execute(query, (job.seq, *_FINAL))

    def _move(
        self,
        job: Job,
        to: State,
        told: Mapping[str, Any],
        *,
        clear: bool = False,
        summary: str | None = None,
    ) -> Job | None:
        origins = [state for state in State if to in MOVES[state]]
        sets = ", ".join(f"{name} = ?" for name in told)
        query = f"UPDATE jobs SET state = ?, {sets} WHERE seq = ? AND state IN ({_marks(origins)})"  # noqa: S608 - our own names and question marks
        with self._transaction() as connection:
            moved = connection.execute(query, (to, *told.values(), job.seq, *origins))
            if moved.rowcount == 0:
                return None
            if clear:
                connection.execute("DELETE FROM chunks WHERE job = ?", (job.seq,))
            if summary is not None:
                connection.execute("INSERT INTO summaries VALUES (?, ?)", (job.seq, summary))
            row = connection.execute("SELECT * FROM jobs WHERE seq = ?", (job.seq,)).fetchone()
            return job_of(row)

    def _read(self, query: str, *told: object) -> list[sqlite3.Row]:
        with self._lock:
            try:
                return self._connection().execute(query, told).fetchall()
            except sqlite3.OperationalError as exc:
                words = f"cannot read the journal of videos {self.path}: {exc}"
                raise StateWriteError(words) from exc

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            connection = self._connection()
            try:
                connection.execute("BEGIN IMMEDIATE")
                yield connection
                connection.execute("COMMIT")
            except sqlite3.OperationalError as exc:
                raise self._unwritable(exc) from exc
            finally:
                if connection.in_transaction:
                    connection.rollback()

    def _connection(self) -> sqlite3.Connection:
        if self._opened is None:
            raise StateWriteError(f"the journal of videos {self.path} is closed; nothing was done")
        return self._opened

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        return connection

    def _check(self, connection: sqlite3.Connection) -> None:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > VERSION:
            raise StartError(
                f"the journal of videos {self.path} is of version {version}, newer than "
                f"{VERSION}, which this service knows; start the newer service, or move it away"
            )
        if version == 0:
            if connection.execute("SELECT 1 FROM sqlite_schema").fetchone() is not None:
                raise self._damaged("it has tables, but no version")
            connection.executescript(
                f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version = {VERSION}; COMMIT"
            )
        sound = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if sound != "ok":
            raise self._damaged(sound)

    def _damaged(self, what: str) -> StartError:
        return StartError(
            f"the journal of videos {self.path} is damaged: {what}. It is kept as it is; repair "
            "it, or move it and the folder videos beside it away to start without any video"
        )

    def _unwritable(self, exc: sqlite3.OperationalError) -> StateWriteError:
        return StateWriteError(
            f"cannot write the journal of videos {self.path}: {exc}; nothing was changed",
            disk_full=exc.sqlite_errorcode in FULL,
        )


def _replayed(row: sqlite3.Row, key: str, fingerprint: str) -> Job:
    if row["fingerprint"] != fingerprint:
        raise RefusedError(
            409,
            "idempotency_key_reused",
            f"Idempotency-Key {key!r} was used for another video or other options; use a new key",
        )
    return job_of(row)


def _where_final(member: str, more: str) -> str:
    names = ", ".join(f"'{state}'" for state in _FINAL)
    return f"SELECT * FROM jobs WHERE state {member} ({names}) {more}"  # noqa: S608 - our own names


def _marks(values: object) -> str:
    return ", ".join("?" * len(values))  # type: ignore[arg-type]
