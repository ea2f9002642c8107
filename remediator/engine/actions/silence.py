"""`silence`: silence the alert in Alertmanager for a short while, tagged with the run.

The surprise: a silence is half-done work. It runs out by itself when the run succeeds, and is ended
at once when the run fails, stops or makes way: an alert that nobody works on must be heard. While
it lasts no webhook comes, not even later; the level reconcile finds what fires or is over by then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

from remediator.engine.moves import SILENCES, Done, Failed, Move, Progress, Result, Send
from remediator.model.labels import Matcher, match_all
from remediator.model.playbook import SCHEDULED
from remediator.model.step import SilenceStep

LONGEST = timedelta(hours=4)
# Values that no label has: a regular expression that matches one of them matches anything.
NOBODYS = ("\x00", "q7")


def next_move(progress: Progress) -> Move:
    """Return the next move of a silence step."""
    step = progress.step
    if not isinstance(step, SilenceStep):
        msg = "not a silence step"
        raise TypeError(msg)
    result = progress.result("silence")
    if result is Result.OK:
        return Done(None, "the alert is silenced; it is heard again when the silence ends")
    if result is not None:
        return Failed(None, f"it could not be silenced: {progress.why_failed('silence')}")
    matchers = tuple(Matcher.parse(text) for text in step.silence.matchers)
    matchers = matchers or _exactly(progress.labels)
    why_not = refuse(matchers, progress.labels)
    if why_not:
        return Failed(None, f"not silenced: {why_not}")
    return _send(progress, step, matchers)


def _exactly(labels: Mapping[str, str]) -> tuple[Matcher, ...]:
    # Built, not parsed: a label's value is data, whatever it looks like. An alert without an
    # instance is matched by the empty value, and the alerts of instances are not.
    names = ("alertname", "instance")
    return tuple(Matcher(name=name, op="=", value=labels.get(name, "")) for name in names)


def refuse(matchers: Sequence[Matcher], labels: Mapping[str, str]) -> str:
    """Return why an alert with these labels must not be silenced so; empty when it may be."""
    said = ", ".join(map(str, matchers))
    if not labels:
        return "the run has no alert"
    if labels.get("alertname", "").startswith(SCHEDULED):
        return "a schedule found this; Alertmanager knows no alert of it"
    if not match_all(matchers, labels):
        return f"{said} does not match this alert"
    if not any(_is_narrow(matcher) for matcher in matchers):
        return f"{said} would silence everything; name an alertname or an instance"
    return ""


def _is_narrow(matcher: Matcher) -> bool:
    anything = ({}, *({matcher.name: value} for value in NOBODYS))
    return matcher.op in {"=", "=~"} and not any(map(matcher.matches, anything))


def _send(progress: Progress, step: SilenceStep, matchers: Sequence[Matcher]) -> Move:
    run, length = progress.run, min(step.silence.length, LONGEST)
    ends_at = progress.step_started_at + length
    if progress.now >= ends_at:
        return Failed(None, "not silenced: by now it would be over")
    # The time of opening tells the runs of two journals apart that have the same number.
    tag = f"run-{run.id}-{int(run.opened_at.timestamp() * 1000):x}/{run.pc}"
    words = step.silence.comment or "silenced while it is being worked on"
    return Send(
        call="silence",
        role=SILENCES,
        verb="silence",
        args={
            "tag": tag,
            "matchers": [
                {
                    "name": matcher.name,
                    "value": matcher.value,
                    "isRegex": matcher.op in {"=~", "!~"},
                    "isEqual": matcher.op in {"=", "=~"},
                }
                for matcher in matchers
            ],
            "ends_at": ends_at.isoformat(),
            "comment": f"R{run.id} ({progress.plan.name}): {words}",
        },
        why=f"silence {', '.join(map(str, matchers))} until {ends_at:%H:%M} UTC",
        # Whoever sends it again looks for the tag first.
        idempotent=True,
        pc=run.pc,
        undo={"role": SILENCES, "verb": "expire", "args": {"tag": tag}, "lasting": False},
    )
