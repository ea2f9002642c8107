"""Playbooks written short, for tests."""

from __future__ import annotations

from textwrap import dedent

STEPS = "steps: [{notify: {message: hello}}]\n"


def playbook(rest: str = STEPS, *, name: str = "slow") -> str:
    """A playbook: its head, and what the test is about."""
    head = f"""\
    apiVersion: remediator/v1
    name: {name}
    on: {{alerts: ['alertname="DetectorSlow"']}}
    target: ${{{{ alert.labels.instance }}}}
    """
    return dedent(head) + dedent(rest)


def escalating(name: str, to: str) -> str:
    """A playbook that escalates."""
    return playbook(f"steps: [{{notify: {{message: hi}}}}, {{escalate_to: {to}}}]\n", name=name)
