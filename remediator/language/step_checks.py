"""Do the steps of a playbook mean something sensible: proofs, leases, undo, and where they lead?

Called by `lint`. The surprise: `on_unknown` must be spelled out where nothing can take an action
back, and may say `probe` only where a look at the target proves something. No look tells whether a
cache was cleared, an endpoint called or a program run.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from math import ceil

from remediator.language import promql
from remediator.language.finding import Finding, did_you_mean
from remediator.language.http_paths import path_problems
from remediator.language.shape import dotted
from remediator.language.subject import Subject
from remediator.model.duration import format_duration
from remediator.model.labels import Matcher, catches_all
from remediator.model.spec import Verify
from remediator.model.step import (
    NO_UNDO,
    PERSON,
    AnyStep,
    ApproveStep,
    ChangeStep,
    CheckStep,
    ClearCacheStep,
    Command,
    CommandStep,
    EscalateStep,
    HttpCall,
    HttpStep,
    OnUnknown,
    RestartStep,
    SilenceStep,
    ThrottleStep,
    kind_of,
)
from remediator.model.template import has_template

# Design, section 4: a lease is renewed up to this long and not longer.
MAX_HOLD = timedelta(hours=4)
# Steps that change the target, so that a measurement can prove something about them.
CHANGING = (ChangeStep, RestartStep, ClearCacheStep, HttpStep, CommandStep)
# Where an approval can lead without naming a step.
# The role of a target through which an action is done, where not every target has it.
_NEEDED = {"shift_load": "balancer", "scale": "scaler"}
BRANCHES = ("escalate", "stop", "continue")


def check_steps(subject: Subject) -> Iterator[Finding]:
    """Yield what is wrong or doubtful about the steps."""
    for index, step in enumerate(subject.playbook.steps):
        yield from _role(subject, index, step)
        yield from _unknown_outcome(subject, index, step)
        yield from _verification(subject, index, step)
        if isinstance(step, EscalateStep):
            yield from _escalation(subject, index, step)
        elif isinstance(step, ApproveStep):
            yield from _approval(subject, index, step)
        elif isinstance(step, ChangeStep):
            yield from _at_most_hold(subject, ("steps", index, "lease"), "lease", step.lease)
        elif isinstance(step, SilenceStep):
            yield from _silence(subject, index, step)
        elif isinstance(step, CheckStep):
            yield from _check(subject, index, step)
        elif isinstance(step, HttpStep | CommandStep):
            yield from _calls(subject, index, step)
        if isinstance(step, ThrottleStep):
            yield from _signal(subject, index, step)


def has_undo(step: AnyStep) -> bool:
    """Say whether what the step does can be taken back."""
    if isinstance(step, RestartStep | ClearCacheStep | HttpStep | CommandStep):
        return step.undo != NO_UNDO
    return isinstance(step, ChangeStep | SilenceStep)


def _role(subject: Subject, index: int, step: AnyStep) -> Iterator[Finding]:
    roles, kind = subject.surroundings.roles, kind_of(step)
    wanted = _NEEDED.get(kind)
    if roles is not None and wanted is not None and wanted not in roles:
        message = f"no target of the configuration has a {wanted}, which {kind} needs"
        hint = "reach it by http or command"
        yield subject.at("steps", index, kind, message=message, hint=hint)


def _unknown_outcome(subject: Subject, index: int, step: AnyStep) -> Iterator[Finding]:
    kind = kind_of(step)
    lasting = isinstance(step, CHANGING) and not has_undo(step)
    cannot_look = isinstance(step, HttpStep | CommandStep | ClearCacheStep)
    if lasting and "on_unknown" not in step.model_fields_set:
        message = f"{kind} has no undo: say what to do when nobody knows whether it was applied"
        hint = "on_unknown: escalate" + ("" if cannot_look else ", or probe to look first")
        yield subject.at("steps", index, kind, message=message, hint=hint)
    if cannot_look and step.on_unknown is OnUnknown.PROBE:
        message = f"no look proves whether {kind} was applied"
        again = "" if isinstance(step, ClearCacheStep) else "with idempotent: true "
        hint = f"write escalate; {again}it is sent again under the same key"
        yield subject.at("steps", index, "on_unknown", message=message, hint=hint)


def _verification(subject: Subject, index: int, step: AnyStep) -> Iterator[Finding]:
    kind, where = kind_of(step), ("steps", index, "verify")
    if step.verify is None:
        judged_by_itself = isinstance(step, ThrottleStep)
        if isinstance(step, CHANGING) and not judged_by_itself and not _proved(subject, index):
            message = f"nothing proves that {kind} helped"
            yield subject.at("steps", index, message=message, hint="add verify:", fatal=False)
    elif isinstance(step, CHANGING):
        yield from _proof(subject, step.verify, where)
    else:
        message = f"{kind} changes nothing that could be verified"
        yield subject.at(*where, message=message, hint="move verify to the step that acts")


def _proved(subject: Subject, index: int) -> bool:
    """Say whether a call of somebody else's making is proved by the step that it prepares."""
    steps = subject.playbook.steps
    later = any(step.verify is not None for step in steps[index + 1 :])
    return later and isinstance(steps[index], HttpStep | CommandStep)


