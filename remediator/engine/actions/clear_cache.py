"""`clear_cache`: the target gives back memory that it only keeps for speed; then verify."""

from __future__ import annotations

from remediator.engine.actions.knobs import OWNER
from remediator.engine.actions.once import once_then_verify
from remediator.engine.moves import SETTINGS, Move, Progress, Send
from remediator.model.step import ClearCacheStep


def next_move(progress: Progress) -> Move:
    """Return the next move of a clear_cache step."""
    step = progress.step
    if not isinstance(step, ClearCacheStep):
        msg = "not a clear_cache step"
        raise TypeError(msg)
    send = Send(
        call="clear_cache",
        role=SETTINGS,
        verb="clear_cache",
        args={"owner": OWNER, "reason": f"run R{progress.run.id} ({progress.plan.name})"},
        why="clear the cache",
        # What is empty stays empty: twice does no harm.
        idempotent=True,
        pc=progress.run.pc,
    )
    return once_then_verify(progress, send)
