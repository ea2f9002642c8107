"""Alerts, outcomes, deaths and people in any order: what must hold whatever happens.

Hypothesis drives two targets, two replicas and four playbooks (throttle, restart, a retune that
asks first, a throttle that only observes) through random stories and checks the invariants of
design section 4 against what the fake targets really saw. The surprise: the checks read the
targets' own records, never what the controller believes.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from collections.abc import Coroutine
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import exists, select

from remediator.engine import stopping
from remediator.model.alert import Alert
from remediator.model.pace import Pace
from remediator.model.playbook import Mode
from remediator.model.run import Decided, Run, RunKind
from remediator.store import approvals, controls, runs
from remediator.store.database import Tx
from remediator.store.tables import alerts, decisions
from tests.builders import GPU1, GPU2, a_restart, a_retune, a_throttle, an_alert
from tests.fakes import FakeClock, Outcome, Refuse
from tests.journals import DeathPlan, DyingDatabase, a_journal
from tests.world import World

QUICK = Pace(
    scrape=timedelta(seconds=1),
    evaluation=timedelta(seconds=1),
    hold_down=timedelta(seconds=2),
    lease=timedelta(seconds=30),
    max_hold=timedelta(minutes=10),  # what a person keeps by cancelling its restore ends, too
    actions=50,
    watchdog_within=timedelta(seconds=90),
)
KNOBS = {"max_concurrency": 10, "batch_size": 8}
TARGETS = st.sampled_from([GPU1, GPU2])
NAMES = st.sampled_from(["Slow", "Down", "Memory"])
CERTAIN = st.sampled_from(
    [Outcome.TEMPORARY, Outcome.PERMANENT, Refuse("generation"), Refuse("fencing")]
)
UNSURE = st.sampled_from([Outcome.UNKNOWN_APPLIED, Outcome.UNKNOWN_LOST, Outcome.CRASH])
HELD_S = st.sampled_from([5, 40])
SETTING_VERBS = st.sampled_from(["set", "release", "drain", "undrain", "canary"])
PROCESS_VERBS = st.sampled_from(["stop", "start"])
PROOF = {"below": 0.25, "within": "20s", "for": "2s", "every": "1s", "window": "1s"}


def playbooks() -> list[dict[str, Any]]:
    """Return four playbooks that get in each other's way."""
    alive = {key: value for key, value in PROOF.items() if key != "below"}
    restart = {"verify": {"query": "alive", "above": 0, **alive}, "on_unknown": "probe"}
    patient = [{"breaker": {"failures": 1000}}]
    throttle: dict[str, Any] = {
        "knobs": {"window": "1s", "throughput": "useful"},
        "step": {"verify": {"query": "p95", **PROOF}, "lease": "2m"},
        "on_resolve": {"restore": {"every": "3s", "hold": "3s", "step": 3}},
    }
    return [
        a_throttle(guards=patient, **throttle),
        a_throttle(name="shadow", mode="observe", guards=[{"cooldown": "20s"}], **throttle),
        a_restart(
            guards=[{"cooldown": "20s"}, *patient], restart={"ready_within": "20s"}, step=restart
        ),
        a_retune(
            {"batch_size": 4},
            mode="propose",
            approval={"within": "1m"},
            priority=50,
            on={"alerts": ['alertname="Memory"']},
            step={"verify": {"query": "memory", **PROOF}, "lease": "2m"},
            on_resolve={"restore": {"every": "3s"}},
        ),
    ]


