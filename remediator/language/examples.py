"""One short example of every guard and every action, as it stands in a playbook's list.

Printed in the reference (`reference`), and loaded by its tests, so that none of them can be wrong.
"""

from __future__ import annotations

GUARD_EXAMPLES = {
    "require": "- require: {query: '${{ vars.p95 }}', above: 0.25}",
    "cooldown": "- cooldown: 10m",
    "budget": "- budget: {runs: 3, per: 30m, scope: pool}",
    "healthy_others": "- healthy_others: {at_least: 1}",
    "blast_radius": "- blast_radius: {share: 0.25}",
    "storm": "- storm: {at_most: 3}",
    "only_during": "- only_during: {cron: '0 8 * * MON-FRI', for: 9h, timezone: Europe/Berlin}",
    "not_during": "- not_during: {cron: '0 2 * * SUN', for: 2h}",
    "not_while": "- not_while: {playbook: restart-dead-detector, within: 5m}",
    "breaker": "- breaker: {failures: 2, reset: 1h}",
}
_VERIFY = "  verify: {query: '${{ vars.p95 }}', below: 0.25, within: 2m}"
STEP_EXAMPLES = {
    "throttle": "- throttle: {signal: '${{ vars.p95 }}', objective: 0.25, min: 1, max: 10}\n"
    "  lease: 15m",
    "retune": f"- retune: {{set: {{imgsz: 480, frame_stride: 2}}}}\n{_VERIFY}",
    "restart": "- restart: {drain_within: 30s, ready_within: 90s}\n"
    "  timeout: 45s\n"
    f"  on_unknown: probe\n{_VERIFY}",
    "shift_load": "- shift_load:\n"
    "    weight: 50\n"
    "    headroom: {query: 'min(detector_headroom)', above: 0.2}\n"
    f"{_VERIFY}",
    "scale": f"- scale: {{add: 1, max: 4}}\n  lease: 1h\n{_VERIFY}",
    "clear_cache": f"- clear_cache: {{}}\n  on_unknown: escalate\n{_VERIFY}",
    "silence": "- silence: {for: 20m, comment: 'it restarts'}",
    "http": "- http:\n"
    "    endpoint: queue\n"
    "    path: /consumers/${{ target.name }}/pause?by=remediator\n"
    "    idempotent: true\n"
    "  undo: {endpoint: queue, path: '/consumers/${{ target.name }}/resume', idempotent: true}\n"
    f"{_VERIFY}",
    "command": "- command: {run: flush-frames, arguments: {camera: '${{ alert.labels.camera }}'}}\n"
    "  undo: none\n"
    f"  on_unknown: escalate\n{_VERIFY}",
    "check": "- check: {query: '${{ vars.p95 }}', below: 0.25, within: 1m, for: 30s}",
    "wait": "- wait: 30s",
    "approve": "- approve: {message: 'Restart ${{ target.name }}?', within: 15m, on_reject: stop}",
    "notify": "- notify: {message: '${{ target.name }} is slow', severity: warning}",
    "diagnose": "- diagnose: {queries: {p95: '${{ vars.p95 }}'}, log_lines: 100}",
    "escalate_to": "- escalate_to: person",
}
