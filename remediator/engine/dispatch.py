"""Dispatch: which playbooks does this alert concern, and which target may they change?

Pure. Called by admission. The surprise: it never drops anything. An alert without a playbook and a
playbook without a target are denials like any other, and end up on record.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from remediator.model.decision import Denied, Reason
from remediator.model.playbook import Mode, Pinned, Playbook
from remediator.model.target import Inventory, Target
from remediator.model.template import render_playbook, render_target, template_values
from remediator.store.alerts import SCHEDULE, StoredAlert

WATCHDOG = "Watchdog"


@dataclass(frozen=True)
class Candidate:
    """A playbook, a target and an alert, before admission.

    Attributes:
        pinned: the playbook as written.
        plan: the playbook with every template filled in for this alert and target.
        inventory: every known target.
        careful: why the plan's mode is more careful than the playbook says.
    """

    alert: StoredAlert
    pinned: Pinned
    plan: Playbook
    target: Target
    inventory: Inventory
    careful: tuple[str, ...] = ()

    @property
    def slot(self) -> datetime | None:
        """The slot of the schedule that found it, when that is one that gets a single run."""
        said = self.alert.annotations.get("slot")
        if self.alert.source != SCHEDULE or said is None:
            return None
        return datetime.fromisoformat(said)

    def at_most(self, mode: Mode, why: str) -> Candidate:
        """Return the candidate with this mode, unless its own is more careful already."""
        if self.plan.mode.at_most(mode) is self.plan.mode:
            return self
        plan = self.plan.model_copy(update={"mode": mode})
        return replace(self, plan=plan, careful=(*self.careful, why))

    def as_configured(self) -> Candidate:
        """Return the candidate in no bolder a mode than the configuration allows its target."""
        found = self
        for setting, mode in self.target.caps.items():
            found = found.at_most(mode, f"{setting} is {mode} in the configuration")
        return found


@dataclass(frozen=True)
class Misfit:
    """A playbook that matches the alert but cannot become a candidate."""

    playbook: str
    target: str
    denied: Denied


def candidates(
    alert: StoredAlert, library: Mapping[str, Pinned], inventory: Inventory
) -> list[Candidate | Misfit]:
    """Return what could be done about an alert, highest priority first."""
    if alert.name == WATCHDOG:
        return [Misfit("", "", Denied(Reason.WATCHDOG, "a heartbeat: its silence is the alarm"))]
    matching = [
        p for p in library.values() if p.playbook.matches(alert.labels, source=alert.source)
    ]
    if not matching:
        return [Misfit("", "", Denied(Reason.NO_PLAYBOOK, "no playbook's matchers meet it"))]
    matching.sort(key=lambda p: (-p.playbook.priority, p.playbook.name))
    return [candidate_for(alert, pinned, inventory) for pinned in matching]


def candidate_for(alert: StoredAlert, pinned: Pinned, inventory: Inventory) -> Candidate | Misfit:
    """Fill one playbook in for one alert."""
    name = pinned.playbook.name
    values = template_values(alert.labels, alert.annotations, {})
    try:
        wanted = render_target(pinned.playbook, values)
    except ValueError as error:
        return Misfit(name, "", Denied(Reason.TEMPLATE, str(error)))
    target = inventory.find(wanted)
    if target is None:
        known = ", ".join(sorted(t.name for t in inventory)) or "none"
        denied = Denied(
            Reason.NO_TARGET,
            f"{wanted!r} is not in the inventory",
            {"wanted": wanted, "known": known},
        )
        return Misfit(name, wanted, denied)
    described = {
        "name": target.name,
        "instance": target.instance,
        "job": target.job,
        "pool": target.pool,
    }
    try:
        plan = render_playbook(
            pinned.playbook, template_values(alert.labels, alert.annotations, described)
        )
    except ValueError as error:
        return Misfit(name, target.name, Denied(Reason.TEMPLATE, str(error)))
    found = Candidate(alert=alert, pinned=pinned, plan=plan, target=target, inventory=inventory)
    return found.as_configured()
