"""Admission: ask first, then decide, count and claim in one transaction.

Called by reconcile for every alert that needs a decision, by settle for an escalation, and by the
runner for a run that waited without its slot. The surprise: nothing is decided on what was read
before the transaction except timestamped evidence, and that is refused when it has grown too old.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from remediator.engine import notices
from remediator.engine.dispatch import Candidate, Misfit, candidates
from remediator.engine.evidence import Evidence, gather
from remediator.engine.guards import BEFORE_ACTING, WHILE_ACTING, Judged, judge
from remediator.engine.guards.facts import Facts
from remediator.engine.guards.snapshot import snapshot, stands
from remediator.engine.moves import Progress
from remediator.engine.ports import MetricSource, SilenceSource
from remediator.model.decision import Admitted, Decision, Denied, Reason
from remediator.model.pace import Pace
from remediator.model.playbook import Lane, Mode, Pinned
from remediator.model.run import Run, RunKind
from remediator.model.target import Inventory
from remediator.store import alerts as alert_rows
from remediator.store import decisions, guarding, overrides, runs, steps
from remediator.store.alerts import StoredAlert
from remediator.store.database import Database, Tx, moment

# The role of what the guards require, when it is asked again within a run.
REQUIRE = "require"
# (target, lane): the playbook that was admitted there for one alert.
_Taken = dict[tuple[str, Lane], str]


@dataclass(frozen=True)
class Admission:
    """What admission needs to decide."""

    db: Database
    metrics: MetricSource
    silences: SilenceSource
    inventory: Inventory
    pace: Pace

    async def consider(
        self, alert: StoredAlert, library: Mapping[str, Pinned]
    ) -> list[tuple[str, Decision]]:
        """Decide about one alert; return (playbook, decision) in the order they were taken.

        1. An alert that is over, or that a run already works on, needs no new decision.
        2. Candidates are looked at by priority; once one is admitted, the rest are superseded.
        3. Each is checked cheaply, then against fresh evidence, then for good in one transaction.
        """
        if not await self.db.write(_needs_decision, alert.id):
            return []
        taken: list[tuple[str, Decision]] = []
        again = makes_room = False
        admitted_on: _Taken = {}
        for found in candidates(alert, library, self.inventory):
            if isinstance(found, Misfit):
                await self._record(alert, found.playbook, found.target, found.denied)
                taken.append((found.playbook, found.denied))
                continue
            decision = await self._decide(found, admitted_on)
            if decision is None:
                again = True
                continue
            makes_room = makes_room or _makes_room(found, decision)
            again = again or isinstance(decision, Admitted) or decision.is_transient
            taken.append((found.plan.name, decision))
        # The run that makes room does so at its next step boundary: be there when it does.
        after = timedelta() if makes_room else self.pace.review
        await self.db.write(alert_rows.review_again, alert.id, after=after if again else None)
        return taken

    async def _decide(self, candidate: Candidate, admitted_on: _Taken) -> Decision | None:
        """Return the decision; None when a run of this lane works on the alert already."""
        current = await self.db.read(_limited, candidate)
        place = (current.target.name, current.plan.mode.lane)
        other = admitted_on.get(place)
        if other is not None:
            denied = Denied(Reason.SUPERSEDED, f"{other} has a higher priority on this target")
            await self._record(current.alert, current.plan.name, current.target.name, denied)
            return denied
        if await self.db.read(_worked_on, current):
            return None
        early = await self.db.write(precheck, candidate, self.pace)
        if early is not None:
            return early
        evidence = await self.evidence(candidate)
        decision = await self.db.write(admit, candidate, evidence, self.pace)
        if isinstance(decision, Admitted):
            admitted_on[place] = current.plan.name
        return decision

    async def evidence(self, candidate: Candidate) -> Evidence:
        """Ask what the candidate's guards need to know."""
        # Aged by the journal's clock, from before the question was asked (docs/decisions/0007).
        asked_at = await self.db.read(moment)
        return await gather(candidate.plan, self.metrics, self.silences, asked_at)

    async def readmit(self, progress: Progress, alert: StoredAlert | None) -> Denied | None:
        """Ask all guards again for a run that waited without its slot, and take the slot.

        The run is not counted against itself. The decision is on record, whichever it is.

        Returns:
            None when the run holds its target's slot now; otherwise why it may not go on.

        Raises:
            FencedError: the run is no longer ours.
        """
        if alert is None:
            return Denied(Reason.RESOLVED, "its alert is forgotten")
        candidate = self._in_flight(progress, alert)
        evidence = await self.evidence(candidate)
        return await self.db.write(readmit, candidate, evidence, self.pace, progress.run)

    async def ask_again(self, progress: Progress) -> Denied | None:
        """Ask again what must still be true for a run in flight to act, and keep what was measured.

        Raises:
            FencedError: the run is no longer ours.
        """
        alert_id = progress.run.alert_id
        alert = None if alert_id is None else await self.db.read(alert_rows.get_alert, alert_id)
        if alert is None:
            return None
        candidate = self._in_flight(progress, alert)
        evidence = await self.evidence(candidate)
        return await self.db.write(still_true, candidate, evidence, self.pace, progress.run)

    def _in_flight(self, progress: Progress, alert: StoredAlert) -> Candidate:
        # The plan is filled in already: what the playbook was written like no longer matters.
        pinned = Pinned(playbook=progress.plan, text="", sha256=progress.run.playbook_sha)
        return Candidate(
            alert=alert,
            pinned=pinned,
            plan=progress.plan,
            target=progress.target,
            inventory=self.inventory,
        ).as_configured()

    async def _record(self, alert: StoredAlert, playbook: str, target: str, denied: Denied) -> None:
        await self.db.write(
            decisions.record, alert_id=alert.id, playbook=playbook, target=target, decision=denied
        )


