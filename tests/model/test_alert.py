"""What an incoming alert means: a pure decision, checked against every combination."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import pytest

from remediator.model.alert import Alert, Meaning, merge

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
QUIET = timedelta(minutes=5)
EARLY, LATE = NOW - timedelta(hours=2), NOW - timedelta(hours=1)


def an_alert(*, firing: bool = True, starts_at: datetime | None = LATE) -> Alert:
    return Alert(fingerprint="f", firing=firing, labels={}, starts_at=starts_at)


def change(
    incoming: Alert,
    *,
    known_firing: bool | None,
    known_starts_at: datetime | None = LATE,
    resolved_at: datetime | None = None,
) -> Meaning:
    return merge(
        incoming,
        known_firing=known_firing,
        known_starts_at=known_starts_at,
        resolved_at=resolved_at,
        now=NOW,
        quiet_window=QUIET,
    )


@pytest.mark.parametrize(
    ("ago", "expected"),
    [
        (timedelta(0), Meaning.REOPENED),
        (QUIET - timedelta(seconds=1), Meaning.REOPENED),
        (QUIET, Meaning.NEW),
        (timedelta(days=1), Meaning.NEW),
        (-timedelta(hours=1), Meaning.REOPENED),
    ],
    ids=str,
)
def test_what_fires_again_within_the_quiet_window_goes_on(
    ago: timedelta, expected: Meaning
) -> None:
    assert change(an_alert(), known_firing=False, resolved_at=NOW - ago) is expected


def test_what_fires_and_is_not_known_is_new() -> None:
    assert change(an_alert(), known_firing=None) is Meaning.NEW


@pytest.mark.parametrize("starts_at", [EARLY, LATE, NOW, None])
def test_what_fires_already_is_refreshed_whatever_its_start(starts_at: datetime | None) -> None:
    assert change(an_alert(starts_at=starts_at), known_firing=True) is Meaning.REFRESHED


@pytest.mark.parametrize(
    ("starts_at", "known", "expected"),
    [
        (EARLY, LATE, Meaning.STALE),
        (LATE, LATE, Meaning.RESOLVED),
        (LATE, EARLY, Meaning.RESOLVED),
        (None, LATE, Meaning.RESOLVED),
        (LATE, None, Meaning.RESOLVED),
    ],
)
def test_only_a_resolve_of_an_earlier_start_is_stale(
    starts_at: datetime | None, known: datetime | None, expected: Meaning
) -> None:
    over = an_alert(firing=False, starts_at=starts_at)
    assert change(over, known_firing=True, known_starts_at=known) is expected


def test_a_resolve_of_what_is_over_or_unknown_changes_nothing() -> None:
    over = an_alert(firing=False)
    assert change(over, known_firing=False, resolved_at=LATE) is Meaning.REPEATED
    assert change(over, known_firing=None, known_starts_at=None) is Meaning.UNSEEN


def test_a_firing_alert_is_never_taken_for_an_end() -> None:
    ends = {Meaning.RESOLVED, Meaning.REPEATED, Meaning.UNSEEN, Meaning.STALE}
    times = [EARLY, LATE, NOW, None]
    for known, one, two, three in itertools.product([True, False, None], times, times, times):
        meant = change(
            an_alert(starts_at=one), known_firing=known, known_starts_at=two, resolved_at=three
        )
        assert meant not in ends


def test_an_alert_without_a_name_is_called_by_its_fingerprint() -> None:
    assert an_alert().name == "f"
    assert Alert(fingerprint="f", firing=True, labels={"alertname": "Slow"}).name == "Slow"
