"""`remediator test`: what a person sees, and how it exits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from junitparser import JUnitXml
from typer.testing import CliRunner

from remediator.cli import app

GOOD = """
playbooks: [play.yaml]
inventory: {gpu-1: {}}
tests:
  - name: no data moves nothing
    length: 2m
    alerts: [{at: 1m, labels: {alertname: Slow, instance: gpu-1}}]
    expect: {decisions: [{decision: unknown}], actions: []}
"""
BAD = GOOD.replace("decision: unknown", "decision: admitted")
PLAYBOOK = """
apiVersion: remediator/v1
name: retune
mode: auto
on: {alerts: ['alertname="Slow"']}
target: ${{ alert.labels.instance }}
guards: [{require: {query: 'p95{instance="${{ target.instance }}"}', above: 0.25}}, {cooldown: 5m}]
steps: [{notify: {message: it is slow}}]
"""


def run(folder: Path, text: str, *options: str) -> tuple[int, str]:
    (folder / "play.yaml").write_text(PLAYBOOK)
    path = folder / "play.test.yaml"
    path.write_text(text)
    done = CliRunner().invoke(app, ["test", str(path), *options])
    return done.exit_code, done.output


@pytest.mark.real
def test_a_test_that_passes_is_one_line_and_exits_with_0(tmp_path: Path) -> None:
    code, said = run(tmp_path, GOOD)
    assert code == 0
    assert said.splitlines()[0].startswith("✓ no data moves nothing (")
    assert said.splitlines()[1:] == ["1 test: 1 passed"]


@pytest.mark.real
def test_a_test_that_fails_shows_where_it_stands_what_differs_and_what_happened(
    tmp_path: Path,
) -> None:
    code, said = run(tmp_path, BAD)
    assert code == 1
    assert said.startswith("✗ no data moves nothing")
    assert f"{tmp_path}/play.test.yaml:5" in said
    assert "decisions: expected decision: admitted; seen from there on:" in said
    assert "1m  retune denied: unknown: no data" in said
    assert said.splitlines()[-1] == "1 test: 0 passed, 1 failed"


@pytest.mark.real
def test_verbose_shows_what_happened_in_every_test(tmp_path: Path) -> None:
    _, said = run(tmp_path, GOOD, "--verbose")
    assert "1m  alert Slow (instance=gpu-1) fires" in said


@pytest.mark.real
def test_json_is_all_that_is_printed_and_junit_lies_where_it_should(tmp_path: Path) -> None:
    junit = tmp_path / "junit.xml"
    code, said = run(tmp_path, BAD, "--format", "json", "--junit", str(junit))
    document = json.loads(said)
    assert (code, document["failed"]) == (1, 1)
    assert document["tests"][0]["line"] == 5
    (suite,) = JUnitXml.fromfile(str(junit))
    assert (suite.tests, suite.failures) == (1, 1)


@pytest.mark.real
def test_a_file_with_a_mistake_exits_with_2_and_the_others_are_played(tmp_path: Path) -> None:
    broken = tmp_path / "broken.test.yaml"
    broken.write_text(GOOD.replace("expect", "expct"))
    code, said = run(tmp_path, GOOD, str(broken))
    assert code == 2
    assert f"{broken}:8:5: tests[0] has no key 'expct' (did you mean 'expect'?)" in said
    assert said.splitlines()[-1] == "1 test: 1 passed, 1 problem in files"


@pytest.mark.real
def test_a_filter_that_leaves_nothing_is_no_success(tmp_path: Path) -> None:
    code, said = run(tmp_path, GOOD, "--filter", "nonsense")
    assert code == 2
    assert "no test is called like nonsense" in said


def test_a_file_that_is_not_there_and_a_folder_without_tests_are_told(tmp_path: Path) -> None:
    for path, told in ((tmp_path / "gone.yaml", "no such file"), (tmp_path, "no *.test.yaml in")):
        done = CliRunner().invoke(app, ["test", str(path)])
        assert done.exit_code == 2
        assert told in done.output
