"""Guards that bind every playbook, without a line in it.

Pure. The surprise: most important first. A kill switch is told before a pin, and a pin before a
busy target, because only the first refusal is put on record.
"""

from __future__ import annotations

from remediator.engine.guards.facts import Facts
from remediator.model.decision import Denied, Reason
from remediator.model.duration import format_duration
from remediator.model.playbook import Mode
from remediator.model.run import HeldChange
from remediator.store import changes
from remediator.store.overrides import Ruling


def blocked(facts: Facts) -> Denied | None:
    """Refuse what is paused or killed, and everything while blind."""
    why = facts.blocked
    return None if why is None else Denied(Reason(why.reason), why.detail, dict(why.evidence))


def slot_taken(facts: Facts) -> Denied | None:
    """Refuse a second run for one slot of a schedule."""
    if facts.slot_run is None:
        return None
    return Denied(
        Reason.SLOT_TAKEN,
        f"run R{facts.slot_run} was this slot's run",
        {"run": facts.slot_run},
    )


def override(facts: Facts) -> Denied | None:
    """Refuse what a person decided to leave alone, for a while or for this episode."""
    for one in facts.overrides:
        if one.decision is Ruling.HANDS_OFF:
            return Denied(
                Reason.OVERRIDE,
                f"{one.by} leaves {one.scope} {one.name} alone: {one.reason}",
                {
                    "scope": one.scope,
                    "name": one.name,
                    "by": one.by,
                    "until": None if one.until is None else one.until.isoformat(),
                },
            )
    no = facts.rejected
    if no is None:
        return None
    return Denied(
        Reason.OVERRIDE,
        f"{no.by} said no to run R{no.run_id} for this alert: {no.reason}",
        {"run": no.run_id, "by": no.by},
    )


def unanswered(facts: Facts) -> Denied | None:
    """Refuse to ask the same about the same again soon, when nobody has answered."""
    asked = facts.unanswered
    if asked is None or facts.now - asked.expired_at >= facts.pace.max_hold:
        return None
    again = asked.expired_at + facts.pace.max_hold
    return Denied(
        Reason.COOLDOWN,
        f"nobody answered run R{asked.run_id} until {asked.expired_at:%Y-%m-%d %H:%M:%S} UTC; "
        f"asked again at {again:%Y-%m-%d %H:%M:%S} UTC",
        {"run": asked.run_id, "until": again.isoformat()},
    )


def unsettled(facts: Facts) -> Denied | None:
    """Refuse to do once more what must not be done twice, and may have been done already.

    A proposal may ask: then it is a person who says that it is done again.
    """
    call = facts.unsettled
    if call is None or facts.mode is Mode.PROPOSE:
        return None
    return Denied(
        Reason.UNKNOWN,
        f"nobody can say whether run R{call.run_id} did it already ({call.why}: {call.error}); "
        "it is not done twice on a guess. Look, then say `remediator reset-breaker`",
        {"run": call.run_id, "call": call.call, "sent_at": call.at.isoformat()},
    )


def pinned(facts: Facts) -> Denied | None:
    """Refuse to move a knob that a person pinned."""
    for knob in sorted(facts.plan.knobs & facts.pins.keys()):
        pin = facts.pins[knob]
        return Denied(
            Reason.PINNED,
            f"{pin.by} pinned {knob}: {pin.reason}",
            {"knob": knob, "by": pin.by},
        )
    return None


def owned(facts: Facts) -> Denied | None:
    """Refuse to move a knob that another playbook holds, unless this one is more important.

    What is being restored, or left to its lease, is given up already: whoever needs it may have it.
    """
    for held in facts.held:
        if held.knob in facts.plan.knobs and _binds(held, facts):
            return Denied(
                Reason.OWNED,
                f"{held.playbook} (priority {held.priority}) holds {held.knob} at {held.value:g}; "
                f"this playbook has priority {facts.plan.priority}",
                {
                    "knob": held.knob,
                    "value": held.value,
                    "base": held.base,
                    "playbook": held.playbook,
                    "priority": held.priority,
                    "run": held.run_id,
                },
            )
    return None


def _binds(held: HeldChange, facts: Facts) -> bool:
    given_up = held.state in {changes.RESTORING, changes.LAPSING}
    return not given_up and held.priority >= facts.plan.priority


def slot(facts: Facts) -> Denied | None:
    """Refuse while another run acts on the target, or this playbook asks about it already."""
    if facts.asking is not None:
        return Denied(
            Reason.BUSY,
            f"run R{facts.asking} of this playbook asks about this target already",
            {"run": facts.asking, "priority": facts.plan.priority},
        )
    acting = facts.acting
    if acting is None:
        return None
    evidence = {"run": acting.id, "playbook": acting.playbook, "priority": acting.priority}
    if acting.priority > facts.plan.priority:
        return Denied(
            Reason.SUPERSEDED,
            f"run R{acting.id} ({acting.playbook}, priority {acting.priority}) tells the story of "
            f"this target",
            evidence,
        )
    if facts.mode is Mode.PROPOSE and acting.priority < facts.plan.priority:
        # Asking disturbs nobody; the one who acts makes room when the answer is yes.
        return None
    return Denied(Reason.BUSY, f"run R{acting.id} ({acting.playbook}) acts on the target", evidence)


def spent(facts: Facts) -> Denied | None:
    """Refuse when the target has seen too many actions, whoever took them (rule R10)."""
    pace = facts.pace
    if facts.actions < pace.actions:
        return None
    return Denied(
        Reason.BUDGET,
        f"{facts.actions} actions on this target in the last {format_duration(pace.actions_per)}; "
        f"{pace.actions} allowed",
        {"actions": facts.actions, "allowed": pace.actions},
    )


def stale(facts: Facts) -> Denied | None:
    """Refuse evidence that grew too old before it could be used."""
    if facts.evidence is None:
        return None
    age = facts.now - facts.evidence.asked_at
    if age <= facts.pace.evidence_max_age:
        return None
    return Denied(
        Reason.STALE_EVIDENCE,
        f"asked {age.total_seconds():.0f}s ago",
        {"asked_at": facts.evidence.asked_at.isoformat(), **facts.evidence.told()},
    )


def silenced(facts: Facts) -> Denied | None:
    """Refuse what a person silenced in Alertmanager; silences of our own do not count."""
    if facts.evidence is None:
        return None
    if facts.evidence.unsure:
        return Denied(
            Reason.UNKNOWN,
            f"nobody could say whether it is silenced: {facts.evidence.unsure}",
            {"query": "/api/v2/silences", "said": facts.evidence.unsure},
        )
    for silence in facts.evidence.silences:
        if not silence.is_ours and silence.covers(facts.labels):
            return Denied(
                Reason.SILENCED,
                f"{silence.created_by or 'somebody'} silenced it until "
                f"{silence.ends_at:%Y-%m-%d %H:%M:%S} UTC: {silence.comment}",
                {
                    "silence": silence.id,
                    "matchers": [str(matcher) for matcher in silence.matchers],
                    "by": silence.created_by,
                    "until": silence.ends_at.isoformat(),
                },
            )
    return None