def _makes_room(candidate: Candidate, decision: Decision) -> bool:
    if isinstance(decision, Admitted) or decision.reason is not Reason.BUSY:
        return False
    acting: int = decision.evidence.get("priority", candidate.plan.priority)
    return acting < candidate.plan.priority


def _needs_decision(tx: Tx, alert_id: int) -> bool:
    alert = alert_rows.get_alert(tx, alert_id)
    if alert is None:
        return False
    if not alert.firing:
        over = Denied(Reason.RESOLVED, "it was over before it was looked at")
        decisions.record_if_first(tx, alert_id=alert_id, decision=over)
        alert_rows.review_again(tx, alert_id, after=None)
        return False
    return True


def _limited(tx: Tx, candidate: Candidate) -> Candidate:
    """Return the candidate in the most careful of the modes that are allowed now."""
    plan, target = candidate.plan, candidate.target
    for cap in overrides.mode_caps(tx, playbook=plan.name, target=target.name, pool=target.pool):
        why = f"{cap.by} allows {cap.scope} {cap.name} no more than {cap.mode}: {cap.reason}"
        candidate = candidate.at_most(cap.mode, why)
    return candidate


def _worked_on(tx: Tx, candidate: Candidate) -> bool:
    return runs.open_remedy(tx, candidate.alert.id, candidate.plan.mode) is not None


def precheck(tx: Tx, candidate: Candidate, pace: Pace) -> Denied | None:
    """Refuse early what needs no query."""
    breaker = stands(tx, candidate)
    notices.demote(tx, candidate, breaker)
    candidate = _limited(tx, candidate)
    facts = snapshot(tx, candidate, None, pace, breaker=breaker)
    judged = judge(facts)
    if judged.denied is None or _would_make_room(facts, judged.denied):
        return None
    return _refuse(tx, candidate, judged)


def _would_make_room(facts: Facts, denied: Denied) -> bool:
    acting = facts.acting
    return (
        denied.reason is Reason.BUSY
        and acting is not None
        and acting.priority < facts.plan.priority
    )


def _settled(tx: Tx, facts: Facts) -> Judged:
    """Judge for good; a less important run makes room when nothing else is in the way."""
    judged = judge(facts)
    if judged.denied is None or not _would_make_room(facts, judged.denied):
        return judged
    alone = judge(replace(facts, acting=None))
    if alone.denied is not None:
        return alone
    if facts.acting is not None:
        why = f"preempted: {facts.plan.name} has a higher priority"
        runs.ask_to_stop(tx, facts.acting.id, reason=why)
    return judged


def admit(
    tx: Tx, candidate: Candidate, evidence: Evidence, pace: Pace, *, parent_id: int | None = None
) -> Decision:
    """Decide for good: the alert, every counter, lock and pause again, then run and slot."""
    guarding.one_by_one(tx)
    breaker = stands(tx, candidate)
    notices.demote(tx, candidate, breaker)
    candidate = _limited(tx, candidate)
    parent = None if parent_id is None else runs.get_run(tx, parent_id)
    judged = _over(tx, candidate, None) or _settled(
        tx, snapshot(tx, candidate, evidence, pace, breaker=breaker, parent=parent)
    )
    if judged.denied is not None:
        return _refuse(tx, candidate, judged)
    run_id = _open(tx, candidate, parent_id)
    if run_id is None:
        busy = Denied(Reason.BUSY, "another run took the target at the same moment")
        return _refuse(tx, candidate, Judged(busy, judged.waived))
    return _accept(tx, candidate, run_id, evidence, judged)


