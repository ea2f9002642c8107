"""A journal on disk with a clock that stands still, and a way to open it a second time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from remediator.store.database import Database
from tests.api.edge import Hands, a_journal


@pytest.fixture
def clock() -> Hands:
    return Hands()


@pytest.fixture
def opened(tmp_path: Path, clock: Hands) -> Iterator[Callable[[], Database]]:
    """Open the same journal once more, as another replica on this machine would."""
    journals: list[Database] = []

    def open_one() -> Database:
        journal = a_journal(tmp_path / "journal.db", clock)
        journals.append(journal)
        return journal

    yield open_one
    for journal in journals:
        journal.close()


@pytest.fixture
def db(opened: Callable[[], Database]) -> Database:
    return opened()
