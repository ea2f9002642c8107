"""`command`: run a named program of the configuration, once; then verify.

The surprise: as with `http`, its `undo` is taken only when everything is taken back: on cancel,
stop, `on_failure: undo`, or when the step made things worse.
"""

from __future__ import annotations

from typing import Any

from remediator.engine.actions.once import once_then_verify
from remediator.engine.moves import COMMANDS, Move, Progress, Send
from remediator.model.step import NO_UNDO, Command, CommandStep


def next_move(progress: Progress) -> Move:
    """Return the next move of a command step."""
    step = progress.step
    if not isinstance(step, CommandStep):
        msg = "not a command step"
        raise TypeError(msg)
    send = Send(
        call="command",
        role=COMMANDS,
        verb="run",
        args=_args(step.command),
        why=f"run {step.command.run}",
        idempotent=step.command.idempotent,
        pc=progress.run.pc,
        undo=None if step.undo == NO_UNDO else _undo(step.undo),
    )
    return once_then_verify(progress, send)


def _args(command: Command) -> dict[str, Any]:
    return {"run": command.run, "arguments": dict(command.arguments)}


def _undo(command: Command) -> dict[str, Any]:
    return {
        "role": COMMANDS,
        "verb": "run",
        "args": _args(command),
        "idempotent": command.idempotent,
        "lasting": True,
    }
