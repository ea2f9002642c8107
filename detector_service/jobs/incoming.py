"""A film on its way to the disk: counted, capped, hashed, synced. Used by uploads and ``fetch``.

Surprise: bytes are gathered to ``BLOCK`` before a thread hashes and writes them, so the event loop
never waits for the disk and a film of any size takes the memory of one block.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from detector_service.disk import writing
from detector_service.errors import MediaError

BLOCK: Final = 2**20


@dataclass(frozen=True)
class Arrived:
    """A whole file, synced to disk; ``size`` in bytes."""

    size: int
    sha256: str


class Incoming:
    """One file being written; entered as ``async with``, removed again unless ``finish`` ended."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        """Write ``path`` anew, at most ``max_bytes``."""
        self._path = path
        self._max_bytes = max_bytes
        self._gathered = bytearray()
        self._hash = hashlib.sha256()
        self._finished = False
        self.size = 0

    async def __aenter__(self) -> Self:
        with writing(self._path):
            self._file = await asyncio.to_thread(self._path.open, "wb")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._finished:
            return
        # Nothing is awaited, so that a second cancellation cannot leave the file behind.
        with contextlib.suppress(OSError):
            self._file.close()  # on a full disk it fails again to write what it still holds
        self._path.unlink(missing_ok=True)

    async def add(self, data: bytes) -> None:
        """Take further bytes.

        Raises:
            MediaError: ``too_large``.
            StateWriteError: the disk is full or fails.
        """
        self.size += len(data)
        if self.size > self._max_bytes:
            raise too_large(self._max_bytes)
        self._gathered += data
        if len(self._gathered) >= BLOCK:
            await self._write()

    async def finish(self) -> Arrived:
        """Sync the file; it stays.

        Raises:
            StateWriteError: the disk is full or fails; the file is removed.
        """
        await self._write()
        with writing(self._path):
            await asyncio.to_thread(self._sync)
        self._finished = True
        return Arrived(self.size, self._hash.hexdigest())

    async def _write(self) -> None:
        block, self._gathered = self._gathered, bytearray()
        with writing(self._path):
            await asyncio.to_thread(self._put, block)

    def _put(self, block: bytearray) -> None:
        self._hash.update(block)
        self._file.write(block)

    def _sync(self) -> None:
        with self._file:
            self._file.flush()
            os.fsync(self._file.fileno())


def too_large(max_bytes: int) -> MediaError:
    """Return the error of a film that is larger than allowed."""
    words = f"the film is larger than {max_bytes} bytes; send a shorter or smaller one"
    return MediaError("too_large", words)
