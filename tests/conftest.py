"""Fixtures every test folder may use. Kept tiny: what only one folder needs lives there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

import pytest

SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin"])


@pytest.fixture(scope="session")
def daemon() -> Callable[..., str]:
    """Find a real program by any of its names.

    One that is missing is a failure where CI is set, and a skip on somebody's own machine.
    """

    def find(*names: str) -> str:
        for name in names:
            if path := shutil.which(name, path=SEARCH_PATH):
                return path
        message = f"{' or '.join(names)} is not installed; make test says how to get it"
        if os.environ.get("CI", "").lower() in {"1", "true", "yes"}:
            pytest.fail(message)
        pytest.skip(message)

    return find
