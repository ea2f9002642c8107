"""Files of tests: every mistake has its place and a hint, and none raises."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from remediator.rehearsal.reading import files_of_tests, prepare
from tests.rehearsal.conftest import RETUNE

GOOD = """\
playbooks: [play.yaml]
inventory: {gpu-1: {}}
tests:
  - name: one
    expect: {actions: []}
"""


def problems_of(folder: Path, text: str, *, playbook: str = RETUNE) -> list[str]:
    (folder / "play.yaml").write_text(playbook)
    path = folder / "play.test.yaml"
    path.write_text(dedent(text))
    return [str(problem).removeprefix(f"{folder}/") for problem in prepare(path).problems]


def test_a_good_file_has_its_playbooks_and_the_lines_of_its_tests(tmp_path: Path) -> None:
    assert problems_of(tmp_path, GOOD) == []
    prepared = prepare(tmp_path / "play.test.yaml")
    assert (list(prepared.library), prepared.lines) == (["retune"], (4,))


@pytest.mark.parametrize(
    ("wrong", "instead", "told"),
    [
        ("tests:", "test:", "3:1: a file of tests has no key 'test' (did you mean 'tests'?)"),
        (
            "actions",
            "action",
            "5:14: tests[0].expect has no key 'action' (did you mean 'actions'?)",
        ),
        ("{actions: []}", "{}", "5:13: tests[0].expect: expects nothing; give one of"),
        ("play.yaml", "plya.yaml", "1:13: there is no file 'plya.yaml' (seen from"),
        (
            "actions: []",
            "targets: {gpu-2: {draining: true}}",
            "there is no target 'gpu-2' (did you mean 'gpu-1'?)",
        ),
        (
            "actions: []",
            "runs: [{playbook: retunes}]",
            "5:22: there is no playbook 'retunes' (did you mean 'retune'?)",
        ),
        (
            "actions: []",
            "decisions: [{decision: cooled}]",
            "is not one of admitted, no_playbook",
        ),
        ("expect", "length: 5\n    expect", "5:13: tests[0].length: 5 is not a duration"),
        ("expect", "length: 25h\n    expect", "5:13: tests[0].length: is longer than a day"),
        (
            "expect",
            "input_series: [{series: up, values: 1xx}]\n    expect",
            "values: '1xx' is not a sample",
        ),
        (
            "expect",
            "input_series: [{series: 'up{', values: 1}]\n    expect",
            "'up{' is not a series",
        ),
        (
            "expect",
            "input_series: slwo\n    expect",
            "5:5: there are no series 'slwo' (name it in series, at the top)",
        ),
        (
            "expect",
            "controls: [{pause: all, resume: all}]\n    expect",
            "give exactly one of pause, resume",
        ),
        (
            "expect",
            "events: [{target: gpu-1}]\n    expect",
            "says nothing that happens: give becomes, pin or effect",
        ),
        (
            "expect",
            "alerts: [{at: 5m, until: 1m, labels: {alertname: x}}]\n    expect",
            "until must be later than at",
        ),
        (
            "expect",
            "alerts_from_rules: true\n    expect",
            "5:5: no rules are named that could fire (name them in rule_files)",
        ),
        (
            "tests:",
            "modes: {retun: observe}\ntests:",
            "3:9: there is no playbook 'retun' (did you mean 'retune'?)",
        ),
        (
            "expect",
            "alerts: [{at: 31m, labels: {alertname: x}}]\n    expect",
            "5:15: the test ends after 30m (give it a greater length)",
        ),
        ("actions: []", "messages: [{title: x, at: 1h}]", "the test ends after 30m"),
        (
            "expect",
            "events: [{target: gpu-1, pin: max_concurency}]\n    expect",
            "gpu-1 has no setting 'max_concurency' (did you mean 'max_concurrency'?)",
        ),
        ("actions: []", "decisions: []", "decisions: must not be empty"),
        ("actions: []", "targets: {}", "5:13: tests[0].expect: expects nothing"),
        ("actions: []", "actions: null", "5:13: tests[0].expect: expects nothing"),
        (
            "actions: []",
            "targets: {gpu-1: {}}",
            "targets.gpu-1: expects nothing; give one of settings, process",
        ),
        (
            "expect",
            "controls: [{pause: 'taget:gpu-1'}]\n    expect",
            "5:17: 'taget:gpu-1' is no scope: one of all, playbook, target, pool, action (did you",
        ),
        ("expect", "controls: [{pause: nonsense}]\n    expect", "'nonsense' is no scope"),
        ("expect", "controls: [{resume: 'all:x'}]\n    expect", "'all:x' is no scope"),
        (
            "expect",
            "controls: [{pause: 'target:gpu-99'}]\n    expect",
            "there is no target 'gpu-99' (did you mean 'gpu-1'?)",
        ),
        (
            "expect",
            "controls: [{stop: 'playbok:retune'}]\n    expect",
            "'playbok:retune' is no scope: one of all, playbook, target, pool (did you mean",
        ),
        ("expect", "controls: [{stop: 'action:wait'}]\n    expect", "'action:wait' is no scope"),
        (
            "expect",
            "controls: [{pause: 'pool:p'}]\n    expect",
            "there is no pool 'p' (there is none)",
        ),
        (
            "expect",
            "alerts: [{until: 31m, labels: {alertname: x}}]\n    expect",
            "5:15: the test ends after 30m (give it a greater length, or leave it out)",
        ),
        (
            "expect",
            "silences: [{until: 31m, matchers: [a=b]}]\n    expect",
            "the test ends after 30m",
        ),
        ("expect", "actuators: [{call: stop, after: 31m}]\n    expect", "the test ends after 30m"),
        (
            "expect",
            "input_series: [{series: up, values: NaNx3}]\n    expect",
            "'NaNx3' is not a sample; write NaN as often as it is meant",
        ),
        ("tests:", "start: 2026-01-01T00:00:00\ntests:", "start needs a time zone"),
        (
            "  - name: one\n",
            "  - {name: one, expect: {actions: []}}\n  - name: one\n",
            "5:5: a test of this name stands on line 4 (say what this one promises)",
        ),
    ],
)
def test_a_mistake_is_told_at_its_place_with_what_to_do(
    tmp_path: Path, wrong: str, instead: str, told: str
) -> None:
    assert wrong in GOOD
    problems = problems_of(tmp_path, GOOD.replace(wrong, instead, 1))
    assert any(told in problem for problem in problems), problems
    assert all(problem.startswith("play.test.yaml:") for problem in problems)


def test_a_template_is_never_a_reason_to_leave_a_file_out(tmp_path: Path) -> None:
    alert = "alerts: [{at: '${{ x }}', labels: {alertname: Slow}}]"
    (told,) = problems_of(tmp_path, f"{GOOD}    {alert}\n")
    assert "6:19: tests[0].alerts[0].at: '${{ x }}' is not a duration" in told


def test_what_has_no_process_cannot_hang(tmp_path: Path) -> None:
    text = GOOD.replace("{}", "{process: false}")
    text = text.replace("expect", "events: [{target: gpu-1, becomes: hung}]\n    expect")
    told = "5:30: nothing runs gpu-1 (its process is false above)"
    assert problems_of(tmp_path, text) == [f"play.test.yaml:{told}"]


def test_a_file_that_is_no_yaml_or_is_empty_says_so(tmp_path: Path) -> None:
    assert problems_of(tmp_path, "") == [
        "play.test.yaml:1:1: the file is empty (a file of tests begins with playbooks)"
    ]
    assert "play.test.yaml:1:9" in problems_of(tmp_path, "tests: [")[0]


def test_the_problems_of_a_playbook_are_told_in_its_own_file(tmp_path: Path) -> None:
    problems = problems_of(tmp_path, GOOD, playbook=RETUNE.replace("steps", "stepps"))
    assert problems[0].startswith("play.yaml:10:1: a playbook has no key 'stepps'")


def test_named_series_stand_where_their_name_stands_alone_or_among_others(tmp_path: Path) -> None:
    text = (
        GOOD.replace(
            "tests:\n  - name: one\n",
            """\
