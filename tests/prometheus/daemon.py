"""Runs a real daemon on a free loopback port for the tests of the adapters."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
        return port


@contextmanager
def running(
    argv: Sequence[str],
    folder: Path,
    *,
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Iterator[None]:
    """Run a program; it is gone afterwards, and what it said is in `folder/output`."""
    with (folder / "output").open("wb") as output:
        daemon = subprocess.Popen(
            argv, stdout=output, stderr=output, cwd=cwd or folder, env=environment
        )
        try:
            yield
        finally:
            daemon.terminate()
            daemon.wait(30)


async def until(condition: Callable[[], Awaitable[bool]], timeout_s: float = 60.0) -> None:
    """Wait until `condition` holds."""
    async with asyncio.timeout(timeout_s):
        while not await condition():  # noqa: ASYNC110 - the state is in another process
            await asyncio.sleep(0.05)
