"""The cast of a test: which stand-ins a target has, what may happen to them, how they end.

Called by `stage`. The surprise: endpoints, commands and silences belong to every target, as in the
controller, whatever the test says of it.
"""

from __future__ import annotations

from collections.abc import Mapping

from remediator.engine.moves import (
    BALANCER,
    COMMANDS,
    ENDPOINTS,
    PROCESS,
    SCALER,
    SETTINGS,
    SILENCES,
)
from remediator.rehearsal.props import Document, Process, Prop, Props
from remediator.rehearsal.script import Becomes, TargetSpec
from remediator.rehearsal.story import TargetEnd

WEIGHT, REPLICAS = "weight", "replicas"


def a_cast(props: Props, name: str, spec: TargetSpec) -> list[Prop]:
    """Return a stand-in for each role that the target has."""
    process = Process(props, name, PROCESS) if spec.process else None
    cast: list[Prop] = [
        Document(props, name, SETTINGS, values=spec.settings, leasing=True, process=process)
    ]
    if process is not None:
        cast.append(process)
    if spec.weight is not None:
        cast.append(Document(props, name, BALANCER, values={WEIGHT: spec.weight}, leasing=False))
    if spec.replicas is not None:
        values = {REPLICAS: spec.replicas}
        cast.append(Document(props, name, SCALER, values=values, leasing=False))
    return [*cast, *(Prop(props, name, role) for role in (SILENCES, ENDPOINTS, COMMANDS))]


def become(prop: Prop, becomes: Becomes) -> None:
    """Let a stand-in become what the test says; what it cannot become does not concern it."""
    reachable = {Becomes.UNREACHABLE: False, Becomes.REACHABLE: True}
    if becomes in reachable and prop.role in {SETTINGS, PROCESS}:
        prop.reachable = reachable[becomes]
    if isinstance(prop, Process):
        match becomes:
            case Becomes.RUNNING:
                prop.start()
            case Becomes.STOPPED:
                prop.running = False
            case Becomes.HUNG:
                prop.hung = True
    if isinstance(prop, Document) and becomes in {Becomes.BLIND, Becomes.SEEING}:
        prop.sees = becomes is Becomes.SEEING


def end_of(cast: Mapping[str, Prop], name: str) -> TargetEnd:
    """Return what a target is like now."""
    process = cast.get(f"{name}/{PROCESS}")
    documents = [p for p in cast.values() if p.name == name and isinstance(p, Document)]
    values = {knob: document.value(knob) for document in documents for knob in document.base}
    return TargetEnd(
        values=values,
        process=process.condition if isinstance(process, Process) else "",
        draining=any(document.draining for document in documents),
    )
