"""What goes out: a call to a target, a message to a person.

Built by the engine, carried out by `actuators/` and `notifiers/`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Call:
    """One effect on one target, journaled before it is sent.

    Attributes:
        verb: what to do; each actuator documents its verbs.
        args: absolute values, never increments, so that a repeat is harmless.
        idempotency_key: the same for every attempt of this call, new for every iteration.
        fencing_token: grows with every claim on the target; the target may refuse an older one.
        timeout_s: longest wait for the answer, in seconds.
    """

    verb: str
    args: Mapping[str, Any] = field(default_factory=dict)
    idempotency_key: str = ""
    fencing_token: int = 0
    timeout_s: float = 10.0


@dataclass(frozen=True)
class Message:
    """What a person is told.

    Attributes:
        key: stable; the same event always has the same key, so a repeat can be recognised.
        severity: info, warning or critical.
        title: one line.
        body: what fired, what was done, what came of it, how to undo it.
        dedup: the same for every message of one story, so that a pager collapses them.
    """

    key: str
    severity: str
    title: str
    body: str
    dedup: str = ""
