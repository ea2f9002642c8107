"""Deliveries and alerts: what was received, and which episodes fire.

`record_delivery` is the transaction behind the webhook's 2xx. The surprise: deciding what an alert
means (`model.alert.merge`) happens inside it, so that two copies of one payload that arrive
together cannot both count as new.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, func, insert, select, update

from remediator.model.alert import Alert, Meaning, merge
from remediator.store.database import Tx, inserted_id
from remediator.store.tables import alerts, deliveries

# Bound parameters in one statement; SQLite's floor is 999.
CHUNK = 500


@dataclass(frozen=True)
class StoredAlert:
    """One episode of one alert, as stored."""

    id: int
    fingerprint: str
    firing: bool
    labels: dict[str, str]
    annotations: dict[str, str]
    starts_at: datetime | None
    resolved_at: datetime | None
    generator_url: str
    first_seen_at: datetime
    last_seen_at: datetime
    seen: int
    source: str
    review_at: datetime | None

    @property
    def name(self) -> str:
        """The alert's name, or its fingerprint when it has none."""
        return self.labels.get("alertname", self.fingerprint)


_COLUMNS = [alerts.c[name] for name in StoredAlert.__dataclass_fields__]


def _stored(row: Row[Any]) -> StoredAlert:
    return StoredAlert(**row._mapping)


def record_delivery(
    tx: Tx,
    *,
    body: bytes,
    receiver: str,
    group_key: str,
    truncated: int,
    incoming: Sequence[Alert],
    quiet_window: timedelta,
) -> Counter[Meaning]:
    """Keep the delivery and merge its alerts, all or nothing; count what they meant."""
    sha256 = hashlib.sha256(body).hexdigest()
    known = tx.conn.execute(
        select(deliveries.c.id).where(deliveries.c.sha256 == sha256).limit(1)
    ).first()
    inserted = tx.conn.execute(
        insert(deliveries).values(
            received_at=tx.now,
            sha256=sha256,
            # A re-send is on record by its hash; its body is kept once.
            body=body if known is None else b"",
            receiver=receiver,
            group_key=group_key,
            alert_count=len(incoming),
            truncated=truncated,
        )
    )
    return merge_alerts(
        tx,
        incoming,
        source="webhook",
        delivery_id=inserted_id(inserted),
        quiet_window=quiet_window,
    )


def record_rejected(tx: Tx, *, body: bytes, problem: str) -> int:
    """Keep a body that can never be a webhook, so that a person can see what was sent."""
    inserted = tx.conn.execute(
        insert(deliveries).values(
            received_at=tx.now,
            sha256=hashlib.sha256(body).hexdigest(),
            body=body,
            problem=problem,
            alert_count=0,
            truncated=0,
        )
    )
    return inserted_id(inserted)


def merge_alerts(
    tx: Tx,
    incoming: Sequence[Alert],
    *,
    source: str,
    quiet_window: timedelta,
    delivery_id: int | None = None,
) -> Counter[Meaning]:
    """Merge alerts into the stored episodes; return how many meant what.

    Within one batch the last word about a fingerprint wins, but a firing copy is never hidden by
    a resolved one: losing a firing alert is worse than looking at one too many.
    """
    latest: dict[str, Alert] = {}
    for alert in sorted(incoming, key=lambda a: a.firing):
        latest[alert.fingerprint] = alert
    known = _newest_episodes(tx, list(latest))
    counts: Counter[Meaning] = Counter()
    new_rows: list[dict[str, Any]] = []
    for alert in latest.values():
        row = known.get(alert.fingerprint)
        change = merge(
            alert,
            known_firing=row.firing if row else None,
            known_starts_at=row.starts_at if row else None,
            resolved_at=row.resolved_at if row else None,
            now=tx.now,
            quiet_window=quiet_window,
        )
        counts[change] += 1
        if row is None or change is Meaning.NEW:
            new_rows.append(_new_row(tx, alert, source=source, delivery_id=delivery_id))
        else:
            _apply(tx, row, alert, change)
    if new_rows:
        tx.conn.execute(insert(alerts), new_rows)
    return counts


def _newest_episodes(tx: Tx, fingerprints: Sequence[str]) -> dict[str, StoredAlert]:
    found: dict[str, StoredAlert] = {}
    for start in range(0, len(fingerprints), CHUNK):
        newest = (
            select(func.max(alerts.c.id))
            .where(alerts.c.fingerprint.in_(fingerprints[start : start + CHUNK]))
            .group_by(alerts.c.fingerprint)
        )
        for row in tx.conn.execute(select(*_COLUMNS).where(alerts.c.id.in_(newest))):
            found[row.fingerprint] = _stored(row)
    return found


