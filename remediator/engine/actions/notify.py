"""`notify`: queue a message to a person, once per run and step, whatever happens to the process."""

from __future__ import annotations

from functools import partial

from remediator.engine.moves import Done, Move, Progress
from remediator.model.effect import Message
from remediator.model.playbook import Mode
from remediator.model.run import Run
from remediator.model.step import NotifyStep
from remediator.store import outbox
from remediator.store.database import Tx


def next_move(progress: Progress) -> Move:
    """Return the next move of a notify step."""
    step = progress.step
    if not isinstance(step, NotifyStep):
        msg = "not a notify step"
        raise TypeError(msg)
    observing = progress.run.mode is Mode.OBSERVE
    message = Message(
        key=f"run/{progress.run.id}/{progress.run.pc}/notify",
        # Nothing was done, so nobody has to get up for it.
        severity="info" if observing else step.notify.severity,
        title=f"{progress.plan.name} on {progress.target.name}"
        + (" (only observed)" if observing else ""),
        body=step.notify.message,
    )
    return Done(None, "a person is told", on_close=partial(_queue, message=message))


def _queue(tx: Tx, run: Run, *, message: Message) -> None:
    outbox.queue(tx, message, run_id=run.id)
