"""Decisions: every alert ends in one, and a refusal is a value with its evidence.

Made by dispatch and admission, kept by the store, shown by `explain`. The surprise: a transient
denial is looked at again while the alert fires; a lasting one is not.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Reason(StrEnum):
    """Why it was (not) admitted. One meaning each; documented in docs/reference/."""

    ADMITTED = "admitted"  # a run was opened
    NO_PLAYBOOK = "no_playbook"  # no playbook's matchers meet the alert's labels
    NO_TARGET = "no_target"  # the playbook's target is in no inventory
    TEMPLATE = "template"  # a template could not be filled in for this alert
    RESOLVED = "resolved"  # it was over before it was looked at
    WATCHDOG = "watchdog"  # a heartbeat, not a problem
    SUPERSEDED = "superseded"  # another playbook with a higher priority tells this target's story
    BUSY = "busy"  # another run acts on the target
    REQUIRE = "require"  # the condition does not hold (any more)
    UNKNOWN = "unknown"  # nobody can say: of a condition (no data is never "fine"), or of a call
    COOLDOWN = "cooldown"  # the playbook ran on this target too recently
    BUDGET = "budget"  # it would be one run too many
    PAUSED = "paused"  # a person paused this scope
    BLIND = "blind"  # the Watchdog is silent: we would act on stale facts
    STALE_EVIDENCE = "stale_evidence"  # the evidence grew too old before it could be used
    KILLED = "killed"  # the kill switch is on
    OVERRIDE = "override"  # a person decided that this is left alone
    PINNED = "pinned"  # a person pinned a knob that the playbook would move
    OWNED = "owned"  # another playbook, not less important, holds a knob that it would move
    SILENCED = "silenced"  # a person silenced the alert in Alertmanager
    CAPACITY = "capacity"  # too few others are healthy to disturb this target
    BLAST_RADIUS = "blast_radius"  # too many targets of the pool are being acted on
    STORM = "storm"  # too many targets are in trouble at once: a person is told
    WINDOW = "window"  # outside the hours in which it may run
    DEPENDENCY = "dependency"  # another playbook must leave the target alone first
    BREAKER = "breaker"  # it kept not helping, and is held back
    SLOT_TAKEN = "slot_taken"  # this slot of the schedule had its run


LASTING = frozenset(
    {
        Reason.NO_PLAYBOOK,
        Reason.NO_TARGET,
        Reason.TEMPLATE,
        Reason.WATCHDOG,
        Reason.SLOT_TAKEN,
    }
)


@dataclass(frozen=True)
class Denied:
    """A refusal, with what it rests on.

    Attributes:
        reason: which rule said no.
        detail: a sentence for a person.
        evidence: the query and the value, the counter and its limit, ...; JSON-ready.
    """

    reason: Reason
    detail: str
    evidence: dict[str, Any] = field(default_factory=dict)

    @property
    def is_transient(self) -> bool:
        """Say whether it is worth looking again while the alert fires."""
        return self.reason not in LASTING


@dataclass(frozen=True)
class Admitted:
    """A run was opened for the alert."""

    run_id: int
    evidence: dict[str, Any] = field(default_factory=dict)


Decision = Admitted | Denied
