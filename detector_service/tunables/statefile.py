"""The document on disk: one JSON file, replaced whole; used by ``store`` and by start-up.

Order matters in ``write_durably``: the bytes are synced before the rename and the folder after it,
so that a power cut leaves either the old document or the new one.
Surprise: a damaged file is never moved away or overwritten. Starting at the full ceiling because a
throttle became unreadable is the failure this file exists to prevent. A value that this version
does not allow is no damage: after a change of version it becomes the nearest one that is allowed,
and a part that this version does not know is dropped.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from detector_service.errors import StartError, StateWriteError
from detector_service.tunables.document import INITIAL_OWNER, Document
from detector_service.tunables.knobs import KNOBS, Number, nearest, problem

log = logging.getLogger(__name__)

FILE_NAME = "settings.json"
LOCK_NAME = "lock"
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

_DOCUMENTS: TypeAdapter[Document] = TypeAdapter(Document)
_PARTS = frozenset(part.name for part in fields(Document))

Writer = Callable[[Path, bytes], None]


class UnsyncedError(OSError):
    """The file was replaced, but that is not known to survive a power cut."""


def write_durably(path: Path, data: bytes) -> None:
    """Replace ``path`` by ``data`` so that it survives a power cut.

    Raises:
        UnsyncedError: it was replaced, and its folder could not be synced.
        OSError: nothing was replaced.
    """
    fresh = path.with_name(f"{path.name}.new")
    # Opened first, so that running out of descriptors is found out before the rename.
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with fresh.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
        _sync(folder)
    finally:
        os.close(folder)


def _sync(folder: int) -> None:
    try:
        os.fsync(folder)
    except OSError as exc:
        raise UnsyncedError(exc.errno, exc.strerror) from exc


@dataclass(frozen=True)
class StateFile:
    """Where the document lives, and how bytes get there."""

    folder: Path
    writer: Writer = field(default=write_durably)

    @property
    def path(self) -> Path:
        """Return the path of the JSON file."""
        return self.folder / FILE_NAME

    def hold(self) -> int:
        """Make the folder and lock it for this process; returns the open lock's descriptor.

        Raises:
            StartError: the folder cannot be made, or another detector uses it.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.folder / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as exc:
            raise StartError(f"cannot use the state folder {self.folder}: {exc.strerror}") from exc
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            os.close(descriptor)
            raise StartError(
                f"another detector uses the state folder {self.folder}; "
                "stop it, or set DETECTOR_STATE_DIR to another folder"
            ) from exc
        return descriptor

    def load(self, initial: Mapping[str, Number]) -> Document:
        """Read the document, or make the first one from ``initial`` where there is no file.

        Settings that the file does not know yet start at ``initial`` too. What it knows and we do
        not is dropped, and a value we do not allow becomes the nearest, both with a warning: a
        file that another version wrote is no reason to stay down.

        Raises:
            StartError: the file cannot be read, or is not such a document.
        """
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return Document(base=dict(initial), owners=dict.fromkeys(initial, INITIAL_OWNER))
        except OSError as exc:
            raise StartError(f"cannot read the state file {self.path}: {exc.strerror}") from exc
        document = self._parse(data)
        owners = {**dict.fromkeys(initial, INITIAL_OWNER), **document.owners}
        return replace(document, base={**initial, **document.base}, owners=owners)

    def save(self, document: Document) -> None:
        """Make the document durable.

        Raises:
            StateWriteError: it is not; the old one stands, unless the error says ``replaced``.
        """
        try:
            self.writer(self.path, _DOCUMENTS.dump_json(document, indent=1))
        except UnsyncedError as exc:
            raise StateWriteError(
                f"the state file {self.path} was replaced and could not be synced: {exc.strerror}; "
                "the change is in force, but a power cut may undo it; read the settings again",
                replaced=True,
            ) from exc
        except OSError as exc:
            raise StateWriteError(
                f"cannot write the state file {self.path}: {exc.strerror}; nothing was changed",
                disk_full=exc.errno in FULL,
            ) from exc

    def _parse(self, data: bytes) -> Document:
        try:
            document = _DOCUMENTS.validate_json(data)
        except ValidationError as exc:
            first = exc.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the top"
            raise self._damaged(f"{first['msg']} (at {where})") from exc
        for name in sorted(json.loads(data).keys() - _PARTS):
            log.warning("%s: there is no part %r; it is dropped", self.path, name)
        leased = {name: lease.value for name, lease in document.leases.items()}
        for name, value in (*document.base.items(), *leased.items()):
            if not math.isfinite(value):
                raise self._damaged(f"{name} is {value}")
        return self._fitted(document)

    def _fitted(self, document: Document) -> Document:
        unknown = {*document.base, *document.leases, *document.pins} - KNOBS.keys()
        for name in sorted(unknown):
            log.warning("%s: there is no setting %r; it is dropped", self.path, name)
        return replace(
            document,
            base={
                name: self._allowed(name, value)
                for name, value in document.base.items()
                if name in KNOBS
            },
            leases={
                name: replace(lease, value=self._allowed(name, lease.value))
                for name, lease in document.leases.items()
                if name in KNOBS
            },
            pins={name: pin for name, pin in document.pins.items() if name in KNOBS},
            owners={name: owner for name, owner in document.owners.items() if name in KNOBS},
        )

    def _allowed(self, name: str, value: Number) -> Number:
        phrase = problem(name, value)
        if phrase is None:
            return value
        taken = nearest(name, value)
        log.warning("%s: %s %s; taken as %s", self.path, name, phrase, taken)
        return taken

    def _damaged(self, what: str) -> StartError:
        return StartError(
            f"the state file {self.path} is damaged: {what}. It is kept as it is; "
            "repair it, or move it away to start from the configured defaults"
        )
