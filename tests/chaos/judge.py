"""What a storm left behind: the journal read as plain SQL, beside what the targets counted.

Used by `harness`. It shares no code with the controller: a query that is wrong in the same way as
the thing it checks proves nothing.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.chaos.plant import Emulated

OPEN_STATES = ("acting", "waiting", "rolling_back")
OPEN = str(OPEN_STATES)


@dataclass
class Journal:
    """A journal, for reading."""

    path: Path

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Return what a query gives."""
        url = f"file:{self.path}?mode=ro"
        with closing(sqlite3.connect(url, uri=True, timeout=10)) as opened:
            return opened.execute(query, values).fetchall()

    def count(self, query: str) -> int:
        """Return how many rows a query gives."""
        return len(self.rows(query))

    def runs(self) -> int:
        """Return how many runs there are."""
        return self.count("SELECT id FROM runs")

    def quiet(self) -> bool:
        """Say whether nothing is left to do."""
        return not (self.stuck() or self.held() or self.undecided())

    def stuck(self) -> list[tuple[Any, ...]]:
        """Return runs that are open or that hold a slot."""
        return self.rows(
            "SELECT id, target, kind, state, reason FROM runs"
            f" WHERE state IN {OPEN} OR holds_slot OR closed_at IS NULL"
        )

    def held(self) -> list[tuple[Any, ...]]:
        """Return changes that nobody has given back."""
        return self.rows(
            "SELECT id, target, knob, value, state FROM changes WHERE closed_at IS NULL"
        )

    def undecided(self) -> list[tuple[Any, ...]]:
        """Return alerts without a decision."""
        return self.rows(
            "SELECT id, fingerprint FROM alerts"
            " WHERE id NOT IN (SELECT alert_id FROM decisions WHERE alert_id IS NOT NULL)"
        )

    def open_steps(self) -> list[tuple[Any, ...]]:
        """Return attempts without an outcome."""
        return self.rows(
            "SELECT run_id, call FROM steps WHERE status = 'started' OR ended_at IS NULL"
        )

    def polled(self) -> int:
        """Return how many alerts were found by asking, their webhook being lost."""
        return self.count("SELECT id FROM alerts WHERE source = 'reconcile'")

    def lost(self, told: set[str], over: set[str]) -> list[str]:
        """Return acknowledged alerts that are not known, and those that are over and fire on."""
        known = {row[0]: row[1] for row in self.rows("SELECT fingerprint, firing FROM alerts")}
        unknown = [f"{name} is not known" for name in sorted(told - known.keys())]
        return unknown + [f"{name} still fires" for name in sorted(over) if known.get(name)]

    def doubled(self, targets: dict[str, Emulated]) -> list[str]:
        """Return stops and starts that were sent again without proof, or without an intent.

        Two records are compared: attempts under one key (all but the last must have been proved
        not to have been applied), and what each target counted against what was intended. On the
        way back a start is sent until it is confirmed, because nobody may be left stopped; that it
        takes effect once for each key is what the target's own count has to show.
        """
        found = []
        attempts: dict[str, list[str]] = {}
        intended: Counter[tuple[str, str]] = Counter()
        keys: dict[tuple[str, str], set[str]] = {}
        query = (
            "SELECT r.target, s.verb, s.idempotency_key, s.status, s.phase FROM steps s"
            " JOIN runs r ON r.id = s.run_id WHERE s.verb IN ('stop', 'start') ORDER BY s.id"
        )
        for target, verb, key, status, phase in self.rows(query):
            if (phase, verb) != ("rollback", "start"):
                attempts.setdefault(key, []).append(status)
            intended[target, verb] += 1
            keys.setdefault((target, verb), set()).add(key)
        for key, said in attempts.items():
            if any(status != "not_sent" for status in said[:-1]):
                found.append(f"{key}: {said}")
        for name, target in targets.items():
            for verb in ("stop", "start"):
                sent, done = target.arrived[verb], target.applied[verb]
                allowed, named = intended[name, verb], len(keys.get((name, verb), ()))
                if sent > allowed or done > named:
                    found.append(f"{name}: {sent} {verb}s of {allowed}, {done} done of {named}")
        return found

    def undone_twice(self) -> list[tuple[Any, ...]]:
        """Return what was taken back more than once."""
        return self.rows(
            "SELECT run_id, pc, iteration, call, count(*) FROM steps"
            " WHERE phase = 'rollback' AND status = 'ok'"
            " GROUP BY run_id, pc, iteration, call HAVING count(*) > 1"
        )

    def two_at_once(self) -> list[tuple[Any, ...]]:
        """Return attempts on one target that overlapped in time, of two different remedies.

        A restore whose call has no answer lets go of the target, and a remedy may act before that
        call is settled; its fencing token makes the late one harmless.
        """
        return self.rows(
            "SELECT a.id, b.id, x.target FROM steps a JOIN runs x ON x.id = a.run_id"
            " JOIN runs y ON y.target = x.target AND y.id > x.id AND y.mode = x.mode"
            " JOIN steps b ON b.run_id = y.id"
            " WHERE x.kind = 'remedy' AND y.kind = 'remedy'"
            " AND a.started_at < b.started_at AND a.ended_at > b.started_at"
        )

    def half_done(self, targets: dict[str, Emulated]) -> list[str]:
        """Return targets that are stopped or drained, of which no person was told."""
        told = {
            row[0]
            for row in self.rows(
                "SELECT r.target FROM notifications n JOIN runs r ON r.id = n.run_id"
                " WHERE n.severity = 'critical'"
            )
        }
        left = [t.name for t in targets.values() if t.draining or not t.running]
        return sorted(set(left) - told)

    def gave_up_unsure(self) -> int:
        """Return how many runs ended because nobody could say what became of a call."""
        query = "SELECT run_id, result FROM steps WHERE status = 'unknown'"
        return len(
            {run for run, result in self.rows(query) if json.loads(result or "{}").get("given_up")}
        )

    def ends(self) -> Counter[str]:
        """Return how the runs ended."""
        return Counter(
            f"{kind} {state}" for kind, state in self.rows("SELECT kind, state FROM runs")
        )
