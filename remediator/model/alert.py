"""Alerts as Alertmanager tells them, and what a new one means beside what is already known.

Built by the webhook and by the level reconcile; merged by intake. The surprise: identity is the
fingerprint alone. `startsAt` changes when Prometheus restarts, and a payload frozen by a retry may
arrive after a newer one, so neither time nor order of arrival is trusted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from remediator.model.labels import Matcher, match_all


@dataclass(frozen=True)
class Alert:
    """One label set that fires, or fired.

    Attributes:
        fingerprint: Alertmanager's hash of the labels; opaque.
        firing: False when Alertmanager calls it resolved.
        starts_at: when it began to fire, after its `for`.
        ends_at: when it was resolved; None while it fires (Alertmanager sends year 1).
        updated_at: when Prometheus last told Alertmanager of it; None in a webhook.
    """

    fingerprint: str
    firing: bool
    labels: Mapping[str, str]
    annotations: Mapping[str, str] = field(default_factory=dict)
    starts_at: datetime | None = None
    ends_at: datetime | None = None
    generator_url: str = ""
    updated_at: datetime | None = None

    @property
    def name(self) -> str:
        """The alert's name, or its fingerprint when it has none."""
        return self.labels.get("alertname", self.fingerprint)


# Who makes our silences, as Alertmanager shows it.
SILENCER = "remediator"


@dataclass(frozen=True)
class Silence:
    """One active silence of Alertmanager.

    Attributes:
        matchers: as Alertmanager writes them; all must hold.
        created_by: who made it; ours are made by `SILENCER`.
    """

    id: str
    matchers: tuple[Matcher, ...]
    created_by: str
    comment: str
    ends_at: datetime

    @property
    def is_ours(self) -> bool:
        """Say whether a run made it: such a one never keeps us from acting."""
        return self.created_by == SILENCER

    def covers(self, labels: Mapping[str, str]) -> bool:
        """Say whether an alert with these labels is silenced by it."""
        return match_all(self.matchers, labels)


class Meaning(StrEnum):
    """What an incoming alert means for the row that is stored under its fingerprint."""

    NEW = "new"  # never seen, or seen long ago: a new episode
    REFRESHED = "refreshed"  # still firing: a re-send
    REOPENED = "reopened"  # it fires again within the quiet window: the same episode
    RESOLVED = "resolved"  # it was firing and is over
    REPEATED = "repeated"  # a resolve we know already
    UNSEEN = "unseen"  # a resolve of something we never saw firing
    STALE = "stale"  # a resolve of an earlier start than the one that fires now


def merge(
    incoming: Alert,
    *,
    known_firing: bool | None,
    known_starts_at: datetime | None,
    resolved_at: datetime | None,
    now: datetime,
    quiet_window: timedelta,
) -> Meaning:
    """Say what `incoming` means beside the newest stored episode of its fingerprint.

    Args:
        incoming: the alert as received.
        known_firing: whether the stored episode fires; None when there is none.
        known_starts_at: its start.
        resolved_at: when it was resolved, if it was.
        now: the time of reception.
        quiet_window: an alert that fires again this soon continues its old episode, because a
            Prometheus that restarts resolves and re-fires what never changed.
    """
    if incoming.firing:
        if known_firing is None:
            return Meaning.NEW
        if known_firing:
            return Meaning.REFRESHED
        recent = resolved_at is not None and now - resolved_at < quiet_window
        return Meaning.REOPENED if recent else Meaning.NEW
    if known_firing is None:
        return Meaning.UNSEEN
    if not known_firing:
        return Meaning.REPEATED
    older = (
        incoming.starts_at is not None
        and known_starts_at is not None
        and incoming.starts_at < known_starts_at
    )
    return Meaning.STALE if older else Meaning.RESOLVED
