"""What `http`, `command` and `clear_cache` share: one call, then the proof that it helped."""

from __future__ import annotations

from remediator.engine.moves import Done, Failed, Move, Progress, Result, Send
from remediator.engine.verify import take_baseline, verify


def once_then_verify(progress: Progress, send: Send) -> Move:
    """Return the next move of a step that is one call.

    Args:
        progress: what is known.
        send: the call, the same each time it is asked for.
    """
    proof, result = progress.step.verify, progress.result(send.call)
    if proof is not None:
        baseline = take_baseline(progress, proof.query, proof.every)
        if baseline is not None:
            return baseline
    if result is None:
        return send
    if result is not Result.OK:
        return Failed(None, f"{send.why}: {progress.why_failed(send.call)}")
    if proof is None:
        return Done(None, f"{send.why}: done; nothing to verify it by")
    return verify(progress, proof, acted_at=progress.last_ok() or progress.step_started_at)