class RunMachine(RuleBasedStateMachine):
    """A world under any order of events."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.loop = asyncio.new_event_loop()
        self.world = World(url=a_journal(Path(self.folder.name)), clock=FakeClock(), pace=QUICK)
        self.world.serve(*playbooks())
        self.started = 0
        self.closed: dict[int, Run] = {}
        self.tokens: dict[str, int] = {}
        # Forward intents when it was last seen that there may be no more of them.
        self.frozen: int | None = None
        # Whether the Watchdog is heard.
        self.beats = True
        # A target on which somebody may have done what nobody knows of.
        self.unsure: set[str] = set()

    def do(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(coroutine)

    def go(self, seconds: float) -> None:
        """Let time pass, with the Watchdog heard before it or not."""
        if self.beats:
            self.do(self.world.fire(an_alert("Watchdog")))
        self.do(self.world.settle(seconds))
        if any(not one.dead for one in self.world.controllers):
            late = [c for c in self.world.changes(still_held=True) if self.over(c["lease_until"])]
            assert late == [], "held without a lease"

    def over(self, lease_until: datetime) -> bool:
        return lease_until < self.world.clock()

    @initialize(p95=st.sampled_from([0.1, 0.5]))
    def begin(self, p95: float) -> None:
        self.new_process()
        self.signals(p95, 0.1, alive=True)

    # -- the world turns -------------------------------------------------------------------------

    @rule(
        p95=st.sampled_from([0.1, 0.24, 0.26, 0.5, None]),
        memory=st.sampled_from([0.1, 0.5, None]),
        alive=st.booleans(),
    )
    def signals(self, p95: float | None, memory: float | None, *, alive: bool) -> None:
        answers = self.world.metrics.answers
        answers.update(p95=p95, memory=memory, alive=int(alive), up=int(not alive), useful=1)

    @rule(name=NAMES, where=TARGETS, seconds=st.sampled_from([1, 5, 30]))
    def trouble(self, name: str, where: str, seconds: float) -> None:
        bad: dict[str, Any] = {
            "Slow": {"p95": 0.5},
            "Down": {"alive": 1, "up": 0},
            "Memory": {"memory": 0.1},
        }
        self.world.metrics.answers.update(bad[name])
        self.do(self.world.fire(an_alert(name, where, starts_at=self.world.clock())))
        self.go(seconds)

    @rule(name=NAMES, where=TARGETS, seconds=st.sampled_from([5, 30]))
    def relief(self, name: str, where: str, seconds: float) -> None:
        self.world.metrics.answers.update(p95=0.1, memory=0.1, alive=1, up=1)
        self.go(3)
        self.do(self.world.resolve(an_alert(name, where)))
        self.go(seconds)

    @rule(down=st.booleans())
    def prometheus(self, *, down: bool) -> None:
        self.world.metrics.down = down

    @rule(name=NAMES, where=TARGETS, twice=st.booleans())
    def fire(self, name: str, where: str, *, twice: bool) -> None:
        alert = an_alert(name, where, starts_at=self.world.clock())
        self.do(self.world.fire(*[alert] * (1 + twice)))

    @rule(name=NAMES, where=TARGETS)
    def resolve(self, name: str, where: str) -> None:
        self.do(self.world.resolve(an_alert(name, where)))

    @rule(name=NAMES, where=TARGETS)
    def both_in_one_post(self, name: str, where: str) -> None:
        alert = an_alert(name, where, starts_at=self.world.clock())
        over: Alert = replace(alert, firing=False, ends_at=self.world.clock())
        self.do(self.world.fire(alert, over))

    @rule(seconds=st.sampled_from([0, 1, 3, 10, 40]))
    def time_passes(self, seconds: float) -> None:
        self.go(seconds)

    @rule(where=TARGETS, verb=SETTING_VERBS, outcome=CERTAIN)
    def settings_refused(self, where: str, verb: str, outcome: Outcome | Refuse) -> None:
        self.world.detectors[where].script(verb, outcome)

    @rule(where=TARGETS, verb=SETTING_VERBS, outcome=UNSURE)
    def settings_unsure(self, where: str, verb: str, outcome: Outcome) -> None:
        self.unsure.add(where)
        self.world.detectors[where].script(verb, outcome)

    @rule(where=TARGETS, verb=PROCESS_VERBS, outcome=st.one_of(CERTAIN, UNSURE))
    def process_fails(self, where: str, verb: str, outcome: Outcome | Refuse) -> None:
        self.world.processes[where].script(verb, outcome)

    @rule(where=TARGETS, verb=PROCESS_VERBS, outcome=UNSURE)
    def a_restart_of_which_nobody_knows(self, where: str, verb: str, outcome: Outcome) -> None:
        self.process_fails(where, verb, outcome)
        self.go(25)  # past the cooldown
        self.trouble("Down", where, 40)

    @rule(where=TARGETS, hung=st.booleans())
    def hangs(self, where: str, *, hung: bool) -> None:
        self.world.processes[where].hung = hung

    @rule(where=TARGETS, inflight=st.sampled_from([0, 2]))
    def works(self, where: str, inflight: int) -> None:
        self.world.detectors[where].inflight = inflight

    # -- people ----------------------------------------------------------------------------------

    @rule(scope=st.sampled_from(["all", "target", "playbook", "action"]))
    def pause(self, scope: str) -> None:
        names = {"all": "", "target": GPU1, "playbook": "throttle", "action": "restart"}
        self.do(self.world.pause(scope, names[scope], seconds=120))

    @rule(scope=st.sampled_from(["all", "target", "playbook", "action"]))
    def resume(self, scope: str) -> None:
        names = {"all": "", "target": GPU1, "playbook": "throttle", "action": "restart"}
        self.do(self.world.resume(scope, names[scope]))

    @rule(name=NAMES, where=TARGETS, how=st.sampled_from(["pause", "kill"]), seconds=HELD_S)
    def held_back_in_the_middle(self, name: str, where: str, how: str, seconds: float) -> None:
        # A drain that takes its time, or a throttle that is about to step again.
        self.world.detectors[where].inflight = 2
        self.trouble(name, where, 1)
        self.pause("all") if how == "pause" else self.kill()
        begun = self.forward_intents()
        self.world.detectors[where].inflight = 0
        self.go(seconds)
        assert self.forward_intents() == begun
        self.resume("all") if how == "pause" else self.unkill()

    @rule(scope=st.sampled_from(["all", "target", "playbook", "pool"]))
    def stop(self, scope: str) -> None:
        names = {"all": "", "target": GPU1, "playbook": "throttle", "pool": "detectors"}
        self.do(
            self.world.db.write(
                stopping.stop_scope, scope=scope, name=names[scope], by="ann", reason="a test"
            )
        )

    @rule()
    def kill(self) -> None:
        self.do(self.world.db.write(stopping.kill, by="ann", reason="a test"))

    @rule()
    def unkill(self) -> None:
        self.do(self.world.db.write(_unkill))

    @rule(beats=st.booleans())
    def watchdog(self, *, beats: bool) -> None:
        self.beats = beats

    @rule(yes=st.booleans(), twice=st.booleans())
    def decide(self, *, yes: bool, twice: bool) -> None:
        for asked in self.world.db.transact(approvals.open_questions, writing=False):
            decision = Decided.APPROVED if yes else Decided.REJECTED
            said = partial(
                self.world.db.write, approvals.decide, asked.id, decision=decision, reason=""
            )
            assert self.do(said(by="ann"))
            assert not (twice and self.do(said(by="bob"))), "the first decision wins"

    @precondition(lambda self: any(run.state.is_open for run in self.world.runs()))
    @rule(pick=st.integers(min_value=0, max_value=9))
    def cancel(self, pick: int) -> None:
        still_open = [run for run in self.world.runs() if run.state.is_open]
        self.do(self.world.cancel(still_open[pick % len(still_open)]))

    # -- processes -------------------------------------------------------------------------------

    @precondition(lambda self: len(self.world.controllers) < 2)
    @rule()
    def new_process(self) -> None:
        self.started += 1
        self.world.controller(f"process {self.started}")

    @rule(at=st.integers(min_value=1, max_value=12), after_commit=st.booleans())
    def replace_by_one_that_will_die(self, at: int, *, after_commit: bool) -> None:
        self.started += 1
        plan = DeathPlan(at=at, after_commit=after_commit)
        db = DyingDatabase(self.world.url, clock=self.world.clock, plan=plan)
        self.world.controllers[0].db.close()
        self.world.controllers.pop(0)
        self.world.controller(f"process {self.started}", db=db)
        # Dying between effect and record leaves an outcome that nobody knows.
        self.unsure.update({GPU1, GPU2})

    # -- what must hold --------------------------------------------------------------------------

    def forward_intents(self) -> int:
        return sum(
            row.phase == "forward" and row.call in {"drain", "stop", "set", "set:batch_size"}
            for run in self.world.runs(kind=RunKind.REMEDY)
            for row in self.world.steps(run)
        )

    @invariant()
    def nothing_new_is_begun_while_paused_or_killed_or_blind(self) -> None:
        blocked = self.world.db.transact(controls.blocked, playbook="", target="", writing=False)
        if blocked is None:
            self.frozen = None
            return
        begun = self.forward_intents()
        assert self.frozen in {None, begun}, blocked
        self.frozen = begun

    @invariant()
    def a_key_names_one_call_and_is_the_same_for_all_its_attempts(self) -> None:
        keys: dict[tuple[Any, ...], set[str]] = {}
        for run in self.world.runs():
            token = 0
            for row in self.world.steps(run):
                call = (run.id, row.phase, row.pc, row.iteration, row.call)
                keys.setdefault(call, set()).add(row.idempotency_key)
                assert row.fencing_token >= token
                token = row.fencing_token
        assert all(len(found) == 1 for found in keys.values()), keys
        assert len(set().union(*keys.values())) == len(keys)

    @invariant()
    def the_fence_of_a_target_only_rises(self) -> None:
        for target in (GPU1, GPU2):
            token = self.world.db.transact(runs.newest_token, target, writing=False)
            assert token >= self.tokens.get(target, 0)
            self.tokens[target] = token

    @invariant()
    def who_observes_or_proposes_sends_nothing(self) -> None:
        quiet = {run.id for run in self.world.runs() if run.mode is not Mode.AUTO}
        for fake in self.world.actuators.values():
            acting = {sent.key.split("-")[1] for sent in fake.sent if sent.key.startswith("run-")}
            assert not acting & {str(run) for run in quiet}

    @invariant()
    def what_is_over_has_an_outcome(self) -> None:
        for run in self.world.runs():
            if not run.state.is_open:
                assert all(row.status != "started" for row in self.world.steps(run)), run

    @invariant()
    def closed_runs_never_change(self) -> None:
        for run in self.world.runs():
            if run.id in self.closed:
                assert run == self.closed[run.id]
            elif not run.state.is_open:
                self.closed[run.id] = run

    @invariant()
    def at_most_one_run_acts_on_a_target(self) -> None:
        acting = Counter((run.target, run.mode.lane) for run in self.world.runs() if run.holds_slot)
        assert all(count == 1 for count in acting.values()), acting

    @invariant()
    def no_restart_is_sent_twice_without_proof(self) -> None:
        for run in self.world.runs(kind=RunKind.REMEDY):
            rows = [row for row in self.world.steps(run) if row.verb in {"stop", "start"}]
            for key in {row.idempotency_key for row in rows}:
                attempts = [row for row in rows if row.idempotency_key == key]
                # All but the last were proved not to have been applied.
                assert all(row.status == "not_sent" for row in attempts[:-1]), attempts
                sent = [
                    s
                    for process in self.world.processes.values()
                    for s in process.sent
                    if s.key == key and s.applied
                ]
                assert len(sent) <= 1, sent

    @invariant()
    def each_thing_is_undone_at_most_once(self) -> None:
        for run in self.world.runs():
            undone = Counter(
                (row.pc, row.iteration, row.call)
                for row in self.world.steps(run)
                if row.phase == "rollback" and row.status == "ok"
            )
            assert all(count == 1 for count in undone.values()), undone

    @invariant()
    def tokens_never_fall(self) -> None:
        for detector in self.world.detectors.values():
            tokens = [s.token for s in detector.applied()]
            assert tokens == sorted(tokens)

    @invariant()
    def every_firing_alert_has_a_decision_or_waits_for_one(self) -> None:
        assert self.world.db.transact(_forgotten, writing=False) == []

    @invariant()
    def what_is_held_is_what_the_target_has(self) -> None:
        if any(not one.dead and one.reconciler.driving for one in self.world.controllers):
            return
        newest = {(row["target"], row["knob"]): row for row in self.world.changes()}
        for where in {GPU1, GPU2} - self.unsure:
            detector = self.world.detectors[where]
            for knob, base in KNOBS.items():
                change = newest.get((where, knob))
                lease = detector.leases.get(knob)
                if lease is not None and self.world.clock() >= lease.expires_at:
                    continue  # the target takes it back by itself
                if change is not None and change["closed_at"] is None:
                    assert detector.value(knob) == change["value"], (where, knob)
                elif detector.value(knob) != base:
                    assert change is not None, (where, knob)
                    assert change["state"] == "expired", (where, knob)

    def teardown(self) -> None:
        """Let the story end: with a process that lives, every run does."""
        try:
            if self.world.controllers:
                self.calm()
        finally:
            self.world.close()
            self.loop.close()
            self.folder.cleanup()

    def calm(self) -> None:
        self.new_process()
        self.beats = True
        for scope in ("all", "target", "playbook", "action"):
            self.resume(scope)
        self.unkill()
        self.go(0)
        self.world.metrics.down = False
        self.signals(0.1, 0.1, alive=True)
        for fake in self.world.actuators.values():
            fake.scripts.clear()
        for target in (GPU1, GPU2):
            self.world.processes[target].hung = False
            self.world.detectors[target].inflight = 0
            for name in ("Slow", "Down", "Memory"):
                self.do(self.world.resolve(an_alert(name, target)))
        self.do(self.world.until(self.all_over, within=1200))
        for check in (
            self.closed_runs_never_change,
            self.no_restart_is_sent_twice_without_proof,
            self.every_firing_alert_has_a_decision_or_waits_for_one,
        ):
            check()
        self.do(self.world.settle(400))
        self.what_is_over_has_an_outcome()
        told = " ".join(self.world.paged())
        for target in (GPU1, GPU2):
            detector = self.world.detectors[target]
            assert {knob: detector.value(knob) for knob in KNOBS} == KNOBS, self.world.story()
            half_done = detector.draining or not self.world.processes[target].running
            assert not half_done or target in told, self.world.story()

    def all_over(self) -> bool:
        still_open = [run for run in self.world.runs() if run.state.is_open]
        return not still_open and self.world.changes(still_held=True) == []


def _forgotten(tx: Tx) -> list[int]:
    decided = exists().where(decisions.c.alert_id == alerts.c.id)
    rows = tx.conn.execute(
        select(alerts.c.id).where(alerts.c.firing, alerts.c.review_at.is_(None), ~decided)
    )
    return [row.id for row in rows]


def _unkill(tx: Tx) -> int:
    return controls.lift(tx, controls.in_force(tx, controls.Kind.KILL), by="ann")


class LongMachine(RunMachine):
    """The same machine, for longer stories."""


def _settings(examples: int, steps: int) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        # Making a failing story short takes longer than a test may; it is shown as it was found.
        phases=[Phase.explicit, Phase.reuse, Phase.generate],
    )


TestShortStories = RunMachine.TestCase
TestShortStories.settings = _settings(4, 14)
TestLongStories = pytest.mark.slow(LongMachine.TestCase)
TestLongStories.settings = _settings(25, 30)
