"""What a test says that came to nothing, so that it would pass whatever the playbook does.

Called by `stage` when a test has been played. The surprise: a test of silence looks the same as a
test with a slip of the pen. An alert that no playbook or no target knows must therefore be expected
in so many words (`decisions: [{decision: no_target}]`), or it is a mistake.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import timedelta

from remediator.model.alert import Silence
from remediator.model.decision import Reason
from remediator.model.duration import format_duration
from remediator.rehearsal.props import Cue
from remediator.rehearsal.script import AlertSpec, Behaviour, Scene
from remediator.store import queries
from remediator.store.database import Tx

# More alerts or decisions than any test has.
MOST = 10_000
# What becomes of an alert that nothing of ours is about.
UNHEARD = {
    Reason.NO_PLAYBOOK.value: "is about no playbook",
    Reason.NO_TARGET.value: "is about no target of the inventory",
}


def came_to_nothing(
    tx: Tx,
    scene: Scene,
    *,
    cues: Sequence[Cue],
    silences: Sequence[Silence],
    waiting: Sequence[Behaviour],
) -> Iterator[str]:
    """Yield what the test says in vain.

    Args:
        tx: the journal, when the test is over.
        scene: the test.
        cues: what it says about calls, and how often each was used.
        silences: those that people made.
        waiting: behaviours that were called, and whose effect would have begun later.
    """
    yield from _calls(cues)
    for behaviour in waiting:
        late = format_duration(behaviour.after)
        yield f"the test ends before {behaviour.named} has its effect, {late} after the call"
    alerts = queries.list_alerts(tx, limit=MOST)
    for silence in silences:
        if not any(silence.covers(row["labels"]) for row in alerts):
            matchers = ", ".join(map(str, silence.matchers))
            yield f"no alert is silenced by {matchers}"
    decided = queries.list_decisions(tx, limit=MOST)
    named = {want.decision.value for want in scene.expect.decisions or ()}
    for spec in scene.alerts:
        ids = {row["id"] for row in alerts if row["labels"] == spec.labels}
        reasons = {row["reason"] for row in decided if row["alert_id"] in ids}
        if reasons and reasons <= UNHEARD.keys() - named:
            yield f"{_named(spec)} {UNHEARD[min(reasons)]}; if so meant, expect that decision"


def _calls(cues: Sequence[Cue]) -> Iterator[str]:
    for cue in cues:
        if not cue.used:
            yield f"nothing ever called {cue.behaviour.named}"
        elif cue.behaviour.times is not None and 0 < cue.left < math.inf:
            times = cue.behaviour.times
            yield f"{cue.behaviour.named} was called {times - cue.left:g} of {times} times"


def _named(spec: AlertSpec) -> str:
    labels = ", ".join(f"{key}={value}" for key, value in sorted(spec.labels.items()))
    at = format_duration(spec.at) if spec.at > timedelta() else "the start"
    return f"the alert at {at} ({labels})"
