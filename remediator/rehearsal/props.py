"""Stand-ins for what a run may touch: the engine's `Actuator` on a target that is only described.

Made by `stage`, one for each target and role. They keep the rules that the real ones keep (leases
over bases, pins, fencing, one answer a key, a process that must run to answer), so a test sees what
a target would really hold. The surprise: what a call comes to is said by the test's `actuators`;
`Sent` keeps what truly happened beside what the caller was told.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from remediator.clock import Clock
from remediator.errors import OutcomeUnknownError, PermanentError, RefusedError, TemporaryError
from remediator.model.effect import Call
from remediator.model.target import Target
from remediator.rehearsal.script import APPLIED, Behaviour, Outcome

# How fast a lapsed lease ramps back where the caller says nothing (design, section 6).
REVERT_STEP = 1.0
REVERT_EVERY_S = 60.0


@dataclass(frozen=True)
class Sent:
    """One call that arrived at a target.

    Attributes:
        outcome: what the caller was told.
        applied: whether the target did it; False for a repeat under a known key.
    """

    at: datetime
    target: str
    role: str
    verb: str
    args: dict[str, Any]
    key: str
    outcome: Outcome
    applied: bool

    @property
    def is_upkeep(self) -> bool:
        """Whether it only renewed a lease that is held already."""
        return self.key.startswith("change-")


@dataclass
class Cue:
    """A behaviour, for how many more calls it holds, and whether any came."""

    behaviour: Behaviour
    left: float = field(init=False)
    used: bool = False

    def __post_init__(self) -> None:
        self.left = math.inf if self.behaviour.times is None else self.behaviour.times

    def meets(self, target: str, role: str, verb: str) -> bool:
        """Say whether it is this call's turn."""
        wanted = self.behaviour
        return (
            self.left > 0
            and wanted.call == verb
            and wanted.target in {"", target}
            and wanted.role in {"", role}
        )


@dataclass
class Props:
    """What all stand-ins of one test share: the clock, the cues, the record.

    Attributes:
        wait: lets so much time pass, for a call that hangs.
        on_effect: is told of an applied call whose behaviour has an effect.
    """

    clock: Clock
    cues: list[Cue]
    wait: Callable[[timedelta], None]
    on_effect: Callable[[Behaviour], None]
    sent: list[Sent] = field(default_factory=list)

    def cue(self, target: str, role: str, verb: str) -> Behaviour:
        """Take what the next call comes to; ok where the test says nothing."""
        for cue in self.cues:
            if cue.meets(target, role, verb):
                cue.left -= 1
                cue.used = True
                return cue.behaviour
        return Behaviour(call=verb)