def _new_row(tx: Tx, alert: Alert, *, source: str, delivery_id: int | None) -> dict[str, Any]:
    return {
        "fingerprint": alert.fingerprint,
        "firing": alert.firing,
        "labels": dict(alert.labels),
        "annotations": dict(alert.annotations),
        "starts_at": alert.starts_at,
        "resolved_at": None if alert.firing else (alert.ends_at or tx.now),
        "generator_url": alert.generator_url,
        "first_seen_at": tx.now,
        "last_seen_at": tx.now,
        "seen": 1,
        "source": source,
        "delivery_id": delivery_id,
        # A resolve that we never saw firing still gets its decision on record.
        "review_at": tx.now,
    }


def _apply(tx: Tx, row: StoredAlert, alert: Alert, change: Meaning) -> None:
    values: dict[str, Any] = {"last_seen_at": tx.now, "seen": row.seen + 1}
    if change in {Meaning.REFRESHED, Meaning.REOPENED}:
        # A payload frozen by a retry may tell of an older start: the newer one stays, or the
        # resolve that belongs to the older would end what fires now.
        starts = [at for at in (row.starts_at, alert.starts_at) if at is not None]
        values |= {"annotations": dict(alert.annotations), "starts_at": max(starts, default=None)}
    if change is Meaning.REOPENED:
        values |= {"firing": True, "resolved_at": None, "review_at": tx.now}
    if change is Meaning.RESOLVED:
        values |= {"firing": False, "resolved_at": tx.now}
    tx.conn.execute(update(alerts).where(alerts.c.id == row.id).values(**values))


SCHEDULE = "schedule"


def resolve_absent(tx: Tx, present: Sequence[str], *, not_seen_since: datetime) -> list[int]:
    """Resolve firing episodes that Alertmanager no longer lists; return their ids.

    Only those last heard of before `not_seen_since`, so that a webhook which raced the poll is
    not undone by it. What a schedule found was never listed there.
    """
    rows = tx.conn.execute(
        select(alerts.c.id, alerts.c.fingerprint).where(
            alerts.c.firing,
            alerts.c.source != SCHEDULE,
            alerts.c.last_seen_at < not_seen_since,
        )
    ).all()
    listed = set(present)
    gone = [row.id for row in rows if row.fingerprint not in listed]
    for start in range(0, len(gone), CHUNK):
        tx.conn.execute(
            update(alerts)
            .where(alerts.c.id.in_(gone[start : start + CHUNK]))
            .values(firing=False, resolved_at=tx.now)
        )
    return gone


def firing_from(tx: Tx, source: str) -> list[StoredAlert]:
    """Return the firing episodes that came from one source, oldest first."""
    rows = tx.conn.execute(
        select(*_COLUMNS).where(alerts.c.firing, alerts.c.source == source).order_by(alerts.c.id)
    )
    return [_stored(row) for row in rows]


def resolve(tx: Tx, alert_ids: Sequence[int]) -> None:
    """Note that these episodes are over."""
    tx.conn.execute(
        update(alerts)
        .where(alerts.c.id.in_(alert_ids), alerts.c.firing)
        .values(firing=False, resolved_at=tx.now)
    )


def to_review(tx: Tx, *, limit: int) -> list[StoredAlert]:
    """Return the alerts that dispatch has to look at now, oldest first."""
    rows = tx.conn.execute(
        select(*_COLUMNS)
        .where(alerts.c.review_at <= tx.now)
        .order_by(alerts.c.review_at, alerts.c.id)
        .limit(limit)
    )
    return [_stored(row) for row in rows]


def review_again(tx: Tx, alert_id: int, *, after: timedelta | None) -> None:
    """Set when dispatch looks at the alert next; None = only when something changes."""
    at = None if after is None else tx.now + after
    tx.conn.execute(update(alerts).where(alerts.c.id == alert_id).values(review_at=at))


def get_alert(tx: Tx, alert_id: int) -> StoredAlert | None:
    """Return one episode, or None."""
    row = tx.conn.execute(select(*_COLUMNS).where(alerts.c.id == alert_id)).first()
    return None if row is None else _stored(row)


def review_now(tx: Tx, alert_id: int) -> None:
    """Let dispatch look at an alert at the next tick."""
    review_again(tx, alert_id, after=timedelta())


def review_all_firing(tx: Tx) -> int:
    """Let dispatch look at every firing alert again: the playbooks have changed."""
    return tx.conn.execute(update(alerts).where(alerts.c.firing).values(review_at=tx.now)).rowcount
