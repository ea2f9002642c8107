"""Every error raised on purpose; the routes turn them into answers, the edge into exit codes.

The tree::

    DetectorError
    ├── StartError            the process must not start; exit code 2, one line
    ├── RefusedError          an HTTP answer with a status, a reason word and evidence
    ├── StateWriteError       the state file could not be made durable
    ├── MediaError            a video cannot be read, or is more than is allowed
    └── InferenceError        the model failed on this input; the device itself is fine
        ├── OutOfMemoryError  the device had no room for this many frames; fewer may fit
        └── DeviceLostError   the thread that owns the device is gone or stopping

Surprise: ``RefusedError`` is the only one that knows HTTP; it is raised from pure rules too, since
the status *is* the contract of those rules (412 for a stale writer, 409 for a pinned knob).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class DetectorError(Exception):
    """Base of everything raised on purpose."""


class StartError(DetectorError):
    """The service cannot start as configured; the message says what to change."""


class RefusedError(DetectorError):
    """A request is refused with an HTTP status and one reason word that programs can read."""

    def __init__(
        self,
        status: int,
        reason: str,
        message: str,
        *,
        evidence: Mapping[str, Any] | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        """Keep the parts of the answer.

        Args:
            status: HTTP status code.
            reason: one word, stable, for programs.
            message: a sentence for people: what is wrong, where, what to do.
            evidence: further fields of the JSON body.
            retry_after_s: whole seconds for the ``Retry-After`` header.
        """
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.evidence = dict(evidence or {})
        self.retry_after_s = retry_after_s

    def body(self) -> dict[str, Any]:
        """Return the JSON body: the sentence, the reason word, the evidence."""
        return {"error": str(self), "reason": self.reason, **self.evidence}


class StateWriteError(DetectorError):
    """The state file could not be made durable; nothing was changed, unless it was ``replaced``."""

    def __init__(self, message: str, *, disk_full: bool = False, replaced: bool = False) -> None:
        """Keep what kind of failure it is.

        Args:
            message: a sentence for people.
            disk_full: the disk is full (507), else something else is wrong (503).
            replaced: the file was replaced already, and may be lost in a power cut (500).
        """
        super().__init__(message)
        self.disk_full = disk_full
        self.replaced = replaced


class MediaError(DetectorError):
    """A video cannot be read, or is more than is allowed; nothing is wrong with the service."""

    def __init__(self, reason: str, message: str) -> None:
        """Keep the reason word (for programs) beside the sentence (for people)."""
        super().__init__(message)
        self.reason = reason


class InferenceError(DetectorError):
    """The model failed on one input; other inputs may go on."""


class OutOfMemoryError(InferenceError):
    """The device had no room for this pass; a smaller one may fit."""


class DeviceLostError(InferenceError):
    """The thread that owns the device has ended; only a restart of the process helps."""