class Prop:
    """One target in one role; the base takes every verb and keeps nothing."""

    def __init__(self, props: Props, name: str, role: str) -> None:
        self.props = props
        self.name = name
        self.role = role
        self.reachable = True
        self.answers: dict[str, Mapping[str, Any]] = {}

    @property
    def responds(self) -> bool:
        """Say whether anybody answers."""
        return self.reachable

    async def read(self, target: Target) -> Mapping[str, Any]:
        """Return its state.

        Raises:
            TemporaryError: nobody answers.
        """
        self._must_respond(target)
        return self.state()

    async def probe(self, target: Target, call: Call, before: Mapping[str, Any]) -> bool | None:
        """Say whether the call was applied, where that shows."""
        del target
        return self.shows(call, before) if self.responds else None

    async def send(self, target: Target, call: Call) -> Mapping[str, Any]:
        """Do it, or what the test says it comes to.

        Raises:
            TemporaryError, PermanentError, OutcomeUnknownError: as the test says.
        """
        if not self.responds:
            self._record(call, Outcome.NOT_NOW, applied=False)
        self._must_respond(target)
        behaviour = self.props.cue(self.name, self.role, call.verb)
        if behaviour.outcome not in APPLIED:
            self._record(call, behaviour.outcome, applied=False)
            self._refuse_or_fail(call, behaviour)
        answer = self._apply(call, behaviour)
        if behaviour.outcome is Outcome.UNKNOWN_APPLIED:
            raise OutcomeUnknownError(f"{call.verb}: no answer came")
        return answer

    def _must_respond(self, target: Target) -> None:
        if not self.responds:
            raise TemporaryError(f"{target.name} does not answer as {self.role}")

    def _refuse_or_fail(self, call: Call, behaviour: Behaviour) -> None:
        match behaviour.outcome:
            case Outcome.REFUSES:
                raise RefusedError(
                    f"{self.name} refuses {call.verb}: {behaviour.reason}", reason=behaviour.reason
                )
            case Outcome.NOT_NOW:
                raise TemporaryError(f"{self.name} says not now to {call.verb}")
            case Outcome.HANGS:
                self.props.wait(timedelta(seconds=call.timeout_s))
                raise OutcomeUnknownError(f"{call.verb}: no answer within {call.timeout_s:g}s")
            case Outcome.UNKNOWN_NOT_APPLIED:
                raise OutcomeUnknownError(f"{call.verb}: no answer came")
            case _:
                raise PermanentError(f"{self.name} cannot {call.verb}")

    def _apply(self, call: Call, behaviour: Behaviour) -> Mapping[str, Any]:
        known = self.answers.get(call.idempotency_key)
        if known is not None:
            self._record(call, behaviour.outcome, applied=False)
            return known
        try:
            answer = self.do(call)
        except RefusedError:
            self._record(call, Outcome.REFUSES, applied=False)
            raise
        self._record(call, behaviour.outcome, applied=True)
        self.answers[call.idempotency_key] = answer
        if behaviour.effect:
            self.props.on_effect(behaviour)
        return answer

    def _record(self, call: Call, outcome: Outcome, *, applied: bool) -> None:
        self.props.sent.append(
            Sent(
                at=self.props.clock(),
                target=self.name,
                role=self.role,
                verb=call.verb,
                args=dict(call.args),
                key=call.idempotency_key,
                outcome=outcome,
                applied=applied,
            )
        )

    def state(self) -> Mapping[str, Any]:
        """Return what `read` tells."""
        return {}

    def shows(self, call: Call, before: Mapping[str, Any]) -> bool | None:
        """Say whether a call shows in the state; None where nothing is kept that could show it."""
        del call, before
        return None

    def do(self, call: Call) -> Mapping[str, Any]:
        """Change the state.

        Raises:
            RefusedError: it may not be changed so.
        """
        return {"done": call.verb}


class Process(Prop):
    """A program under a process manager."""

    def __init__(self, props: Props, name: str, role: str) -> None:
        super().__init__(props, name, role)
        self.running = True
        self.hung = False
        self.pid = 100
        self.started_at = props.clock() - timedelta(hours=1)

    @property
    def serves(self) -> bool:
        """Say whether what runs answers its clients."""
        return self.running and not self.hung

    @property
    def condition(self) -> str:
        """What it is like, in one word."""
        return "stopped" if not self.running else "hung" if self.hung else "running"

    def start(self) -> None:
        """Start it anew, whoever does."""
        self.running, self.hung = True, False
        self.pid += 1
        self.started_at = self.props.clock()

    def state(self) -> Mapping[str, Any]:
        """Return what a process manager tells."""
        return {
            "state": "RUNNING" if self.running else "STOPPED",
            "pid": self.pid if self.running else 0,
            "started_at": self.started_at.isoformat(),
        }

    def shows(self, call: Call, before: Mapping[str, Any]) -> bool | None:
        """Tell by the process id."""
        other = self.pid != before.get("pid")
        return (not self.running or other) if call.verb == "stop" else (self.running and other)

    def do(self, call: Call) -> Mapping[str, Any]:
        """Stop it, or start it where it does not run."""
        if call.verb == "stop":
            self.running = False
        elif call.verb == "start" and not self.running:
            self.start()
        return self.state()


@dataclass
class Lease:
    """A value over its base.

    Attributes:
        step: how far it ramps back at a time; None = in one jump.
    """

    owner: str
    value: float
    expires_at: datetime
    step: float | None
    every: timedelta


