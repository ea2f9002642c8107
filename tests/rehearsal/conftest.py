"""Fixtures of the rehearsal's tests: the real promtool, and a way to play a text."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent, indent

import pytest

from remediator.rehearsal.expectations import differences
from remediator.rehearsal.promtool import Promtool
from remediator.rehearsal.reading import prepare
from remediator.rehearsal.stage import play
from remediator.rehearsal.story import Story

# One knob, one query, nothing else: what is tested is the stage and not a playbook.
RETUNE = """
apiVersion: remediator/v1
name: retune
mode: auto
on: {alerts: ['alertname="Slow"']}
target: ${{ alert.labels.instance }}
guards:
  - require: {query: 'p95{instance="${{ target.instance }}"}', above: 0.25}
  - cooldown: 5m
steps:
  - retune: {set: {batch_size: 4}}
    verify: {query: 'p95{instance="${{ target.instance }}"}', below: 0.25, within: 2m, for: 30s}
"""
HEAD = """
playbooks: [play.yaml]
inventory: {gpu-1: {settings: {batch_size: 8}}}
series:
  slow: [{series: 'p95{instance="gpu-1"}', values: 0.6x200}]
  fast: [{series: 'p95{instance="gpu-1"}', values: 0.1x200}]
tests:
  - name: a test
"""
SLOW = "alerts: [{at: 1m, labels: {alertname: Slow, instance: gpu-1}}]"


@pytest.fixture(scope="session")
def promtool(daemon: Callable[..., str]) -> Promtool:
    return Promtool(daemon("promtool"))


@dataclass(frozen=True)
class Played:
    story: Story
    differences: list[str]


Play = Callable[..., Played]


@pytest.fixture
def played(tmp_path: Path, promtool: Promtool) -> Play:
    """Play one test: its body below `HEAD`, on `RETUNE` or another playbook."""

    def run(body: str, *, playbook: str = RETUNE, head: str = HEAD) -> Played:
        (tmp_path / "play.yaml").write_text(playbook)
        path = tmp_path / "play.test.yaml"
        body = body if "length:" in body else f"{dedent(body)}\nlength: 6m\n"
        path.write_text(head + indent(dedent(body), " " * 4))
        prepared = prepare(path)
        assert [str(problem) for problem in prepared.problems] == []
        script = prepared.script
        assert script is not None
        story = asyncio.run(
            play(
                script,
                script.tests[0],
                library=prepared.library,
                promtool=promtool,
                rule_files=prepared.rule_files,
            )
        )
        expect = script.tests[0].expect
        return Played(story, differences(expect, story, interval=script.interval))

    return run
