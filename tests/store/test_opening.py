"""What happens when the journal cannot be opened: one sentence, and the file stays as it is."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from remediator.errors import ConfigurationError, StoreUnavailableError
from remediator.store.database import Database, Tx, moment
from remediator.store.tables import metadata


def refused(url: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        Database(url).migrate()
    return str(caught.value)


def test_a_damaged_file_is_named_and_kept_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    damaged = b"these bytes are no database" * 100
    path.write_bytes(damaged)
    said = refused(f"sqlite:///{path}")
    assert str(path) in said
    assert "move that file away" in said
    assert path.read_bytes() == damaged


def test_a_folder_that_does_not_exist_is_said_to_be_the_reason(tmp_path: Path) -> None:
    assert "its folder must exist" in refused(f"sqlite:///{tmp_path / 'nowhere' / 'journal.db'}")
    assert list(tmp_path.iterdir()) == []


def test_a_journal_that_may_only_be_read_is_refused_at_start(tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / "journal.db").execute("CREATE TABLE x (y)").connection.close()
    said = refused(f"sqlite:///file:{tmp_path}/journal.db?mode=ro&uri=true")
    assert "must be writable" in said


def test_the_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "grafana.db"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE dashboard (id)")
    other.close()
    before = path.read_bytes()
    assert "something else (it has a table 'dashboard')" in refused(f"sqlite:///{path}")
    with sqlite3.connect(path) as other:
        tables = other.execute("SELECT name FROM sqlite_master WHERE type='table'").fetchall()
    other.close()
    assert tables == [("dashboard",)]
    assert len(path.read_bytes()) == len(before)


def test_a_journal_of_a_newer_version_is_refused_with_advice(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal = Database(f"sqlite:///{path}")
    journal.migrate()
    journal.transact(_pretend_newer)
    journal.close()
    said = refused(f"sqlite:///{path}")
    assert "written by another version" in said
    assert "upgrade" in said


def _pretend_newer(tx: Tx) -> None:
    tx.conn.execute(text("UPDATE alembic_version SET version_num = '9999'"))


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nonsense", "is not an address"),
        ("mysql://root@db/journal", "is not supported"),
        ("postgresql://db/journal", "postgresql+psycopg://"),
        ("sqlite://", "in memory"),
        ("sqlite:///:memory:", "in memory"),
    ],
)
def test_an_address_that_can_hold_no_journal_is_refused_in_a_sentence(url: str, said: str) -> None:
    assert said in refused(url)


def test_no_message_shows_the_password_of_the_database() -> None:
    said = refused("postgresql+psycopg://remediator:hunter2@127.0.0.1:1/journal")
    assert "127.0.0.1" in said
    assert "hunter2" not in said


@pytest.mark.slow
def test_two_controllers_may_start_on_a_new_file_at_the_same_moment(tmp_path: Path) -> None:
    for attempt in range(5):
        journals = [Database(f"sqlite:///{tmp_path / f'{attempt}.db'}") for _ in range(4)]
        with ThreadPoolExecutor(max_workers=4) as pool:
            list(pool.map(Database.migrate, journals))
        for journal in journals:
            journal.transact(moment)
            journal.close()


def test_starting_again_on_a_journal_changes_nothing(opened: Callable[[], Database]) -> None:
    first = opened()
    first.migrate()
    before = first.transact(_schema)
    second = opened()
    second.migrate()
    assert second.transact(_schema) == before


def _schema(tx: Tx) -> list[Any]:
    return list(tx.conn.execute(text("SELECT name, sql FROM sqlite_master ORDER BY name")))


def test_the_migrations_make_exactly_the_tables_that_the_code_uses(db: Database) -> None:
    with db._engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_a_journal_that_is_damaged_while_it_serves_is_unavailable_and_not_empty(
    db: Database, tmp_path: Path
) -> None:
    db.transact(lambda tx: tx.conn.execute(text("INSERT INTO fences VALUES ('d', 1)")) and None)
    db._engine.dispose()
    path = tmp_path / "journal.db"
    path.write_bytes(b"\0" * path.stat().st_size)
    with pytest.raises(StoreUnavailableError):
        db.transact(lambda tx: list(tx.conn.execute(text("SELECT * FROM fences"))), writing=False)
