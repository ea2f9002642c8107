"""The controller that most tests of this folder talk to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.api.edge import Edge, controller


@pytest.fixture
async def edge(tmp_path: Path) -> AsyncIterator[Edge]:
    async with controller(tmp_path) as built:
        yield built
