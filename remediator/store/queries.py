"""What the API reads: lists by newest first with a cursor, and single stories.

Read transactions only. A cursor is the id of the last row seen, so that new rows never shift a
page.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, Table, func, select

from remediator.model.run import Run
from remediator.store.alerts import StoredAlert
from remediator.store.database import Tx
from remediator.store.runs import run_of
from remediator.store.tables import (
    alerts,
    changes,
    decisions,
    deliveries,
    notifications,
    playbooks,
    runs,
)

Row = dict[str, Any]


def _page(
    tx: Tx, table: Table, statement: Select[Any], *, before: int | None, limit: int
) -> list[Row]:
    if before is not None:
        statement = statement.where(table.c.id < before)
    rows = tx.conn.execute(statement.order_by(table.c.id.desc()).limit(limit))
    return [dict(row._mapping) for row in rows]


def list_alerts(
    tx: Tx,
    *,
    firing: bool | None = None,
    name: str | None = None,
    fingerprint: str | None = None,
    before: int | None = None,
    limit: int,
) -> list[Row]:
    """Return alert episodes, newest first."""
    columns = [alerts.c[column] for column in StoredAlert.__dataclass_fields__]
    statement = select(*columns)
    if firing is not None:
        statement = statement.where(alerts.c.firing == firing)
    if name is not None:
        statement = statement.where(alerts.c.labels["alertname"].as_string() == name)
    if fingerprint is not None:
        statement = statement.where(alerts.c.fingerprint.startswith(fingerprint, autoescape=True))
    return _page(tx, alerts, statement, before=before, limit=limit)


def list_decisions(
    tx: Tx,
    *,
    alert_id: int | None = None,
    run_id: int | None = None,
    reason: str | None = None,
    before: int | None = None,
    limit: int,
) -> list[Row]:
    """Return decisions, newest first."""
    statement = select(decisions)
    if alert_id is not None:
        statement = statement.where(decisions.c.alert_id == alert_id)
    if run_id is not None:
        statement = statement.where(decisions.c.run_id == run_id)
    if reason is not None:
        statement = statement.where(decisions.c.reason == reason)
    return _page(tx, decisions, statement, before=before, limit=limit)


def list_runs(
    tx: Tx,
    *,
    target: str | None = None,
    playbook: str | None = None,
    state: str | None = None,
    kind: str | None = None,
    alert_id: int | None = None,
    before: int | None = None,
    limit: int,
) -> list[Run]:
    """Return runs, newest first."""
    statement = select(*[runs.c[name] for name in Run.__dataclass_fields__])
    for column, wanted in (
        (runs.c.target, target),
        (runs.c.playbook, playbook),
        (runs.c.state, state),
        (runs.c.kind, kind),
        (runs.c.alert_id, alert_id),
    ):
        if wanted is not None:
            statement = statement.where(column == wanted)
    if before is not None:
        statement = statement.where(runs.c.id < before)
    return [
        run_of(row) for row in tx.conn.execute(statement.order_by(runs.c.id.desc()).limit(limit))
    ]


def changes_of(tx: Tx, *, target: str | None = None, run_id: int | None = None) -> list[Row]:
    """Return changes: the open ones of a target, or all that a run made."""
    statement = select(changes)
    if target is not None:
        statement = statement.where(changes.c.target == target, changes.c.closed_at.is_(None))
    if run_id is not None:
        statement = statement.where(changes.c.run_id == run_id)
    return [dict(row._mapping) for row in tx.conn.execute(statement.order_by(changes.c.id))]


def playbook_text(tx: Tx, sha256: str) -> str | None:
    """Return the exact text of a playbook version that some run pinned."""
    text: str | None = tx.conn.execute(
        select(playbooks.c.text).where(playbooks.c.sha256 == sha256)
    ).scalar_one_or_none()
    return text


def messages_of(tx: Tx, run_id: int) -> list[Row]:
    """Return what people were told about a run."""
    rows = tx.conn.execute(
        select(notifications)
        .where(notifications.c.run_id == run_id)
        .order_by(notifications.c.created_at)
    )
    return [dict(row._mapping) for row in rows]


def rejected_deliveries(tx: Tx, *, limit: int) -> list[Row]:
    """Return what was posted and is no webhook, newest first, without the bodies."""
    rows = tx.conn.execute(
        select(deliveries.c.id, deliveries.c.received_at, deliveries.c.problem)
        .where(deliveries.c.problem.is_not(None))
        .order_by(deliveries.c.id.desc())
        .limit(limit)
    )
    return [dict(row._mapping) for row in rows]


def run_counts(tx: Tx) -> list[tuple[str, str, str, int]]:
    """Return (kind, state, verdict, number of runs)."""
    rows = tx.conn.execute(
        select(runs.c.kind, runs.c.state, runs.c.verdict, func.count()).group_by(
            runs.c.kind, runs.c.state, runs.c.verdict
        )
    )
    return [(row[0], row[1], row[2] or "", row[3]) for row in rows]
