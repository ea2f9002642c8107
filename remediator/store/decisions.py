"""Decisions on record: why it did, and why it did not.

Only a change of reason makes a new row; repeats are counted on the row they repeat.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import insert, select, update

from remediator.model.decision import Admitted, Decision, Reason
from remediator.store.database import Tx
from remediator.store.tables import decisions


def record(tx: Tx, *, alert_id: int, playbook: str, target: str, decision: Decision) -> None:
    """Put one decision on record, or count it when it repeats the last one."""
    admitted = isinstance(decision, Admitted)
    values: dict[str, Any] = {
        "reason": Reason.ADMITTED if isinstance(decision, Admitted) else decision.reason,
        "detail": "" if isinstance(decision, Admitted) else decision.detail,
        "evidence": decision.evidence,
        "run_id": decision.run_id if isinstance(decision, Admitted) else None,
    }
    last = tx.conn.execute(
        select(decisions.c.id, decisions.c.reason, decisions.c.count)
        .where(decisions.c.alert_id == alert_id, decisions.c.playbook == playbook)
        .order_by(decisions.c.id.desc())
        .limit(1)
    ).first()
    if last is not None and not admitted and last.reason == values["reason"]:
        tx.conn.execute(
            update(decisions)
            .where(decisions.c.id == last.id)
            .values(
                count=last._mapping["count"] + 1,
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


def record_if_first(tx: Tx, *, alert_id: int, decision: Decision) -> None:
    """Put a decision on record only when the alert has none yet: every alert ends in one."""
    known = tx.conn.execute(
        select(decisions.c.id).where(decisions.c.alert_id == alert_id).limit(1)
    ).first()
    if known is None:
        record(tx, alert_id=alert_id, playbook="", target="", decision=decision)
