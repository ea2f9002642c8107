"""Looking what a file is, in a few threads of its own; used by the crew and, by way of it, uploads.

Surprise: a film can be made so that this takes very long, which is why nothing else runs in these
threads, why there is a deadline, and why one whose sender has left is let go of.
"""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from detector_service.errors import MediaError
from detector_service.media import FilmInfo, MediaLimits, probe

THREADS: Final = 2
DEADLINE_S: Final = 30.0  # a sound film takes some milliseconds, on a slow disk some seconds


class Prober:
    """Looks at two files at once; the others wait."""

    def __init__(self, limits: MediaLimits, deadline_s: float = DEADLINE_S) -> None:
        """Prepare."""
        self._limits = limits
        self._deadline_s = deadline_s
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="probe")

    async def look(self, path: Path) -> FilmInfo:
        """Return the facts of a film.

        Raises:
            MediaError: it is no film that is taken (see ``media.probe``), or ``slow_to_read``.
        """
        left = threading.Event()
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._pool, self._probe, path, left
            )
        finally:
            left.set()

    def shut(self) -> None:
        """Take nothing more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _probe(self, path: Path, left: threading.Event) -> FilmInfo:
        until = time.monotonic() + self._deadline_s

        def wanted() -> None:
            if left.is_set() or time.monotonic() > until:
                words = f"no frame of it was found in {self._deadline_s:g} s; it may be damaged"
                raise MediaError("slow_to_read", f"{words}; encode it anew")

        wanted()
        return probe(path, self._limits, on_packet=wanted)
