"""`remediator check`: every problem with its place, and an exit code that a pipeline can use."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import PLAYBOOK, Type

BROKEN = PLAYBOOK.replace("steps:", "stepz:")


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.yaml"
    path.write_text(PLAYBOOK)
    return path


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    path = tmp_path / "broken.yaml"
    path.write_text(BROKEN)
    return path


def test_files_without_a_problem_end_in_zero(typed: Type, good: Path) -> None:
    said = typed("check", str(good))
    assert said.code == 0
    assert "1 file: 0 problems" in said.out


def test_a_problem_is_told_with_file_line_and_column_and_ends_in_one(
    typed: Type, broken: Path
) -> None:
    said = typed("check", str(broken))
    assert said.code == 1
    assert f"{broken}:5:1: " in said.out
    assert "did you mean 'steps'" in said.out
    assert said.err == ""


def test_a_folder_is_searched_and_its_good_files_do_not_hide_the_bad_ones(
    typed: Type, good: Path, broken: Path
) -> None:
    said = typed("check", str(good.parent))
    assert said.code == 1
    assert "2 files" in said.out
    assert str(broken) in said.out
    assert f"{good}:" not in said.out


def test_json_is_all_that_is_printed_when_it_is_asked_for(typed: Type, broken: Path) -> None:
    said = typed("check", "--format", "json", str(broken))
    assert said.code == 1
    told = json.loads(said.out)
    assert {"severity", "path", "line", "column", "message", "hint"} == set(told[0])
    assert (told[0]["severity"], told[0]["line"], told[0]["column"]) == ("error", 5, 1)


def test_json_of_files_without_a_problem_is_an_empty_list(typed: Type, good: Path) -> None:
    said = typed("check", "--format", "json", str(good))
    assert (said.code, json.loads(said.out)) == (0, [])


def test_a_path_that_does_not_exist_is_said_and_ends_in_two(typed: Type, good: Path) -> None:
    said = typed("check", str(good), "nowhere/at-all.yaml")
    assert said.code == 2
    assert said.err == "remediator: no such file or folder: nowhere/at-all.yaml\n"


CONFIGURATION = """\
targets: {detector-1: {url: 'http://127.0.0.1:9', instance: 'localhost:8000', pool: detectors}}
endpoints: {queue: {url: 'http://127.0.0.1:9'}}
playbooks: PLAYBOOKS
"""


def test_names_are_checked_against_the_configuration(
    typed: Type, good: Path, tmp_path: Path
) -> None:
    config = tmp_path / "remediator.yaml"
    config.write_text(CONFIGURATION.replace("PLAYBOOKS", str(good)))
    assert typed("check", "--config", str(config)).code == 0
    calling = "steps:\n  - http: {endpoint: queu}\n    undo: none\n    on_unknown: escalate\n"
    good.write_text(good.read_text().replace("steps:\n", calling))
    assert typed("check", str(good)).code == 0
    said = typed("check", "--config", str(config))
    assert said.code == 1
    assert f"{good}:6:12: no endpoint is called 'queu' (did you mean 'queue'?)" in said.out


def test_targets_can_be_named_on_the_command_line(typed: Type, good: Path) -> None:
    good.write_text(good.read_text().replace("${{ alert.labels.instance }}", "detector-1"))
    assert typed("check", str(good)).code == 0
    assert typed("check", str(good), "--targets", "detector-1, detector-2").code == 0
    said = typed("check", str(good), "--targets", "detector-2,detector-3")
    assert said.code == 1
    assert "no target is called 'detector-1' (did you mean 'detector-3'?)" in said.out


def test_a_configuration_that_cannot_be_read_ends_in_two(typed: Type, good: Path) -> None:
    said = typed("check", str(good), "--config", "nowhere.yaml")
    assert said.code == 2
    assert "nowhere.yaml: cannot be read" in said.err


def test_an_unknown_format_ends_in_two(typed: Type, good: Path) -> None:
    assert typed("check", str(good), "--format", "xml").code == 2


def test_the_schema_is_printed_or_written(typed: Type, tmp_path: Path) -> None:
    printed = typed("schema")
    assert printed.code == 0
    document = json.loads(printed.out)
    assert document["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    path = tmp_path / "playbook.schema.json"
    said = typed("schema", "--output", str(path))
    assert (said.code, said.out) == (0, "")
    assert json.loads(path.read_text()) == document


def test_a_schema_that_cannot_be_written_ends_in_two(typed: Type, tmp_path: Path) -> None:
    said = typed("schema", "--output", str(tmp_path / "no" / "such" / "folder.json"))
    assert said.code == 2
    assert "cannot be written" in said.err


def test_the_playbooks_that_are_shipped_have_no_problem(typed: Type) -> None:
    assert typed("check").code == 0


def test_what_a_file_says_cannot_reach_the_terminal_as_a_command(
    typed: Type, tmp_path: Path
) -> None:
    path = tmp_path / "red\x1b[31m.yaml"
    path.write_text(PLAYBOOK + '"\\e]0;owned\\a[red]": 1\n')
    said = typed("check", str(path))
    assert said.code == 1
    assert "\x1b" not in said.out
    assert "\x07" not in said.out


def test_the_module_is_a_program(broken: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "remediator", "check", str(broken)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert f"{broken}:5:1:" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "command", ["serve", "check", "schema", "runs", "explain", "pause", "demo"]
)
def test_every_command_says_what_it_is_for(typed: Type, command: str) -> None:
    said = typed(command, "--help")
    assert said.code == 0
    assert len(said.out.splitlines()) > 3


@pytest.mark.parametrize("words", [["no-such-command"], ["runs", "--limit", "0"], ["explain"]])
def test_a_command_line_that_makes_no_sense_ends_in_two(typed: Type, words: list[str]) -> None:
    said = typed(*words)
    assert said.code == 2
    assert "Traceback" not in said.err


def test_a_folder_without_playbooks_is_no_good_answer(typed: Type, tmp_path: Path) -> None:
    said = typed("check", str(tmp_path))
    assert said.code == 2
    assert f"no *.yaml in {tmp_path}" in said.err