def _open(tx: Tx, candidate: Candidate, parent_id: int | None) -> int | None:
    pinned, plan, target = candidate.pinned, candidate.plan, candidate.target
    runs.keep_playbook(tx, sha256=pinned.sha256, name=pinned.playbook.name, text=pinned.text)
    return runs.open_run(
        tx,
        runs.NewRun(
            kind=RunKind.REMEDY,
            playbook=plan.name,
            playbook_sha=pinned.sha256,
            plan=plan.model_dump(mode="json", by_alias=True),
            mode=plan.mode,
            priority=plan.priority,
            target=target.name,
            pool=target.pool,
            proposed=plan.mode is Mode.PROPOSE,
            alert_id=candidate.alert.id,
            # Asking disturbs nobody; the slot is taken, past the guards again, when it is approved.
            holds_slot=plan.mode is not Mode.PROPOSE,
            parent_id=parent_id,
        ),
    )


def readmit(
    tx: Tx, candidate: Candidate, evidence: Evidence, pace: Pace, run: Run
) -> Denied | None:
    """Ask all guards again for an open run, and take the slot; None when it holds it now.

    Raises:
        FencedError: the run is no longer ours.
    """
    guarding.one_by_one(tx)
    candidate = _limited(tx, candidate)
    judged = (
        _over(tx, candidate, run)
        or _held_back(candidate, run)
        or _settled(tx, snapshot(tx, candidate, evidence, pace, run=run))
    )
    if judged.denied is None and not run.holds_slot and not runs.take_slot(tx, run):
        busy = Denied(Reason.BUSY, "another run took the target at the same moment")
        judged = Judged(busy, judged.waived)
    if judged.denied is not None:
        return _refuse(tx, candidate, judged)
    _accept(tx, candidate, run.id, evidence, judged)
    # What a step counts from its start, such as a wait, begins now and not with the question.
    runs.fenced_update(tx, run, step_started_at=tx.now)
    return None


def still_true(
    tx: Tx, candidate: Candidate, evidence: Evidence, pace: Pace, run: Run
) -> Denied | None:
    """Judge again what must still be true for an open run to act; keep what was measured.

    Raises:
        FencedError: the run is no longer ours.
    """
    steps.measure(tx, run, role=REQUIRE, readings=list(evidence.readings.values()))
    asked = BEFORE_ACTING if run.acted_at is None else WHILE_ACTING
    return judge(snapshot(tx, candidate, evidence, pace, run=run), only=asked).denied


def _held_back(candidate: Candidate, run: Run) -> Judged | None:
    """Refuse a run that was asked about, when nothing may be done here any more but observe."""
    if candidate.plan.mode.acts or not run.mode.acts:
        return None
    return Judged(Denied(Reason.OVERRIDE, "; ".join(candidate.careful)))


def _over(tx: Tx, candidate: Candidate, run: Run | None) -> Judged | None:
    """Say why there is nothing to do (any more): it is over, or another run has it."""
    alert = alert_rows.get_alert(tx, candidate.alert.id)
    if alert is None or not alert.firing:
        return Judged(Denied(Reason.RESOLVED, "it was over before anything was done"))
    other = None if run else runs.open_remedy(tx, candidate.alert.id, candidate.plan.mode)
    if other is None:
        return None
    busy = f"run R{other.id} works on this alert already"
    return Judged(Denied(Reason.BUSY, busy, {"run": other.id}))


def _refuse(tx: Tx, candidate: Candidate, judged: Judged) -> Denied:
    denied = judged.denied or Denied(Reason.UNKNOWN, "nobody can say why")
    denied = replace(denied, evidence={**denied.evidence, **_besides(candidate, judged)})
    notices.refused(tx, candidate, denied)
    _record_in(tx, candidate, denied)
    return denied


def _accept(
    tx: Tx, candidate: Candidate, run_id: int, evidence: Evidence, judged: Judged
) -> Admitted:
    told = {**evidence.told(), **_besides(candidate, judged)}
    admitted = Admitted(run_id=run_id, evidence=told)
    _record_in(tx, candidate, admitted)
    return admitted


def _besides(candidate: Candidate, judged: Judged) -> dict[str, Any]:
    """Return what else a decision rests on: who waived what, and why its mode is careful."""
    found: dict[str, Any] = {}
    if judged.waived:
        found["waived"] = dict(judged.waived)
    if candidate.careful:
        found["mode"] = {"is": candidate.plan.mode.value, "because": list(candidate.careful)}
    return found


def _record_in(tx: Tx, candidate: Candidate, decision: Decision) -> None:
    decisions.record(
        tx,
        alert_id=candidate.alert.id,
        playbook=candidate.plan.name,
        target=candidate.target.name,
        decision=decision,
    )
