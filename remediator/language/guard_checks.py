"""Do the guards of a playbook mean something sensible: windows that open, pools that exist?

Called by `lint`. The surprise: guards that cannot hold at the same time are an error, because such
a playbook would be denied for ever and look as if it were only waiting.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

from remediator.language import promql
from remediator.language.finding import Finding
from remediator.language.subject import Subject
from remediator.language.times import always_within, cron_problem, zone_problem
from remediator.model.guard import (
    BlastRadiusGuard,
    Guard,
    HealthyOthersGuard,
    NotDuringGuard,
    NotWhileGuard,
    OnlyDuringGuard,
    RequireGuard,
    StormGuard,
    WindowSpec,
    guard_kind,
)
from remediator.model.spec import Condition

# Guards of which a playbook can only have one, and what a second one would leave open.
_ONE_OF_A_KIND = ("cooldown", "breaker")


def check_guards(subject: Subject) -> Iterator[Finding]:
    """Yield what is wrong or doubtful about the guards."""
    for index, guard in enumerate(subject.playbook.guards):
        yield from _names(subject, index, guard)
        if isinstance(guard, OnlyDuringGuard | NotDuringGuard):
            window = guard.only_during if isinstance(guard, OnlyDuringGuard) else guard.not_during
            yield from check_time(subject, ("guards", index, str(guard_kind(guard))), window)
        if isinstance(guard, NotDuringGuard) and always_within(
            guard.not_during.cron, guard.not_during.length
        ):
            message = "these windows leave no time in which it may run"
            hint = "shorter, or less often"
            yield subject.at("guards", index, "not_during", message=message, hint=hint)
        if isinstance(guard, HealthyOthersGuard):
            yield from _healthy(subject, index, guard)
    yield from _twice(subject)
    yield from _never_both(subject)


def check_time(
    subject: Subject, where: tuple[str | int, ...], window: WindowSpec
) -> Iterator[Finding]:
    """Yield what is wrong with when a window opens."""
    if problem := cron_problem(window.cron):
        yield subject.at(*where, "cron", message=problem[0], hint=problem[1])
    if problem := zone_problem(window.timezone):
        yield subject.at(*where, "timezone", message=problem[0], hint=problem[1])


def _names(subject: Subject, index: int, guard: Guard) -> Iterator[Finding]:
    where = ("guards", index, str(guard_kind(guard)))
    pools = subject.surroundings.pools
    pool = ""
    if isinstance(guard, HealthyOthersGuard):
        pool = guard.healthy_others.pool
    elif isinstance(guard, BlastRadiusGuard):
        pool = guard.blast_radius.pool
    elif isinstance(guard, StormGuard):
        pool = guard.storm.pool
    elif isinstance(guard, NotWhileGuard) and guard.not_while.playbook == subject.playbook.name:
        message = "this playbook never runs twice on a target anyway"
        yield subject.at(*where, "playbook", message=message, hint="name another, or use cooldown")
    if pool and pools is not None and pool not in pools:
        yield subject.unknown(*where, "pool", what="pool", name=pool, known=pools)


def _healthy(subject: Subject, index: int, guard: HealthyOthersGuard) -> Iterator[Finding]:
    query = subject.filled(guard.healthy_others.healthy)
    try:
        lost = bool(query) and promql.loses(query, "instance")
    except ValueError:
        return
    if lost:
        message = "the answer has lost the label instance, so nobody can be counted"
        where = ("guards", index, "healthy_others", "healthy")
        yield subject.at(*where, message=message, hint="aggregate with by (instance)")


def _twice(subject: Subject) -> Iterator[Finding]:
    first: dict[str, int] = {}
    for index, guard in enumerate(subject.playbook.guards):
        kind = str(guard_kind(guard))
        before = first.setdefault(kind, index)
        if before == index:
            continue
        if kind in _ONE_OF_A_KIND:
            message = f"guards[{before}] is a {kind} already; a playbook has one"
            yield subject.at("guards", index, kind, message=message, hint="keep one of them")
        elif kind == "only_during":
            message = f"guards[{before}] is a window, too: both must be open at once"
            hint = "one cron can name several hours: 0 9,21 * * *"
            yield subject.at("guards", index, kind, message=message, hint=hint, fatal=False)


def _never_both(subject: Subject) -> Iterator[Finding]:
    asked = [
        (index, guard.require)
        for index, guard in enumerate(subject.playbook.guards)
        if isinstance(guard, RequireGuard)
    ]
    for (before, one), (index, other) in combinations(asked, 2):
        if one.query == other.query and _exclude(one, other):
            message = f"never {other.comparison} while guards[{before}] asks for {one.comparison}"
            yield subject.at("guards", index, "require", message=message, hint="drop one of them")


def _exclude(one: Condition, other: Condition) -> bool:
    if one.above is not None and other.below is not None:
        return one.above >= other.below
    return one.below is not None and other.above is not None and other.above >= one.below
