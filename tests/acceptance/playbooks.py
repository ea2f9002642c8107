"""The two stories as short playbooks: what the shipped ones do in minutes, in seconds."""

from __future__ import annotations

THROTTLE = """
apiVersion: remediator/v1
name: throttle-slow
description: lower the ceiling while it is slow
mode: auto
priority: 20
on: {alerts: ['alertname="Slow"']}
target: ${{ alert.labels.instance }}
guards:
  - require: {query: 'p95{instance="${{ target.instance }}"}', above: 0.25}
  - cooldown: 10m
steps:
  - throttle:
      {signal: 'p95{instance="${{ target.instance }}"}', objective: 0.25, min: 1, max: 10}
    timeout: 2s
    lease: LEASE
    verify:
      query: 'p95{instance="${{ target.instance }}"}'
      below: 0.25
      within: 10s
      for: 200ms
      every: 100ms
  - escalate_to: person
on_resolve: {restore: {every: 300ms, hold: 200ms, step: 3}}
"""

RESTART = """
apiVersion: remediator/v1
name: restart-dead
description: restart what does not answer
mode: auto
priority: 90
on: {alerts: ['alertname="Dead"']}
target: ${{ alert.labels.instance }}
guards:
  - require: {query: 'up{instance="${{ target.instance }}"}', below: 1}
  - cooldown: 10m
steps:
  - restart: {drain_within: 2s, ready_within: 30s}
    timeout: 4s
    on_unknown: ON_UNKNOWN
    verify:
      query: 'up{instance="${{ target.instance }}"}'
      above: 0
      within: 20s
      for: 200ms
      every: 100ms
  - escalate_to: person
"""


def throttle(lease: str = "1m") -> str:
    """Return the throttle playbook."""
    return THROTTLE.replace("LEASE", lease)


def restart(on_unknown: str = "escalate") -> str:
    """Return the restart playbook."""
    return RESTART.replace("ON_UNKNOWN", on_unknown)