class Document(Prop):
    """Values under leases: a service's settings, a balancer's weight, a number of replicas.

    Attributes:
        leasing: whether a lapsed lease is taken back by the target itself.
        process: what must run for anybody to answer; None = nothing.
    """

    def __init__(
        self,
        props: Props,
        name: str,
        role: str,
        *,
        values: Mapping[str, float],
        leasing: bool,
        process: Process | None = None,
    ) -> None:
        super().__init__(props, name, role)
        self.base = dict(values)
        self.leasing = leasing
        self.process = process
        self.leases: dict[str, Lease] = {}
        self.pins: dict[str, str] = {}
        self.generation = 1
        self.token = 0
        self.draining = False
        self.sees = True

    @property
    def responds(self) -> bool:
        """Say whether it can be reached and what serves it runs."""
        return self.reachable and (self.process is None or self.process.serves)

    def value(self, knob: str) -> float:
        """Return what is in force now."""
        self._lapse()
        lease = self.leases.get(knob)
        return self.base[knob] if lease is None else lease.value

    def pin(self, knob: str, owner: str) -> None:
        """Do what a person does: keep the value as it is, whatever holds it."""
        self.base[knob] = self.value(knob)
        self.leases.pop(knob, None)
        self.pins[knob] = owner
        self.generation += 1

    def state(self) -> Mapping[str, Any]:
        """Return the settings document and how far the service is ready."""
        self._lapse()
        leases = {
            knob: {"owner": lease.owner, "value": lease.value, "base": self.base[knob]}
            for knob, lease in self.leases.items()
        }
        return {
            "settings": {
                "generation": self.generation,
                "values": {knob: self.value(knob) for knob in self.base},
                "base": dict(self.base),
                "leases": leases,
                "pins": {
                    knob: {"owner": who, "reason": "by hand"} for knob, who in self.pins.items()
                },
                "effective": {},
                "leasing": self.leasing,
            },
            "ready": {"loaded": True, "warm": True, "inflight": 0, "queued": 0},
        }

    def shows(self, call: Call, before: Mapping[str, Any]) -> bool | None:
        """Tell by the key: the target remembers what it has answered."""
        del before
        return call.idempotency_key in self.answers

    def do(self, call: Call) -> Mapping[str, Any]:
        """Set, release, drain, undrain, or look at the canary; other verbs are taken as they are.

        Raises:
            RefusedError: a newer run was here, somebody pinned it, or another owner holds it.
        """
        self._lapse()
        if call.fencing_token < self.token:
            self._refuse(call, "fencing")
        match call.verb:
            case "set":
                self._set(call)
            case "release":
                self.leases.pop(call.args["knob"], None)
            case "drain" | "undrain":
                self.draining = call.verb == "drain"
        self.token = call.fencing_token
        self.generation += call.verb in {"set", "release"}
        return {"ok": self.sees} if call.verb == "canary" else {"generation": self.generation}

    def _set(self, call: Call) -> None:
        owner = call.args.get("owner", "")
        if call.args.get("if_generation") not in {None, self.generation}:
            self._refuse(call, "generation")
        for knob in call.args["values"]:
            if knob not in self.base:
                self._refuse(call, "invalid")
            if self.pins.get(knob, owner) != owner:
                self._refuse(call, "pinned")
            if knob in self.leases and self.leases[knob].owner != owner:
                self._refuse(call, "leased")
        for knob, value in call.args["values"].items():
            self.leases[knob] = Lease(
                owner=owner,
                value=value,
                expires_at=self.props.clock() + timedelta(seconds=call.args.get("lease_s", 900)),
                step=call.args.get("revert_step", REVERT_STEP),
                every=timedelta(seconds=call.args.get("revert_every_s", REVERT_EVERY_S)),
            )

    def _refuse(self, call: Call, reason: str) -> None:
        raise RefusedError(f"{self.name} refuses {call.verb}: {reason}", reason=reason)

    def _lapse(self) -> None:
        if not self.leasing:
            return
        for knob, lease in list(self.leases.items()):
            while knob in self.leases and self.props.clock() >= lease.expires_at:
                distance = self.base[knob] - lease.value
                if lease.step is None or abs(distance) <= lease.step:
                    del self.leases[knob]
                else:
                    lease.value += math.copysign(lease.step, distance)
                    lease.expires_at += lease.every
                self.generation += 1
