"""Is this file a checkpoint that may be loaded? Asked by ``__main__`` before torch is imported.

Surprise: a checkpoint is a zip, and torch reads one without looking at its checksums. Weights that
rotted on a disk would load and see nothing, so the checksums are verified here.
"""

from __future__ import annotations

import hashlib
import pickle
import re
import zipfile
import zlib
from pathlib import Path

from detector_service.errors import StartError

ADVICE = "set DETECTOR_MODEL to an Ultralytics .pt file"


def require_checkpoint(path: Path) -> None:
    """Refuse early what cannot be a checkpoint.

    Raises:
        StartError: no such file, a folder, empty, not in torch's zip format, or damaged.
    """
    if path.is_dir():
        raise StartError(f"the model file {path} is a folder; {ADVICE}")
    if not path.is_file():
        raise StartError(f"there is no model file {path}; {ADVICE}")
    if path.suffix != ".pt":
        raise StartError(f"the model file {path} is not a .pt checkpoint; {ADVICE}")
    try:
        if path.stat().st_size == 0:
            raise StartError(f"the model file {path} is empty; copy it again, or {ADVICE}")
        with zipfile.ZipFile(path) as archive:
            rotten = archive.testzip()
    # What zipfile raises on torn archives, and on entries it cannot unpack.
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as exc:
        words = f"the model file {path} is damaged or no torch checkpoint ({exc}); {ADVICE}"
        raise StartError(words) from exc
    except OSError as exc:
        raise StartError(f"cannot read the model file {path}: {exc.strerror or exc}") from exc
    if rotten is not None:
        words = f"the model file {path} is damaged: the checksum of {rotten} is wrong"
        raise StartError(f"{words}; copy it again, or {ADVICE}")


def fingerprint(path: Path) -> str:
    """Return the sha256 of the file, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def refused(path: Path, exc: BaseException) -> StartError:
    """Say in one line why the libraries could not load the checkpoint."""
    pickled = exc if isinstance(exc, pickle.UnpicklingError) else exc.__cause__
    if isinstance(pickled, pickle.UnpicklingError):
        named = re.search(r"(?:GLOBAL|global:?) (?!GLOBAL\b)([\w.]+)", str(pickled))
        what = f"it names {named[1]}" if named else "it holds more than weights"
        return StartError(
            f"the model file {path} is refused because it may be a program: {what}, which is no "
            "part of an Ultralytics detector; get it from somebody you trust, as plain weights"
        )
    # Its advice is for people at a terminal, and the path is that of a link.
    told = re.sub(
        r"ERROR \W*|\S*/checkpoint\.pt|(Use an official|Load the original|\(Could).*", "", str(exc)
    )
    words = " ".join(told.split())[:300]
    return StartError(f"cannot load the model file {path} as an Ultralytics detector: {words}")
