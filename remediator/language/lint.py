"""What can be said about one playbook once it is a valid model: does it mean something sensible?

Called by the loader. Questions that need other playbooks are in `library`. The surprise: most of
these are about safety and not style: a change that nothing would take back, a proof that could
never be given, a trigger that every alert would pull.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from math import ceil

from remediator.language import promql
from remediator.language.finding import Finding, did_you_mean
from remediator.language.shape import dotted
from remediator.language.surroundings import Surroundings
from remediator.language.templates import templates_in
from remediator.language.text_checks import filled_query, vars_of
from remediator.language.tree import Node
from remediator.model.duration import format_duration
from remediator.model.labels import Matcher
from remediator.model.playbook import Playbook
from remediator.model.spec import Verify
from remediator.model.step import (
    AnyStep,
    EscalateStep,
    NotifyStep,
    RestartStep,
    RetuneStep,
    ThrottleStep,
    kind_of,
)

# Design, section 4: a lease is renewed up to this long and not longer.
MAX_HOLD = timedelta(hours=4)
# The name that `escalate_to` has for a human.
PERSON = "person"
# No real label has this value; a matcher that accepts it accepts everything.
_ANY_VALUE = "\u2400 no label has this value"


def check_meaning(playbook: Playbook, root: Node, surroundings: Surroundings) -> list[Finding]:
    """Return what is wrong or doubtful about a playbook that is valid as a model.

    Args:
        playbook: the model, windows filled in (`with_windows`).
        root: its text.
        surroundings: what the configuration knows by name.
    """
    checker = _Checker(playbook, root)
    return [
        *checker.name(),
        *checker.triggers(),
        *checker.target(surroundings.targets),
        *checker.steps(),
        *checker.on_resolve(),
    ]


def with_windows(playbook: Playbook, root: Node) -> Playbook:
    """Return the playbook with every window that was left out read from its query.

    A query that cannot be read leaves its window as it is; that is reported elsewhere.
    """
    steps = tuple(_with_windows(step, root) for step in playbook.steps)
    return playbook.model_copy(update={"steps": steps})


def _with_windows(step: AnyStep, root: Node) -> AnyStep:
    update: dict[str, object] = {}
    if step.verify and step.verify.window is None:
        window = _window(step.verify.query, root)
        update["verify"] = step.verify.model_copy(update={"window": window})
    if isinstance(step, ThrottleStep) and step.throttle.window is None:
        window = _window(step.throttle.signal, root)
        update["throttle"] = step.throttle.model_copy(update={"window": window})
    return step.model_copy(update=update)


def _window(query: str, root: Node) -> timedelta | None:
    filled = filled_query(query, vars_of(root))
    try:
        return promql.window_of(filled) if filled else None
    except ValueError:
        return None


class _Checker:
    """One playbook beside its text."""

    def __init__(self, playbook: Playbook, root: Node) -> None:
        self._playbook = playbook
        self._root = root

    def _at(self, *path: str | int, message: str, hint: str = "", fatal: bool = True) -> Finding:
        return Finding(*self._root.place(*path), message, hint, fatal)

    def name(self) -> Iterator[Finding]:
        if self._playbook.name == PERSON:
            message = "'person' means a human and cannot name a playbook"
            yield self._at("name", message=message, hint="choose another name")

    def triggers(self) -> Iterator[Finding]:
        for index, trigger in enumerate(self._playbook.on):
            if not any(_narrows(Matcher.parse(text)) for text in trigger.alerts):
                yield self._at(
                    "on",
                    index,
                    "alerts",
                    message="this trigger would match every alert",
                    hint='name one: alertname="DetectorSlow"',
                )

    def target(self, targets: frozenset[str] | None) -> Iterator[Finding]:
        text = self._playbook.target
        templates = templates_in(text)
        parts = {name[:2] for template in templates for name in template.names}
        is_sound = not any(template.problem for template in templates)
        if templates and is_sound and parts <= {("alert", "annotations")}:
            message = "target must come from a label of the alert"
            yield self._at("target", message=message, hint="${{ alert.labels.instance }}")
        if not templates and targets is not None and text not in targets:
            hint = did_you_mean(
                text, targets, otherwise=f"known: {', '.join(sorted(targets)) or 'none'}"
            )
            yield self._at("target", message=f"no target is called {text!r}", hint=hint)

    def steps(self) -> Iterator[Finding]:
        steps = self._playbook.steps
        for index, step in enumerate(steps):
            if isinstance(step, EscalateStep):
                yield from self._escalation(index, step)
            if isinstance(step, ThrottleStep | RetuneStep):
                yield from self._lease(index, step.lease)
            yield from self._verification(index, step)

    def _escalation(self, index: int, step: EscalateStep) -> Iterator[Finding]:
        where = ("steps", index, "escalate_to")
        if index == 0:
            message = "escalate_to is reached only when a step before it failed; there is none"
            yield self._at(*where, message=message, hint="put a step before it")
        if index != len(self._playbook.steps) - 1:
            message = f"steps[{index + 1}] can never be reached: escalate_to ends the run"
            hint = "put escalate_to last"
            yield self._at("steps", index + 1, message=message, hint=hint)
        if step.escalate_to == self._playbook.name:
            hint = "name another playbook, or person"
            yield self._at(*where, message="escalates to itself", hint=hint)

    def _lease(self, index: int, lease: timedelta) -> Iterator[Finding]:
        if not timedelta() < lease <= MAX_HOLD:
            message = f"lease must be longer than 0s and {format_duration(MAX_HOLD)} at most"
            hint = "it is renewed while the alert lasts"
            yield self._at("steps", index, "lease", message=message, hint=hint)

    def _verification(self, index: int, step: AnyStep) -> Iterator[Finding]:
        where = ("steps", index, "verify")
        if step.verify is None:
            if isinstance(step, RestartStep | RetuneStep):
                message = f"nothing proves that {kind_of(step)} helped"
                yield self._at("steps", index, message=message, hint="add verify:", fatal=False)
            return
        if isinstance(step, NotifyStep | EscalateStep):
            message = f"{kind_of(step)} changes nothing that could be verified"
            yield self._at(*where, message=message, hint="move verify to the step that acts")
            return
        yield from self._proof(step.verify, where)

    def _proof(self, verify: Verify, where: tuple[str | int, ...]) -> Iterator[Finding]:
        written = _window(verify.query, self._root)
        if written is None or verify.window is None:
            return
        if verify.window < written:
            message = f"shorter than the {format_duration(written)} that the query looks back"
            yield self._at(*where, "window", message=message, hint="leave it out")
        within = format_duration(verify.within)
        if written > verify.within:
            message = (
                f"the query looks back {format_duration(written)}, longer than within {within}"
            )
            yield self._at(
                *where, "within", message=message, hint="a shorter range, or wait longer"
            )
        # Two measurements at least, and `for` between the first good one and the last.
        needed = verify.every * max(1, ceil(verify.hold / verify.every))
        if needed > verify.within:
            held, every = format_duration(verify.hold), format_duration(verify.every)
            message = f"measured every {every}, holding for {held} cannot be seen within {within}"
            yield self._at(*where, message=message, hint="measure more often, or wait longer")
        if not _names_target(verify.query, self._root):
            message = f"{dotted(where)} does not say which target it measures"
            hint = 'add {instance="${{ target.instance }}"}'
            yield self._at(*where, "query", message=message, hint=hint, fatal=False)

    def on_resolve(self) -> Iterator[Finding]:
        if self._playbook.on_resolve is None:
            return
        changes = [s for s in self._playbook.steps if isinstance(s, ThrottleStep | RetuneStep)]
        if not changes:
            message = "on_resolve has nothing to give back: no step changes a setting"
            yield self._at("on_resolve", message=message, hint="leave it out")
        if self._playbook.on_resolve.restore.healthy is not None:
            return
        for index, step in enumerate(self._playbook.steps):
            if isinstance(step, RetuneStep) and step.verify is None:
                yield self._at(
                    "on_resolve",
                    message=f"nothing says what healthy means, so steps[{index}] is never undone",
                    hint="add verify to that step, or on_resolve: {restore: {healthy: {...}}}",
                )


def _narrows(matcher: Matcher) -> bool:
    if matcher.op not in {"=", "=~"}:
        return False
    return not matcher.matches({}) and not matcher.matches({matcher.name: _ANY_VALUE})


def _names_target(query: str, root: Node) -> bool:
    known = vars_of(root)
    seen: set[str] = set()
    todo = [query]
    while todo:
        for template in templates_in(todo.pop()):
            if template.var is None:
                return True
            if template.var in known and template.var not in seen:
                seen.add(template.var)
                todo.append(str(known[template.var].value))
    return False
