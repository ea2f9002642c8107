"""`http`: call a named endpoint of the configuration, once; then verify.

The surprise: its `undo` is a call like any other, and what the first one did may well be meant to
stay. It is taken back only when everything is: on cancel, stop, `on_failure: undo`, or when the
step made things worse. A call that merely failed, or that nobody can say of, goes to a person.
"""

from __future__ import annotations

from typing import Any

from remediator.engine.actions.once import once_then_verify
from remediator.engine.moves import ENDPOINTS, Move, Progress, Send
from remediator.model.step import NO_UNDO, HttpCall, HttpStep


def next_move(progress: Progress) -> Move:
    """Return the next move of an http step."""
    step = progress.step
    if not isinstance(step, HttpStep):
        msg = "not an http step"
        raise TypeError(msg)
    send = Send(
        call="http",
        role=ENDPOINTS,
        verb="call",
        args=_args(step.http),
        why=f"{step.http.method} {step.http.endpoint}{step.http.path}",
        idempotent=step.http.idempotent,
        pc=progress.run.pc,
        undo=None if step.undo == NO_UNDO else _undo(step.undo),
    )
    return once_then_verify(progress, send)


def _args(call: HttpCall) -> dict[str, Any]:
    return call.model_dump(mode="json", include={"endpoint", "method", "path", "body"})


def _undo(call: HttpCall) -> dict[str, Any]:
    return {
        "role": ENDPOINTS,
        "verb": "call",
        "args": _args(call),
        "idempotent": call.idempotent,
        "lasting": True,
    }