series:
  a: [{series: a, values: 1}]
  b: [{series: b, values: 2}, {series: c, values: 3}]
tests:
  - name: one
    input_series: [a, {series: d, values: 4}]
    actuators: [{call: set, effect: b}]
""",
        )
        .replace("values: 1", "values: '1'")
        .replace("values: 2", "values: '2'")
    )
    text = text.replace("values: 3", "values: '3'").replace("values: 4", "values: '4'")
    assert problems_of(tmp_path, text) == []
    script = prepare(tmp_path / "play.test.yaml").script
    assert script is not None
    scene = script.tests[0]
    assert [one.series for one in scene.input_series] == ["a", "d"]
    assert [one.series for one in scene.actuators[0].effect] == ["b", "c"]


def test_a_mode_given_here_replaces_the_playbooks_own(tmp_path: Path) -> None:
    problems_of(tmp_path, GOOD.replace("tests:", "modes: {retune: observe}\ntests:"))
    assert prepare(tmp_path / "play.test.yaml").library["retune"].playbook.mode == "observe"


def test_a_folder_gives_its_files_of_tests_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    names = ["b.test.yaml", "inner/a.test.yml", "play.yaml", "notes.txt"]
    for name in names:
        (tmp_path / name).write_text("")
    found = [str(path.relative_to(tmp_path)) for path in files_of_tests([tmp_path])]
    assert found == ["b.test.yaml", "inner/a.test.yml"]
    assert files_of_tests([tmp_path / "play.yaml"]) == [tmp_path / "play.yaml"]
