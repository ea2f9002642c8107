"""Guards that a playbook lists: conditions, counters, hours, and the breaker.

Pure: each takes what the playbook says and the facts. The surprise: the breaker is here, because a
playbook may list its own; without one it has the default (`engine.breaker`).
"""

from __future__ import annotations

from datetime import timedelta

from remediator.engine.guards.facts import Facts
from remediator.engine.guards.windows import began
from remediator.model.decision import Denied, Reason
from remediator.model.duration import Duration, format_duration
from remediator.model.guard import Breaker, Budget, CooldownAfter, NotWhile, WindowSpec
from remediator.model.spec import Condition
from remediator.model.verdict import ReadingStatus, Verdict

LONGEST_REST = timedelta(minutes=30)


def require(condition: Condition, facts: Facts) -> Denied | None:
    """Refuse unless the condition held when it was asked; no data is no yes."""
    reading = None if facts.evidence is None else facts.evidence.readings.get(condition.query)
    if reading is None:
        return Denied(Reason.UNKNOWN, "it was not measured", {"query": condition.query})
    evidence = {
        "query": condition.query,
        "value": reading.value,
        "wanted": condition.comparison,
        "at": reading.at.isoformat(),
    }
    if reading.status is not ReadingStatus.OK or reading.value is None:
        return Denied(Reason.UNKNOWN, reading.describe(), evidence)
    if not condition.holds(reading.value):
        return Denied(
            Reason.REQUIRE,
            f"measured {reading.describe()}, wanted {condition.comparison}",
            evidence,
        )
    return None


def cooldown(spec: Duration | CooldownAfter, facts: Facts) -> Denied | None:
    """Refuse too soon after this playbook's last run on the target."""
    if facts.last_closed is None:
        return None
    length = spec
    if isinstance(length, CooldownAfter):
        helped = facts.last_verdict is Verdict.IMPROVED
        length = length.improved if helped else length.otherwise
    since = facts.now - facts.last_closed
    if since >= length:
        return None
    return Denied(
        Reason.COOLDOWN,
        f"its last run on this target ended {since.total_seconds():.0f}s ago; "
        f"cooldown {format_duration(length)}",
        {"last_closed_at": facts.last_closed.isoformat(), "cooldown_s": length.total_seconds()},
    )


def rest(facts: Facts) -> Denied | None:
    """Refuse to begin again at once what has just failed here, whatever the playbook says.

    From the hold-down on it doubles with every failure in a row: what does not work now is not
    likely to work in a second, and each time somebody may be woken.
    """
    row = facts.failed_row
    if row is None:
        return None
    length = min(facts.pace.hold_down * 2 ** (row.length - 1), LONGEST_REST)
    since = facts.now - row.ended_at
    if since >= length:
        return None
    return Denied(
        Reason.COOLDOWN,
        f"{row.length} of its runs in a row failed on this target, the last "
        f"{since.total_seconds():.0f}s ago; it rests for {format_duration(length)}",
        {
            "failures": row.length,
            "last_closed_at": row.ended_at.isoformat(),
            "cooldown_s": length.total_seconds(),
        },
    )


def budget(spec: Budget, facts: Facts) -> Denied | None:
    """Refuse when it would be one run too many."""
    opened = facts.opened.get(spec, 0)
    if opened < spec.runs:
        return None
    return Denied(
        Reason.BUDGET,
        f"{opened} runs in the last {format_duration(spec.per)} for this {spec.scope}; "
        f"{spec.runs} allowed",
        {
            "opened": opened,
            "runs": spec.runs,
            "per_s": spec.per.total_seconds(),
            "scope": spec.scope.value,
        },
    )


def not_while(spec: NotWhile, facts: Facts) -> Denied | None:
    """Refuse while another playbook runs on the target, and shortly after it acted."""
    other = facts.others.get(spec)
    if other is None:
        return None
    if other.open_run is not None:
        return Denied(
            Reason.DEPENDENCY,
            f"run R{other.open_run} of {spec.playbook} is at this target",
            {"playbook": spec.playbook, "run": other.open_run},
        )
    if other.ended_at is None or facts.now - other.ended_at >= spec.within:
        return None
    return Denied(
        Reason.DEPENDENCY,
        f"{spec.playbook} acted here until {other.ended_at:%H:%M:%S} UTC; "
        f"not within {format_duration(spec.within)}",
        {
            "playbook": spec.playbook,
            "ended_at": other.ended_at.isoformat(),
            "within_s": spec.within.total_seconds(),
        },
    )


def only_during(window: WindowSpec, facts: Facts) -> Denied | None:
    """Refuse outside the window."""
    if began(window, facts.now) is not None:
        return None
    return Denied(Reason.WINDOW, f"only during {_named(window)}", _told(window, facts))


def not_during(window: WindowSpec, facts: Facts) -> Denied | None:
    """Refuse inside the window."""
    since = began(window, facts.now)
    if since is None:
        return None
    ends = since + window.length
    return Denied(
        Reason.WINDOW,
        f"not during {_named(window)}, which ends at {ends:%Y-%m-%d %H:%M:%S} UTC",
        {**_told(window, facts), "until": ends.isoformat()},
    )


def _named(window: WindowSpec) -> str:
    return f"{window.cron!r} ({window.timezone}) for {format_duration(window.length)}"


def _told(window: WindowSpec, facts: Facts) -> dict[str, object]:
    return {
        "cron": window.cron,
        "for_s": window.length.total_seconds(),
        "timezone": window.timezone,
        "now": facts.now.isoformat(),
    }


def breaker(spec: Breaker, facts: Facts) -> Denied | None:
    """Refuse a playbook that keeps not helping here, but for one trial at a time."""
    stands = facts.breaker
    if stands is None or stands.until is None:
        return None
    evidence = {
        "failures": stands.failures,
        "allowed": spec.failures,
        "class": facts.target_class,
        "opened_by": stands.opened_by,
        "until": stands.until.isoformat(),
        "reset_s": stands.reset.total_seconds(),
    }
    did_not = f"its last {stands.failures} runs for {facts.target_class} did not help"
    if facts.now < stands.until:
        return Denied(
            Reason.BREAKER,
            f"{did_not}; one more is tried at {stands.until:%Y-%m-%d %H:%M:%S} UTC",
            evidence,
        )
    if facts.trial is not None:
        return Denied(
            Reason.BREAKER,
            f"{did_not}; run R{facts.trial} is the trial",
            {**evidence, "trial": facts.trial},
        )
    return None