def _proof(subject: Subject, verify: Verify, where: tuple[str | int, ...]) -> Iterator[Finding]:
    written = subject.window(verify.query)
    if written is None or verify.window is None:
        return
    if verify.window < written:
        message = f"shorter than the {format_duration(written)} that the query looks back"
        yield subject.at(*where, "window", message=message, hint="leave it out")
    within = format_duration(verify.within)
    if written > verify.within:
        message = f"the query looks back {format_duration(written)}, longer than within {within}"
        hint = "a shorter range, or wait longer"
        yield subject.at(*where, "within", message=message, hint=hint)
    # Two measurements at least, and `for` between the first good one and the last.
    needed = verify.every * max(1, ceil(verify.hold / verify.every))
    if needed > verify.within:
        held, every = format_duration(verify.hold), format_duration(verify.every)
        message = f"measured every {every}, holding for {held} cannot be seen within {within}"
        yield subject.at(*where, message=message, hint="measure more often, or wait longer")
    if not subject.names_target(verify.query):
        message = f"{dotted(where)} does not say which target it measures"
        hint = 'add {instance="${{ target.instance }}"}'
        yield subject.at(*where, "query", message=message, hint=hint, fatal=False)


def _escalation(subject: Subject, index: int, step: EscalateStep) -> Iterator[Finding]:
    where = ("steps", index, "escalate_to")
    if index == 0:
        message = "escalate_to is reached only when a step before it failed; there is none"
        yield subject.at(*where, message=message, hint="put a step before it")
    if index != len(subject.playbook.steps) - 1:
        message = f"steps[{index + 1}] can never be reached: escalate_to ends the run"
        yield subject.at("steps", index + 1, message=message, hint="put escalate_to last")
    if step.escalate_to == subject.playbook.name:
        hint = "name another playbook, or person"
        yield subject.at(*where, message="escalates to itself", hint=hint)
    if step.when is not None:
        message = "a failure always escalates; if has no say in it"
        yield subject.at("steps", index, "if", message=message, hint="leave it out")
    if subject.playbook.on_failure.escalate_to is not None:
        message = "the last step says already to whom a failure goes"
        hint = f"keep one; {PERSON} is told in any case when nobody else is"
        yield subject.at("on_failure", "escalate_to", message=message, hint=hint)


def _approval(subject: Subject, index: int, step: ApproveStep) -> Iterator[Finding]:
    later = list(enumerate(subject.playbook.steps))[index + 1 :]
    if all(isinstance(step, EscalateStep) for _, step in later):
        message = "nothing comes after the approval that it would allow"
        yield subject.at("steps", index, message=message, hint="put it before the step that acts")
    for key, wanted in (
        ("on_timeout", step.approve.on_timeout),
        ("on_reject", step.approve.on_reject),
    ):
        if wanted in BRANCHES:
            continue
        problem = _goto_problem(subject, index, wanted)
        if problem:
            yield subject.at("steps", index, "approve", key, message=problem[0], hint=problem[1])


