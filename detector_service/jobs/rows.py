"""Rows of the journal and the values they are: the tables, and the way there and back.

Used by ``journal`` alone. Surprise: what no query ever asks for by name (options, recipe, film,
bookmark) is one column of JSON; a new field in one of them must raise ``journal.VERSION``.
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from typing import Any, Final

from pydantic import TypeAdapter

from detector_service.jobs.video import Chunk, Job, Options, Recipe, Seen, State
from detector_service.media import Bookmark, FilmInfo

SCHEMA: Final = """
CREATE TABLE jobs (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  state TEXT NOT NULL,
  reason TEXT,
  words TEXT,
  options TEXT NOT NULL,
  origin TEXT,
  url TEXT,
  size INTEGER,
  digest TEXT,
  film TEXT,
  recipe TEXT,
  idempotency_key TEXT UNIQUE,
  fingerprint TEXT NOT NULL,
  created_at REAL NOT NULL,
  started_at REAL,
  ended_at REAL,
  tries INTEGER NOT NULL DEFAULT 0,
  worked_s REAL NOT NULL DEFAULT 0,
  frames_done INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX jobs_by_state ON jobs (state, seq);
CREATE TABLE chunks (
  job INTEGER NOT NULL REFERENCES jobs (seq) ON DELETE CASCADE,
  number INTEGER NOT NULL,
  first_index INTEGER NOT NULL,
  frames INTEGER NOT NULL,
  bookmark TEXT,
  last INTEGER NOT NULL,
  decode_errors INTEGER NOT NULL,
  seen BLOB NOT NULL,
  PRIMARY KEY (job, number)
);
CREATE TABLE summaries (
  job INTEGER PRIMARY KEY REFERENCES jobs (seq) ON DELETE CASCADE,
  summary TEXT NOT NULL
);
"""

_OPTIONS: TypeAdapter[Options] = TypeAdapter(Options)
_RECIPE: TypeAdapter[Recipe] = TypeAdapter(Recipe)
_FILM: TypeAdapter[FilmInfo] = TypeAdapter(FilmInfo)
_BOOKMARK: TypeAdapter[Bookmark] = TypeAdapter(Bookmark)


def film_text(film: FilmInfo) -> str:
    """Return a film's facts as kept."""
    return _dump(_FILM, film)


def recipe_text(recipe: Recipe) -> str:
    """Return a recipe as kept."""
    return _dump(_RECIPE, recipe)


def columns_of(job: Job) -> dict[str, Any]:
    """Return what a new job is inserted with, by column."""
    return {
        "id": job.id,
        "state": job.state,
        "options": _dump(_OPTIONS, job.options),
        "origin": job.origin,
        "url": job.url,
        "size": job.size,
        "digest": job.digest,
        "film": None if job.film is None else _dump(_FILM, job.film),
        "created_at": job.created_at,
    }


def job_of(row: sqlite3.Row) -> Job:
    """Return a row of ``jobs`` as a job."""
    film, recipe = row["film"], row["recipe"]
    return Job(
        seq=row["seq"],
        id=row["id"],
        state=State(row["state"]),
        options=_OPTIONS.validate_json(row["options"]),
        created_at=row["created_at"],
        reason=row["reason"],
        words=row["words"],
        origin=row["origin"],
        url=row["url"],
        size=row["size"],
        digest=row["digest"],
        film=None if film is None else _FILM.validate_json(film),
        recipe=None if recipe is None else _RECIPE.validate_json(recipe),
        started_at=row["started_at"],
        ended_at=row["ended_at"],
        tries=row["tries"],
        worked_s=row["worked_s"],
        frames_done=row["frames_done"],
    )


def chunk_row(seq: int, chunk: Chunk) -> tuple[Any, ...]:
    """Return a chunk of job number ``seq`` as a row of ``chunks``."""
    seen = [[s.index, s.tick, s.found, s.skipped, s.crc32] for s in chunk.seen]
    return (
        seq,
        chunk.number,
        chunk.first_index,
        chunk.frames,
        None if chunk.bookmark is None else _dump(_BOOKMARK, chunk.bookmark),
        chunk.last,
        chunk.decode_errors,
        zlib.compress(json.dumps(seen, separators=(",", ":")).encode()),
    )


def chunk_of(row: sqlite3.Row) -> Chunk:
    """Return a row of ``chunks`` as a chunk."""
    return Chunk(
        number=row["number"],
        first_index=row["first_index"],
        frames=row["frames"],
        bookmark=bookmark_of(row["bookmark"]),
        last=bool(row["last"]),
        decode_errors=row["decode_errors"],
        seen=tuple(_seen(*values) for values in json.loads(zlib.decompress(row["seen"]))),
    )


def _seen(index: int, tick: int, found: Any, skipped: bool, crc32: int | None) -> Seen:  # noqa: FBT001 - a row of JSON
    objects = None if found is None else tuple((a, b, c, tuple(d)) for a, b, c, d in found)
    return Seen(index, tick, objects, skipped, crc32)


def bookmark_of(text: str | None) -> Bookmark | None:
    """Return a bookmark as kept, None where there is none."""
    return None if text is None else _BOOKMARK.validate_json(text)


def _dump(adapter: TypeAdapter[Any], value: object) -> str:
    return adapter.dump_json(value).decode()
