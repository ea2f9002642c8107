"""What the log and the API say when a playbook is edited while it serves."""

from __future__ import annotations

from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

from structlog.testing import capture_logs

from remediator.api.stories import _playbooks
from remediator.app import Playbooks
from remediator.settings import Settings
from tests.language.texts import playbook

Entry = MutableMapping[str, Any]


def reload(playbooks: Playbooks) -> tuple[bool, list[Entry]]:
    with capture_logs() as said:
        changed = playbooks.take(playbooks.library.reload())
    return changed, said


def test_a_broken_edit_is_said_once_and_the_last_good_version_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "slow.yaml"
    path.write_text(playbook())
    playbooks = Playbooks.load(Settings(playbooks=tmp_path))
    good = dict(playbooks.pinned)
    path.write_text(playbook("stepps: []\n"))
    changed, said = reload(playbooks)
    assert (changed, playbooks.pinned) == (False, good)
    assert [entry["event"] for entry in said] == [
        "playbook problem",
        "the last good version goes on serving",
    ]
    assert f"{path}:5:1: a playbook has no key 'stepps'" in said[0]["problem"]
    assert said[1]["playbook"] == "slow"
    assert reload(playbooks) == (False, [])
    shown = _playbooks(playbooks.library)
    assert shown.playbooks[0].status.startswith(f"stale: {path}:5:1: ")
    assert [problem.line for problem in shown.problems] == [5]
    path.write_text(playbook() + "# mended\n")
    assert reload(playbooks) == (True, [])
    assert _playbooks(playbooks.library).playbooks[0].status == "serving"


def test_what_is_wrong_with_the_only_file_is_not_said_again_at_every_look(tmp_path: Path) -> None:
    (tmp_path / "slow.yaml").write_text(playbook("stepps: []\n"))
    with capture_logs() as said:
        playbooks = Playbooks.load(Settings(playbooks=tmp_path))
    assert [entry["event"] for entry in said] == ["playbook problem"]
    assert reload(playbooks) == (False, [])


def test_a_doubt_is_logged_and_keeps_nothing_from_serving(tmp_path: Path) -> None:
    text = playbook("vars: {a: x}\nsteps: [{notify: {message: hi}}]\n")
    (tmp_path / "slow.yaml").write_text(text)
    with capture_logs() as said:
        playbooks = Playbooks.load(Settings(playbooks=tmp_path))
    assert [entry["event"] for entry in said] == ["playbook doubt"]
    assert list(playbooks.pinned) == ["slow"]
