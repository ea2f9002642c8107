"""Tells a person through the log, and through a file that other programs can follow.

Made by `app`; the notifier that always works. The surprise: the log line comes first, so a full
disk costs the file its line but never the person the news.
"""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import asdict
from pathlib import Path

import structlog

from remediator.clock import Clock, system_clock
from remediator.errors import TemporaryError
from remediator.model.effect import Message

LEVELS = {"warning": logging.WARNING, "critical": logging.CRITICAL}


class LogNotifier:
    """One structured log line for each message, and one JSON line in `path` if it is given."""

    def __init__(self, *, path: Path | None = None, clock: Clock = system_clock) -> None:
        self.path = path
        self.clock = clock

    async def notify(self, message: Message) -> None:
        """Write the message down.

        Raises:
            TemporaryError: the file could not be written; the log has the message all the same.
        """
        fields = asdict(message)
        level = LEVELS.get(message.severity, logging.INFO)
        structlog.get_logger().log(level, "notification", **fields)
        if self.path is None:
            return
        line = json.dumps({"at": self.clock().isoformat(), **fields}, ensure_ascii=False)
        try:
            await asyncio.to_thread(_append, self.path, line + "\n")
        except OSError as error:
            raise TemporaryError(f"cannot write to {self.path}: {error.strerror}") from error


def _append(path: Path, line: str) -> None:
    with path.open("a", encoding="utf-8", errors="replace") as file:
        file.write(line)
