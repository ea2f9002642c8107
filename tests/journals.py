"""Journals for tests: an empty one, one without waiting, and one whose process dies.

Every statement and every transaction is the real one; only when and in which thread it runs is
different. Used by `tests.world` and the tests of the engine.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from remediator.clock import Clock
from remediator.errors import StoreUnavailableError
from remediator.rehearsal.journal import RehearsalJournal, an_empty_journal
from remediator.store.database import Tx


def a_journal(folder: Path) -> str:
    """Make an empty journal in `folder` and return its URL."""
    folder.mkdir(exist_ok=True)
    path = folder / "journal.db"
    path.write_bytes(an_empty_journal())
    return f"sqlite:///{path}"


class Interrupted(RehearsalJournal):
    """A journal in which something else commits just before a chosen body."""

    before: str = ""
    then: Callable[[], object] | None = None

    def transact(self, body: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if body.__name__ == self.before and self.then is not None:
            then, self.then = self.then, None
            then()
        return super().transact(body, *args, **kwargs)


class DiedError(StoreUnavailableError):
    """The process is gone: nothing it does reaches the journal any more."""


@dataclass
class DeathPlan:
    """Die at the n-th transaction that writes anything (of this body, if one is named)."""

    at: int
    after_commit: bool
    body: str | None = None
    seen: int = 0
    dead: bool = False

    def strikes(self, body: str) -> bool:
        """Count a transaction that has written; True when it is the one to die at."""
        self.seen += self.body in {None, body}
        self.dead = self.seen == self.at and self.body in {None, body}
        return self.dead


class DyingDatabase(RehearsalJournal):
    """A journal connection whose process dies at a chosen write; then it is dead for good."""

    def __init__(self, url: str, *, clock: Clock, plan: DeathPlan) -> None:
        super().__init__(url, clock=clock)
        self.plan = plan

    def transact(
        self, body: Callable[..., Any], *args: Any, writing: bool = True, **kwargs: Any
    ) -> Any:
        plan = self.plan
        if plan.dead:
            raise DiedError("this process is dead")

        def watched(tx: Tx, *args: Any, **kwargs: Any) -> Any:
            before = _written(tx)
            result = body(tx, *args, **kwargs)
            if _written(tx) > before and plan.strikes(body.__name__) and not plan.after_commit:
                raise DiedError("died before the commit")
            return result

        result = super().transact(watched, *args, writing=writing, **kwargs)
        if plan.dead:
            raise DiedError("died after the commit")
        return result


def _written(tx: Tx) -> int:
    connection = tx.conn.connection.driver_connection
    assert isinstance(connection, sqlite3.Connection)
    return connection.total_changes
