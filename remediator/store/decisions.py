"""Decisions on record: why it did, and why it did not.

Only a change of reason makes a new row; repeats are counted on the row they repeat. The surprise:
reasons that keep coming and going are counted as well, so that an alert that flaps for a day does
not leave thousands of rows.
"""

from __future__ import annotations

from datetime import timedelta
from itertools import takewhile
from typing import Any

from sqlalchemy import insert, select, update

from remediator.model.decision import Admitted, Decision, Reason
from remediator.store.database import Tx
from remediator.store.tables import decisions

# A reason has so many rows in so long, between two runs; from then on it is counted.
ROWS_OF_A_REASON = 2
FLAPS_WITHIN = timedelta(hours=1)
# More than all reasons together can have in that time.
LOOKED_BACK = 100


def record(tx: Tx, *, alert_id: int, playbook: str, target: str, decision: Decision) -> None:
    """Put one decision on record, or count it when it repeats the last one."""
    admitted = isinstance(decision, Admitted)
    values: dict[str, Any] = {
        "reason": Reason.ADMITTED if isinstance(decision, Admitted) else decision.reason,
        "detail": "" if isinstance(decision, Admitted) else decision.detail,
        "evidence": decision.evidence,
        "run_id": decision.run_id if isinstance(decision, Admitted) else None,
    }
    repeated = None if admitted else _repeated(tx, alert_id, playbook, values["reason"])
    if repeated is not None:
        tx.conn.execute(
            update(decisions)
            .where(decisions.c.id == repeated)
            .values(
                count=decisions.c.count + 1,
                last_at=tx.now,
                detail=values["detail"],
                evidence=values["evidence"],
                target=target,
            )
        )
        return
    tx.conn.execute(
        insert(decisions).values(
            **values,
            alert_id=alert_id,
            playbook=playbook,
            target=target,
            admitted=admitted,
            first_at=tx.now,
            last_at=tx.now,
            count=1,
        )
    )


def _repeated(tx: Tx, alert_id: int, playbook: str, reason: str) -> int | None:
    """Return the denial that one for this reason repeats: the last, or one that keeps recurring."""
    rows = tx.conn.execute(
        select(decisions.c.id, decisions.c.reason, decisions.c.admitted, decisions.c.first_at)
        .where(decisions.c.alert_id == alert_id, decisions.c.playbook == playbook)
        .order_by(decisions.c.id.desc())
        .limit(LOOKED_BACK)
    ).all()
    if rows and rows[0].reason == reason:
        return int(rows[0].id)
    since_run = takewhile(lambda row: not row.admitted, rows)
    same = [r.id for r in since_run if r.reason == reason and r.first_at > tx.now - FLAPS_WITHIN]
    return int(same[0]) if len(same) >= ROWS_OF_A_REASON else None


def record_if_first(tx: Tx, *, alert_id: int, decision: Decision) -> None:
    """Put a decision on record only when the alert has none yet: every alert ends in one."""
    known = tx.conn.execute(
        select(decisions.c.id).where(decisions.c.alert_id == alert_id).limit(1)
    ).first()
    if known is None:
        record(tx, alert_id=alert_id, playbook="", target="", decision=decision)
