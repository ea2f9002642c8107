"""A secret that lives in a file. Read by the actuators just before each call.

The surprise: nothing is cached, so a token that was rotated on disk is used by the next call and
nobody has to restart the controller.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from remediator.errors import PermanentError, TemporaryError


async def read_secret(path: Path) -> str:
    """Return the content of `path` without the white space around it.

    Raises:
        TemporaryError: missing, unreadable or empty, as it may be in the middle of a rotation.
        PermanentError: it holds something that cannot travel in an HTTP header.
    """
    try:
        secret = (await asyncio.to_thread(path.read_bytes)).strip()
    except OSError as error:
        raise TemporaryError(f"cannot read the secret file {path}: {error.strerror}") from error
    if not secret:
        raise TemporaryError(f"the secret file {path} is empty")
    text = secret.decode("latin-1")
    if not (text.isascii() and text.isprintable()):
        raise PermanentError(
            f"the secret file {path} holds more than printable ASCII; write one line of it"
        )
    return text
