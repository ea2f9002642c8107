"""What lasts on a disk, and how a disk's refusals are told; used by jobs, media and backends.

Surprise: a new name lasts only once its folder is synced, too. The settings document does that in
its own way (``tunables.statefile``), since it opens the folder before it replaces anything.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from detector_service.errors import StateWriteError

FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Numbers of the errors that more room would cure."""


def sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to disk.

    Raises:
        OSError: it may not survive a power cut.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the file system raises into ``StateWriteError``."""
    try:
        yield
    except OSError as exc:
        words = f"cannot write {path}: {exc.strerror or exc}; nothing was changed"
        raise StateWriteError(words, disk_full=exc.errno in FULL) from exc
