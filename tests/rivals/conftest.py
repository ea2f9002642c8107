"""A fresh world for each story, and many targets for those that need a crowd."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.world import World, a_world

CROWD = tuple(f"gpu-{number}" for number in range(1, 13))


@pytest.fixture(autouse=True)
def _unprinted() -> Iterator[None]:
    """Keep what is logged instead of drawing it: a traceback takes longer than a story."""
    with capture_logs():
        yield


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Return a world with the default pace, two targets, nothing served and nothing firing."""
    with a_world(tmp_path) as made:
        yield made


@pytest.fixture
def crowd(tmp_path: Path) -> Iterator[World]:
    """Return a world with twelve targets in one pool."""
    with a_world(tmp_path, targets=CROWD) as made:
        yield made
