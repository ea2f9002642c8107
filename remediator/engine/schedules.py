"""Schedules: look by ourselves, and let what is found be an alert like any other.

Called by reconcile at every tick. At each slot of a playbook's schedule its `when` is asked; every
series that meets it becomes a firing episode of source `schedule`, and from there on all is as for
an alert: dedupe, guards, runs, resolve. The surprise: an episode whose series vanished is not over
at once. No data is not "fine"; only a measurement that no longer meets the condition resolves it,
or silence for as long as an alert may be absent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256

from remediator.engine.guards.windows import last_start
from remediator.engine.ports import MetricSource
from remediator.model.alert import Alert
from remediator.model.pace import Pace
from remediator.model.playbook import SCHEDULED, Pinned, Schedule
from remediator.model.template import render_schedule
from remediator.model.verdict import Vector
from remediator.store import alerts, guarding, schedules
from remediator.store.alerts import SCHEDULE, StoredAlert
from remediator.store.database import Database, Tx

# A slot of a cron that is noticed later than this (nobody was running) is left out: what was meant
# for the night is not done at noon. Its episode is open this long, for denials that pass.
CRON_GRACE = timedelta(minutes=10)
# A schedule that no replica has served for so long is forgotten, and what it found is over. One
# replica may have other playbooks than another for a while, as in a rolling update.
UNSERVED_FOR = timedelta(minutes=3)


@dataclass(frozen=True)
class Due:
    """A schedule whose slot has come.

    Attributes:
        name: the playbook and the place of the trigger in it.
    """

    name: str
    playbook: str
    schedule: Schedule
    slot: datetime


def slot_of(schedule: Schedule, now: datetime) -> datetime | None:
    """Return the newest slot that is not in the future, in UTC; None when there was never any."""
    if schedule.every is not None:
        every = schedule.every.total_seconds()
        return datetime.fromtimestamp(now.timestamp() // every * every, tz=now.tzinfo)
    return last_start(str(schedule.cron), schedule.timezone, now)


def in_library(library: Mapping[str, Pinned]) -> Iterator[tuple[str, str, Schedule]]:
    """Yield (name, playbook, schedule) of every schedule that is served."""
    for pinned in library.values():
        for place, trigger in enumerate(pinned.playbook.on):
            if trigger.schedule is not None:
                schedule = render_schedule(pinned.playbook, trigger.schedule)
                yield f"{pinned.playbook.name}/{place}", pinned.playbook.name, schedule


async def look(
    db: Database, metrics: MetricSource, library: Mapping[str, Pinned], pace: Pace
) -> bool:
    """Look wherever a slot has come; True when something may have to be decided."""
    served = list(in_library(library))
    due = await db.write(_due, served)
    changed = False
    for item in due:
        found = await metrics.series(item.schedule.when.query)
        changed = await db.write(_settle, item, found, pace) or changed
    return changed


def _due(tx: Tx, served: list[tuple[str, str, Schedule]]) -> list[Due]:
    schedules.serve(tx, [name for name, _, _ in served], forget_after=UNSERVED_FOR)
    _end(tx, _ended(tx, {*schedules.names(tx), *(name for name, _, _ in served)}))
    found = []
    for name, playbook, schedule in served:
        slot, taken = slot_of(schedule, tx.now), schedules.taken(tx, name)
        if slot is None:
            continue
        if taken is None and schedule.cron is not None and tx.now - slot > CRON_GRACE:
            # Slots from before the playbook was known are not its own.
            schedules.take(tx, name, slot)
        elif taken is None or taken < slot:
            found.append(Due(name, playbook, schedule, slot))
    return found


def _ended(tx: Tx, names: set[str]) -> Iterator[StoredAlert]:
    for episode in alerts.firing_from(tx, SCHEDULE):
        slot = episode.annotations.get("slot")
        late = slot is not None and tx.now - datetime.fromisoformat(slot) > CRON_GRACE
        if (late and not _worked_on(tx, episode)) or episode.annotations["schedule"] not in names:
            yield episode


def _worked_on(tx: Tx, episode: StoredAlert) -> bool:
    """Say whether an episode of a cron's slot has an open run: a question, for example."""
    return "slot" in episode.annotations and guarding.is_worked_on(tx, episode.id)


def _settle(tx: Tx, due: Due, found: Vector, pace: Pace) -> bool:
    if found.error:
        # Nobody could say; the slot stays open, and the next tick asks again.
        return False
    if not schedules.take(tx, due.name, due.slot):
        return False
    if due.schedule.cron is not None and tx.now - due.slot > CRON_GRACE:
        return False
    seen = {_fingerprint(due, labels): (labels, value) for labels, value in found.finite}
    when = due.schedule.when
    firing = [
        Alert(
            fingerprint=key,
            firing=True,
            labels=_labels(due, labels),
            annotations=_annotations(due, value),
            starts_at=tx.now,
        )
        for key, (labels, value) in seen.items()
        if when.holds(value)
    ]
    alerts.merge_alerts(tx, firing, source=SCHEDULE, quiet_window=pace.quiet_window)
    met = {alert.fingerprint for alert in firing}
    _end(
        tx,
        (
            episode
            for episode in alerts.firing_from(tx, SCHEDULE)
            if episode.annotations.get("schedule") == due.name
            and episode.fingerprint not in met
            and (episode.fingerprint in seen or tx.now - episode.last_seen_at > pace.absent_for)
            and not _worked_on(tx, episode)
        ),
    )
    return True


def _end(tx: Tx, episodes: Iterable[StoredAlert]) -> None:
    over = [episode.id for episode in episodes]
    if over:
        alerts.resolve(tx, over)


def _fingerprint(due: Due, labels: Mapping[str, str]) -> str:
    # A cron's slots are episodes of their own: each may have one run.
    slot = due.slot.isoformat() if due.schedule.cron is not None else ""
    text = repr((due.name, slot, sorted(labels.items())))
    return f"schedule-{sha256(text.encode()).hexdigest()[:16]}"


def _labels(due: Due, labels: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in labels.items() if name != "__name__"}
    return {**kept, "alertname": f"{SCHEDULED}{due.playbook}"}


def _annotations(due: Due, value: float) -> dict[str, str]:
    told = {"schedule": due.name, "value": f"{value:g}", "query": due.schedule.when.query}
    return {**told, "slot": due.slot.isoformat()} if due.schedule.cron is not None else told
