"""Durations divided for the demo: nothing else in a file may change."""

from __future__ import annotations

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from remediator.demo.stack import scale_durations
from remediator.language.loader import load_text

ROOT = Path(__file__).resolve().parents[2]
PLAYBOOKS = sorted((ROOT / "playbooks").glob("*.yaml"))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("for: 5m", "for: 30s"),
        ("  - cooldown: 1h30m", "  - cooldown: 540s"),
        (
            "budget: {runs: 6, per: 10m, scope: target}",
            "budget: {runs: 6, per: 60s, scope: target}",
        ),
        ('within: "2m" # a comment', 'within: "12s" # a comment'),
        ("for: 7s", "for: 1s"),
        ("restart: {ready_within: 90s}", "restart: {ready_within: 90s}"),
        ("timeout: 30s", "timeout: 30s"),
        ("group_wait: 0s", "group_wait: 0s"),
        ("every: 500ms", "every: 1s"),
        ("expr: rate(x[1m]) > 0.25", "expr: rate(x[6s]) > 0.25"),
        ("query: max_over_time(rate(x[5m])[1h:1m])", "query: max_over_time(rate(x[30s])[360s:6s])"),
        ("expr: x offset 10m", "expr: x offset 60s"),
        ("max: 10", "max: 10"),
        ("summary: busy for 5m, or longer", "summary: busy for 5m, or longer"),
        ("image: name:5m-slim", "image: name:5m-slim"),
    ],
)
def test_a_duration_is_divided_and_nothing_else_is_touched(before: str, after: str) -> None:
    assert scale_durations(before, 10) == after


def test_a_factor_of_one_changes_no_byte() -> None:
    text = (ROOT / "rules" / "detector.yml").read_text()
    assert scale_durations(text, 1) == text


def test_a_range_keeps_room_for_several_scrapes() -> None:
    assert scale_durations("expr: rate(x[1m])", 60, range_floor_s=5) == "expr: rate(x[5s])"


@pytest.mark.parametrize("factor", [0, -3])
def test_a_factor_that_cannot_divide_is_refused(factor: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        scale_durations("for: 1m", factor)


def test_scaled_rules_have_the_same_alerts_on_the_same_lines() -> None:
    text = (ROOT / "rules" / "detector.yml").read_text()
    scaled = scale_durations(text, 12)
    assert len(scaled.splitlines()) == len(text.splitlines())
    rules = YAML(typ="safe").load(scaled)["groups"][0]["rules"]
    assert {rule["alert"]: rule["for"] for rule in rules} == {
        "DetectorSlow": "3s",
        "DetectorDown": "5s",
    }


@pytest.mark.parametrize("path", PLAYBOOKS, ids=lambda path: path.stem)
@pytest.mark.parametrize("factor", [2, 6, 12])
def test_a_shipped_playbook_still_serves_when_its_times_are_divided(
    path: Path, factor: float
) -> None:
    scaled = scale_durations(path.read_text(), factor, range_floor_s=5)
    loaded = load_text(scaled, path=path.name)
    assert [str(problem) for problem in loaded.problems] == []
