"""One nursery for each test process; worlds are made by the tests themselves."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.harness.nursery import Nursery


@pytest.fixture(scope="session")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    """Start controllers fast; all are gone afterwards."""
    started = Nursery(tmp_path_factory.mktemp("nursery") / "log")
    yield started
    started.close()
