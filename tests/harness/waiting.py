"""Waiting on conditions, and ports nobody else takes. Used by everything in this folder."""

from __future__ import annotations

import itertools
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

POLL_S = 0.03


def until(look: Callable[[], T], *, within_s: float = 30.0, what: str = "") -> T:
    """Ask until the answer is true, and return it; fail with the last answer after a while."""
    deadline = time.monotonic() + within_s
    while True:
        seen = look()
        if seen:
            return seen
        assert time.monotonic() < deadline, f"it never came: {what or look}; last seen {seen!r}"
        time.sleep(POLL_S)


def _numbers() -> Iterator[int]:
    # Below the range from which the kernel takes the near end of connections, or one of the many
    # here could sit on a port that a controller comes back to. One stretch for each xdist worker.
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first = 20_000 + 1_500 * (worker % 8)
    return itertools.cycle(range(first, first + 1_500))


_PORTS = _numbers()


def free_port() -> int:
    """Return a loopback port that nobody listens on and that is not handed out again soon."""
    for port in _PORTS:
        with socket.socket() as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                tried.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no port is free")


def is_alive(pid: int) -> bool:
    """Say whether a process runs; one that ended and was not yet taken note of does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
