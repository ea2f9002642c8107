"""A fresh world for each test of the engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.world import World, a_world


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Return a world with the default pace, nothing served and nothing firing."""
    with a_world(tmp_path) as made:
        yield made
