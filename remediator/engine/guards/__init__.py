"""Guards: pure functions that may refuse a candidate, each with a named reason and evidence.

Called by admission, inside the transaction that would open the run. `always` holds those that bind
every playbook, `listed` and `capacity` those that a playbook names. The surprise: a guard that a
person waived is asked all the same, so that the record says what was waived and not only that it
was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from remediator.engine.guards import always, capacity, listed
from remediator.engine.guards.facts import Facts
from remediator.model.decision import Denied
from remediator.model.guard import Breaker, BreakerGuard, guard_kind
from remediator.store.overrides import Override, Ruling

Check = Callable[[Facts], Denied | None]

ALWAYS: dict[str, Check] = {
    "blocked": always.blocked,
    "slot_taken": always.slot_taken,
    "override": always.override,
    "unanswered": always.unanswered,
    "unsettled": always.unsettled,
    "pinned": always.pinned,
    "owned": always.owned,
    "slot": always.slot,
    "spent": always.spent,
    "stale": always.stale,
    "silence": always.silenced,
}
LISTED: dict[str, Callable[[Any, Facts], Denied | None]] = {
    "require": listed.require,
    "cooldown": listed.cooldown,
    "budget": listed.budget,
    "healthy_others": capacity.healthy_others,
    "blast_radius": capacity.blast_radius,
    "storm": capacity.storm,
    "only_during": listed.only_during,
    "not_during": listed.not_during,
    "not_while": listed.not_while,
    "breaker": listed.breaker,
}
# What cannot be judged before anything was asked.
NEED_EVIDENCE = frozenset({"require", "healthy_others"})
# What must go on to hold while a run acts; hours bind only who has not begun to act.
WHILE_ACTING = frozenset({"silence", "require", "healthy_others"})
BEFORE_ACTING = WHILE_ACTING | {"only_during", "not_during"}


@dataclass(frozen=True)
class Judged:
    """What the guards say.

    Attributes:
        denied: the first refusal that nobody waived, or None.
        waived: what else would have refused, by guard, and who waived it; JSON-ready.
    """

    denied: Denied | None
    waived: Mapping[str, Any] = field(default_factory=dict)


def judge(facts: Facts, *, only: frozenset[str] | None = None) -> Judged:
    """Ask every guard, those that bind every playbook first, in the playbook's order then.

    Args:
        facts: what they look at.
        only: ask these and no others.
    """
    waivers = _waivers(facts)
    waived: dict[str, Any] = {}
    for name, check in _checks(facts):
        denied = check(facts) if only is None or name in only else None
        if denied is None:
            continue
        waiver = waivers.get(name)
        if waiver is None:
            return Judged(denied, waived)
        waived[name] = {
            "by": waiver.by,
            "why": waiver.reason,
            "would have been": denied.reason.value,
            "because": denied.detail,
        }
    return Judged(None, waived)


def _checks(facts: Facts) -> Iterator[tuple[str, Check]]:
    yield from ALWAYS.items()
    for guard in facts.plan.guards:
        kind = str(guard_kind(guard))
        if facts.evidence is not None or kind not in NEED_EVIDENCE:
            yield kind, partial(LISTED[kind], getattr(guard, kind))
    if not any(isinstance(guard, BreakerGuard) for guard in facts.plan.guards):
        yield "breaker", partial(listed.breaker, Breaker())
    yield "cooldown", listed.rest


def _waivers(facts: Facts) -> dict[str, Override]:
    return {
        name: one for one in facts.overrides if one.decision is Ruling.WAIVE for name in one.guards
    }
