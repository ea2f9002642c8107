"""Small values for tests: alerts, playbooks and what serves them.

`an_alert()`, `a_throttle()`, `a_restart()`... return valid things whose parts can be replaced.
"""

from __future__ import annotations

from datetime import datetime
from hashlib import sha256
from typing import Any

from remediator.model.alert import Alert
from remediator.model.playbook import Pinned, Playbook

GPU1, GPU2, GPU3 = "gpu-1", "gpu-2", "gpu-3"
# One target's name and its instance label, as alerts carry it.
INSTANCE = {GPU1: "127.0.0.1:7861", GPU2: "127.0.0.1:7862", GPU3: "127.0.0.1:7863"}


def an_alert(
    name: str = "Slow",
    target: str = GPU1,
    *,
    firing: bool = True,
    starts_at: datetime | None = None,
    ends_at: datetime | None = None,
    **labels: str,
) -> Alert:
    """Return an alert about a target, as Alertmanager would send it."""
    label_set = {"alertname": name, "instance": INSTANCE.get(target, target), **labels}
    fingerprint = sha256(repr(sorted(label_set.items())).encode()).hexdigest()[:16]
    return Alert(
        fingerprint=fingerprint,
        firing=firing,
        labels=label_set,
        starts_at=starts_at,
        ends_at=ends_at,
    )


def a_playbook(**changed: Any) -> dict[str, Any]:
    """Return a playbook document that matches the alert `Slow` and does one thing: notify."""
    document: dict[str, Any] = {
        "apiVersion": "remediator/v1",
        "name": "tell",
        "mode": "auto",
        "on": {"alerts": ['alertname="Slow"']},
        "target": "${{ alert.labels.instance }}",
        "steps": [{"notify": {"message": "it is slow"}}],
    }
    return {**document, **changed}


def throttle_step(**changed: Any) -> dict[str, Any]:
    """Return a throttle step on `p95`, objective 0.25 s, over one minute."""
    throttle = {"signal": "p95", "objective": 0.25, "min": 1, "max": 10, "window": "60s", **changed}
    return {
        "throttle": throttle,
        "lease": "15m",
        "verify": {
            "query": "p95",
            "below": 0.25,
            "within": "2m",
            "for": "30s",
            "every": "15s",
            "window": "60s",
        },
    }


def a_throttle(
    *, knobs: dict[str, Any] | None = None, step: dict[str, Any] | None = None, **changed: Any
) -> dict[str, Any]:
    """Return a playbook that throttles; `knobs` go into `throttle:`, `step` beside it."""
    return a_playbook(
        **{
            "name": "throttle",
            "priority": 20,
            "guards": [{"require": {"query": "p95", "above": 0.25}}],
            "steps": [
                {**throttle_step(**(knobs or {})), **(step or {})},
                {"escalate_to": "person"},
            ],
            "on_resolve": "restore",
            **changed,
        }
    )


def a_retune(
    values: dict[str, float], *, step: dict[str, Any] | None = None, **changed: Any
) -> Any:
    """Return a playbook that sets tunables and proves it by `p95`."""
    verify = {"query": "p95", "below": 0.25, "within": "2m", "for": "30s", "window": "0s"}
    return a_playbook(
        **{
            "name": "retune",
            "steps": [{"retune": {"set": values}, "verify": verify, **(step or {})}],
            "on_resolve": "restore",
            **changed,
        }
    )


def a_restart(
    *, restart: dict[str, Any] | None = None, step: dict[str, Any] | None = None, **changed: Any
) -> dict[str, Any]:
    """Return a playbook that restarts a target that is down, and proves it by `alive`."""
    verify = {"query": "alive", "above": 0, "within": "3m", "for": "30s", "window": "0s"}
    return a_playbook(
        **{
            "name": "restart",
            "priority": 90,
            "on": {"alerts": ['alertname="Down"']},
            "guards": [{"require": {"query": "up", "below": 1}}],
            "steps": [
                {"restart": restart or {}, "timeout": "5s", "verify": verify, **(step or {})},
                {"escalate_to": "person"},
            ],
            **changed,
        }
    )


def pinned(document: dict[str, Any]) -> Pinned:
    """Return a playbook document as the library serves it."""
    text = repr(document)
    return Pinned(
        playbook=Playbook.model_validate(document),
        text=text,
        sha256=sha256(text.encode()).hexdigest(),
    )
