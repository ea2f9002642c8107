"""Intake: alerts from a webhook or from a poll become stored episodes.

Called by the webhook (durable before its 2xx) and by the level reconcile. The surprise: it decides
nothing about remediation. A lost poke after it costs one tick: dispatch works from the rows.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime

from remediator.engine.dispatch import WATCHDOG
from remediator.model.alert import Alert, Meaning
from remediator.model.effect import Message
from remediator.model.pace import Pace
from remediator.store import alerts, controls, outbox
from remediator.store.database import Database, Tx


@dataclass(frozen=True)
class Delivery:
    """One webhook POST, understood.

    Attributes:
        truncated: how many alerts Alertmanager left out; its top-level status lies when > 0.
    """

    body: bytes
    receiver: str
    group_key: str
    truncated: int
    alerts: tuple[Alert, ...]


async def accept(db: Database, delivery: Delivery, pace: Pace) -> Counter[Meaning]:
    """Store a delivery and its alerts; durable when this returns.

    Raises:
        StoreUnavailableError: nothing was stored; the caller answers 503.
    """
    return await db.write(_accept, delivery, pace)


def _accept(tx: Tx, delivery: Delivery, pace: Pace) -> Counter[Meaning]:
    counts = alerts.record_delivery(
        tx,
        body=delivery.body,
        receiver=delivery.receiver,
        group_key=delivery.group_key,
        truncated=delivery.truncated,
        incoming=delivery.alerts,
        quiet_window=pace.quiet_window,
    )
    if any(a.firing and a.labels.get("alertname") == WATCHDOG for a in delivery.alerts):
        controls.give_sign(tx, controls.WATCHDOG)
    return counts


async def reject(db: Database, body: bytes, problem: str) -> None:
    """Keep a body that can never be a webhook, and tell a person once about this problem.

    Raises:
        StoreUnavailableError: it could not be kept.
    """
    await db.write(_reject, body, problem)


def _reject(tx: Tx, body: bytes, problem: str) -> None:
    delivery = alerts.record_rejected(tx, body=body, problem=problem)
    outbox.queue(
        tx,
        Message(
            # Once a day: the first is news, the rest are counted in the metrics.
            key=f"webhook/rejected/{tx.now:%Y-%m-%d}",
            severity="warning",
            title="somebody posts what is not an Alertmanager webhook",
            body=f"{problem}. The body is kept as delivery {delivery}.",
        ),
    )


@dataclass(frozen=True)
class Listing:
    """What Alertmanager listed as active and routed to us.

    Attributes:
        asked_at: the journal's clock before it was asked.
        heard_at: when Prometheus last refreshed the Watchdog, if that is listed.
        complete: whether every peer answered; an incomplete list resolves nothing.
    """

    alerts: tuple[Alert, ...]
    asked_at: datetime
    heard_at: datetime | None
    complete: bool


async def observe(db: Database, listing: Listing, pace: Pace) -> Counter[Meaning]:
    """Merge what Alertmanager lists as active; resolve what it has stopped listing.

    Raises:
        StoreUnavailableError: nothing was stored; the next poll tries again.
    """
    return await db.write(_observe, listing, pace)


def _observe(tx: Tx, listing: Listing, pace: Pace) -> Counter[Meaning]:
    counts = alerts.merge_alerts(
        tx, listing.alerts, source="reconcile", quiet_window=pace.quiet_window
    )
    if listing.complete:
        gone = alerts.resolve_absent(
            tx,
            [alert.fingerprint for alert in listing.alerts],
            not_seen_since=listing.asked_at - pace.absent_for,
        )
        counts[Meaning.RESOLVED] += len(gone)
    if listing.heard_at is not None:
        controls.give_sign(tx, controls.WATCHDOG, at=listing.heard_at)
    return counts