def _goto_problem(subject: Subject, index: int, name: str) -> tuple[str, str] | None:
    steps = subject.playbook.steps
    found = [place for place, step in enumerate(steps) if step.name == name]
    names = [step.name for step in steps[index + 1 :] if step.name and not has_template(step.name)]
    if len(found) > 1:
        return f"{len(found)} steps are called {name!r}", "give each a name of its own"
    if found and has_template(name):
        return "the name of a step to go to holds no template", "write the name out"
    if not found or has_template(name):
        hint = did_you_mean(name, (*names, *BRANCHES), otherwise="give a later step that name")
        return f"no step is called {name!r}", hint
    if found[0] <= index:
        return f"steps[{found[0]}] does not come later", "a run never goes back"
    if isinstance(steps[found[0]], EscalateStep):
        return f"steps[{found[0]}] is reached when a step fails", "write escalate"
    open_names = [place for place, step in enumerate(steps) if has_template(step.name)]
    if open_names:
        message = f"a label could give steps[{open_names[0]}] the name {name!r}, too"
        return message, "leave the template out of that name"
    return None


def _at_most_hold(
    subject: Subject, where: tuple[str | int, ...], what: str, length: timedelta
) -> Iterator[Finding]:
    if not timedelta() < length <= MAX_HOLD:
        message = f"{what} must be longer than 0s and {format_duration(MAX_HOLD)} at most"
        hint = "it is renewed while the alert lasts" if what == "lease" else "it ends by itself"
        yield subject.at(*where, message=message, hint=hint)


def _silence(subject: Subject, index: int, step: SilenceStep) -> Iterator[Finding]:
    where = ("steps", index, "silence")
    yield from _at_most_hold(subject, (*where, "for"), "a silence", step.silence.length)
    if all(trigger.schedule is not None for trigger in subject.playbook.on):
        message = "Alertmanager knows nothing of what a schedule finds"
        yield subject.at("steps", index, message=message, hint="leave the silence out")
    matchers = [Matcher.parse(text) for text in step.silence.matchers]
    if matchers and catches_all(matchers):
        message = "this would silence every alert"
        hint = 'name one, alertname="X"; or leave matchers out'
        yield subject.at(*where, "matchers", message=message, hint=hint)


def _check(subject: Subject, index: int, step: CheckStep) -> Iterator[Finding]:
    check = step.check
    if check.hold and check.hold >= check.within:
        message = "for must be shorter than within, or it can never be met"
        yield subject.at("steps", index, "check", "for", message=message, hint="wait longer")


def _signal(subject: Subject, index: int, step: ThrottleStep) -> Iterator[Finding]:
    query = subject.filled(step.throttle.signal)
    try:
        is_busy = bool(query) and promql.is_utilisation(query)
    except ValueError:
        return
    if is_busy:
        message = "utilisation is not a fault: a healthy device that is used well shows 99%"
        hint = "throttle on what hurts, such as p95 latency (ADR 0005)"
        where = ("steps", index, "throttle", "signal")
        yield subject.at(*where, message=message, hint=hint)


def _calls(subject: Subject, index: int, step: HttpStep | CommandStep) -> Iterator[Finding]:
    kind = kind_of(step)
    call = step.http if isinstance(step, HttpStep) else step.command
    for key, wanted in ((kind, call), ("undo", step.undo)):
        where = ("steps", index, key)
        if isinstance(wanted, HttpCall):
            yield from _http(subject, where, wanted)
        elif isinstance(wanted, Command):
            yield from _command(subject, where, wanted)


def _http(subject: Subject, where: tuple[str | int, ...], call: HttpCall) -> Iterator[Finding]:
    known = subject.surroundings.endpoints
    if known is not None and call.endpoint not in known:
        place = (*where, "endpoint")
        yield subject.unknown(*place, what="endpoint", name=call.endpoint, known=known)
    for message, hint in path_problems(call.path):
        yield subject.at(*where, "path", message=message, hint=hint)


def _command(subject: Subject, where: tuple[str | int, ...], call: Command) -> Iterator[Finding]:
    commands = subject.surroundings.commands
    if commands is None:
        return
    if call.run not in commands:
        known = frozenset(commands)
        yield subject.unknown(*where, "run", what="command", name=call.run, known=known)
        return
    places = commands[call.run]
    for name in call.arguments.keys() - places:
        hint = did_you_mean(name, places, otherwise=f"its places: {', '.join(sorted(places))}")
        message = f"the command {call.run!r} has no place {{{name}}}"
        yield subject.at(*where, "arguments", name, message=message, hint=hint)
    for name in sorted(places - call.arguments.keys()):
        message = f"the command {call.run!r} needs {name!r}"
        yield subject.at(*where, message=message, hint=f"arguments: {{{name}: ...}}")
