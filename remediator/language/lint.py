"""What can be said about one playbook once it is a valid model: does it mean something sensible?

Called by the loader; guards and steps have files of their own. Questions that need other playbooks
are in `crossing`. The surprise: most of these are about safety and not style: a change that nothing
would take back, a proof that could never be given, a trigger that every alert would pull.
"""

from __future__ import annotations

from collections.abc import Iterator

from remediator.language import promql
from remediator.language.finding import Finding
from remediator.language.guard_checks import check_guards
from remediator.language.step_checks import CHANGING, check_steps, has_undo
from remediator.language.subject import Subject
from remediator.language.surroundings import Surroundings
from remediator.language.templates import templates_in
from remediator.language.times import cron_problem, zone_problem
from remediator.language.tree import Node
from remediator.model.guard import (
    BlastRadiusGuard,
    BudgetGuard,
    CooldownGuard,
    HealthyOthersGuard,
    StormGuard,
)
from remediator.model.labels import Matcher, catches_all
from remediator.model.playbook import Playbook, Schedule
from remediator.model.step import (
    PERSON,
    AnyStep,
    ChangeStep,
    RestartStep,
    ShiftLoadStep,
    ThrottleStep,
    kind_of,
)


def check_meaning(playbook: Playbook, root: Node, surroundings: Surroundings) -> list[Finding]:
    """Return what is wrong or doubtful about a playbook that is valid as a model.

    Args:
        playbook: the model, windows filled in (`with_windows`).
        root: its text.
        surroundings: what the configuration knows by name.
    """
    subject = Subject(playbook, root, surroundings)
    return [
        *_name(subject),
        *_triggers(subject),
        *_target(subject),
        *check_guards(subject),
        *check_steps(subject),
        *_caution(subject),
        *_on_resolve(subject),
        *_on_failure(subject),
    ]


def with_windows(playbook: Playbook, root: Node) -> Playbook:
    """Return the playbook with every window that was left out read from its query.

    A query that cannot be read leaves its window as it is; that is reported elsewhere.
    """
    subject = Subject(playbook, root, Surroundings())
    steps = tuple(_with_windows(step, subject) for step in playbook.steps)
    return playbook.model_copy(update={"steps": steps})


def _with_windows(step: AnyStep, subject: Subject) -> AnyStep:
    update: dict[str, object] = {}
    if step.verify and step.verify.window is None:
        window = subject.window(step.verify.query)
        update["verify"] = step.verify.model_copy(update={"window": window})
    if isinstance(step, ThrottleStep) and step.throttle.window is None:
        window = subject.window(step.throttle.signal)
        update["throttle"] = step.throttle.model_copy(update={"window": window})
    return step.model_copy(update=update)


def _name(subject: Subject) -> Iterator[Finding]:
    if subject.playbook.name == PERSON:
        message = "'person' means a human and cannot name a playbook"
        yield subject.at("name", message=message, hint="choose another name")


def _triggers(subject: Subject) -> Iterator[Finding]:
    for index, trigger in enumerate(subject.playbook.on):
        if trigger.schedule is not None:
            yield from _schedule(subject, index, trigger.schedule)
        elif catches_all(Matcher.parse(text) for text in trigger.alerts):
            message = "this trigger would match every alert"
            hint = 'name one: alertname="DetectorSlow"'
            yield subject.at("on", index, "alerts", message=message, hint=hint)


def _schedule(subject: Subject, index: int, schedule: Schedule) -> Iterator[Finding]:
    where = ("on", index, "schedule")
    if schedule.cron is not None and (problem := cron_problem(schedule.cron)):
        yield subject.at(*where, "cron", message=problem[0], hint=problem[1])
    if problem := zone_problem(schedule.timezone):
        yield subject.at(*where, "timezone", message=problem[0], hint=problem[1])
    query = subject.filled(schedule.when.query)
    for label in sorted(_labels_for_target(subject)):
        try:
            lost = bool(query) and promql.loses(query, label)
        except ValueError:
            return
        if lost:
            message = f"the answer has lost the label {label}, from which target is read"
            hint = f"aggregate with by ({label})"
            yield subject.at(*where, "when", "query", message=message, hint=hint, fatal=False)


def _labels_for_target(subject: Subject) -> set[str]:
    names = {name for t in templates_in(subject.playbook.target) for name in t.names}
    return {name[2] for name in names if name[:2] == ("alert", "labels")} - {"alertname"}


def _target(subject: Subject) -> Iterator[Finding]:
    text, targets = subject.playbook.target, subject.surroundings.targets
    templates = templates_in(text)
    parts = {name[:2] for template in templates for name in template.names}
    is_sound = not any(template.problem for template in templates)
    if templates and is_sound and parts <= {("alert", "annotations")}:
        message = "target must come from a label of the alert"
        yield subject.at("target", message=message, hint="${{ alert.labels.instance }}")
    if not templates and targets is not None and text not in targets:
        yield subject.unknown("target", what="target", name=text, known=targets)


def _caution(subject: Subject) -> Iterator[Finding]:
    """Doubt a playbook that acts by itself and that nothing would hold back."""
    playbook = subject.playbook
    if not playbook.mode.acts or not any(isinstance(step, CHANGING) for step in playbook.steps):
        return
    if not any(isinstance(guard, CooldownGuard) for guard in playbook.guards):
        message = "nothing limits how often this acts"
        if any(isinstance(guard, BudgetGuard) for guard in playbook.guards):
            message = "nothing lets the target rest after a run that failed"
        yield subject.at("steps", message=message, hint="add a cooldown", fatal=False)
    careful = HealthyOthersGuard | BlastRadiusGuard | StormGuard
    if any(isinstance(guard, careful) for guard in playbook.guards):
        return
    for index, step in enumerate(playbook.steps):
        if isinstance(step, RestartStep | ShiftLoadStep):
            message = f"nothing limits how many targets {kind_of(step)} disturbs at once"
            hint = "add healthy_others, blast_radius or storm"
            yield subject.at("steps", index, message=message, hint=hint, fatal=False)
            return


def _on_resolve(subject: Subject) -> Iterator[Finding]:
    playbook = subject.playbook
    if playbook.on_resolve is None:
        return
    changes = [step for step in playbook.steps if isinstance(step, ChangeStep)]
    if not changes:
        message = "on_resolve has nothing to give back: no step changes a setting"
        yield subject.at("on_resolve", message=message, hint="leave it out")
    if playbook.on_resolve.restore.healthy is not None:
        return
    for index, step in enumerate(playbook.steps):
        if step in changes and step.verify is None and not isinstance(step, ThrottleStep):
            message = f"nothing says what healthy means, so steps[{index}] is never undone"
            hint = "add verify to that step, or on_resolve: {restore: {healthy: {...}}}"
            yield subject.at("on_resolve", message=message, hint=hint)


def _on_failure(subject: Subject) -> Iterator[Finding]:
    playbook = subject.playbook
    if playbook.on_failure.undo and not any(has_undo(step) for step in playbook.steps):
        message = "on_failure has nothing to take back: no step has an undo"
        yield subject.at("on_failure", message=message, hint="leave it out")
    if playbook.on_failure.escalate_to == playbook.name:
        hint = "name another playbook, or person"
        yield subject.at("on_failure", "escalate_to", message="escalates to itself", hint=hint)
