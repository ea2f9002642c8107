"""Folders that are costly to build and are built once; used by ``openvino`` for its exports.

Surprise: the lock only saves work (several detectors start at once and one of them builds); what
makes a folder trustworthy are the checksums in it, and that it appears by one rename.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from detector_service.disk import sync

log = logging.getLogger(__name__)

SUMS = "sums.json"


def built_once(folder: Path, build: Callable[[Path], None]) -> Path:
    """Return ``folder``, built first if it is not there or damaged.

    Args:
        folder: where it shall be; a good one is used even where nothing can be written.
        build: fills an empty folder.

    Raises:
        OSError: it has to be built and cannot be written.
    """
    if _whole(folder):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.with_name(f"{folder.name}.lock")):
        if not _whole(folder):  # else somebody built it while this process waited
            _discard(folder)
            _build(folder, build)
    return folder


def _build(folder: Path, build: Callable[[Path], None]) -> None:
    # Not mkdtemp, whose folders nobody else may read; several users may share a cache.
    temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(8)}")
    temporary.mkdir()
    try:
        build(temporary)
        (temporary / SUMS).write_text(json.dumps(_sums(temporary)), encoding="utf-8")
        for path in (*temporary.rglob("*"), temporary):
            sync(path)
        temporary.rename(folder)
        sync(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _whole(folder: Path) -> bool:
    try:
        return bool(json.loads((folder / SUMS).read_bytes()) == _sums(folder))
    except (OSError, ValueError):
        return False


def _sums(folder: Path) -> dict[str, str]:
    sums = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != SUMS:
            with path.open("rb") as file:
                sums[str(path.relative_to(folder))] = hashlib.file_digest(
                    file, "sha256"
                ).hexdigest()
    return sums


def _discard(folder: Path) -> None:
    """Remove a damaged folder, and what a process that was killed while it built left behind."""
    for left in folder.parent.glob(f".{folder.name}.*"):
        shutil.rmtree(left)
    if folder.exists():
        log.warning("the cached folder %s is damaged; building it anew", folder)
        shutil.rmtree(folder)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # the kernel lets go of it when the process ends
        yield
