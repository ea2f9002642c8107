"""What is shipped fits together: playbooks, supervisord's times, rules."""

from __future__ import annotations

import configparser
from datetime import timedelta
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from remediator.language.loader import load_files
from remediator.model.step import RestartStep

ROOT = Path(__file__).parents[2]


def test_every_shipped_playbook_serves_without_a_doubt() -> None:
    library = load_files([ROOT / "playbooks"])
    assert [str(problem) for problem in (*library.problems, *library.warnings)] == []
    assert library.by_name


def test_a_restart_waits_longer_than_supervisord_takes_to_kill_what_hangs() -> None:
    conf = configparser.ConfigParser(interpolation=None)
    conf.read(ROOT / "deploy" / "supervisor" / "supervisord.conf")
    program = conf["program:detector"]
    slack = timedelta(seconds=5)
    stopping = timedelta(seconds=program.getint("stopwaitsecs"))
    starting = timedelta(seconds=program.getint("startsecs"))
    steps = [
        step
        for loaded in load_files([ROOT / "playbooks"]).by_name.values()
        if loaded.playbook
        for step in loaded.playbook.steps
        if isinstance(step, RestartStep)
    ]
    assert steps
    assert all(step.timeout > max(stopping, starting) + slack for step in steps)


@pytest.mark.parametrize("name", ["DetectorSlow", "DetectorDown", "DetectionServiceDown"])
def test_an_alert_a_playbook_waits_for_is_one_that_the_rules_fire(name: str) -> None:
    rules = [
        rule["alert"]
        for path in (ROOT / "rules").glob("*.yml")
        for group in YAML(typ="safe").load(path.read_text())["groups"]
        for rule in group["rules"]
        if "alert" in rule
    ]
    assert name in rules
    labels = {"alertname": name, "severity": "critical", "instance": "detector-1"}
    playbooks = [loaded.playbook for loaded in load_files([ROOT / "playbooks"]).by_name.values()]
    assert [p.name for p in playbooks if p and p.matches(labels)]
