"""What the runs of a playbook came to: the counts behind the trust ladder."""

from __future__ import annotations

from sqlalchemy import func, select

from remediator.model.playbook import Mode, Pinned
from remediator.model.run import PROPOSAL, Decided, RunKind, RunState
from remediator.model.trust import Record
from remediator.model.verdict import Verdict
from remediator.store.database import Tx
from remediator.store.tables import approvals, runs

# A run that a person or a more important playbook stopped says nothing about the playbook.
_ENDS = [
    RunState.SUCCEEDED.value,
    RunState.FAILED.value,
    RunState.ROLLED_BACK.value,
    RunState.ROLLBACK_FAILED.value,
]


def record_of(tx: Tx, pinned: Pinned) -> Record:
    """Count what the runs of exactly this text came to; another text is another playbook."""
    own = (runs.c.playbook_sha == pinned.sha256, runs.c.kind == RunKind.REMEDY)
    ended = (*own, runs.c.state.in_(_ENDS))
    verdicts = tx.conn.execute(
        select(runs.c.verdict, func.count())
        .where(*ended, runs.c.mode != Mode.OBSERVE, runs.c.acted_at.is_not(None))
        .where(runs.c.stop_reason.is_(None))
        .group_by(runs.c.verdict)
    ).all()
    watched = tx.conn.execute(
        select(runs.c.state, func.count())
        # Where nothing was measured, nobody knows whether the trouble ended by itself.
        .where(*ended, runs.c.mode == Mode.OBSERVE, runs.c.verdict != Verdict.UNKNOWN)
        .group_by(runs.c.state)
    ).all()
    said = tx.conn.execute(
        select(approvals.c.decision, func.count())
        .join(runs, runs.c.id == approvals.c.run_id)
        .where(*own, approvals.c.pc == PROPOSAL)
        .group_by(approvals.c.decision)
    ).all()
    by_state = {row[0]: row[1] for row in watched}
    by_word = {row[0]: row[1] for row in said}
    return Record(
        playbook=pinned.playbook.name,
        mode=pinned.playbook.mode,
        verdicts={row[0] or "unknown": row[1] for row in verdicts},
        observed=sum(by_state.values()),
        healed=by_state.get(RunState.SUCCEEDED.value, 0),
        approved=by_word.get(Decided.APPROVED, 0),
        rejected=by_word.get(Decided.REJECTED, 0),
        expired=by_word.get(Decided.EXPIRED, 0),
    )
