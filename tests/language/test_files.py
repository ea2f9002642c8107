"""Every file under good/ loads; every file under bad/ is refused as its leading comment says."""

from __future__ import annotations

from pathlib import Path

import pytest

from remediator.language.loader import load_file
from remediator.language.surroundings import Surroundings

HERE = Path(__file__).parent
PLAYBOOKS = HERE.parents[1] / "playbooks"


def _names(folder: str) -> list[str]:
    return sorted(path.stem for path in (HERE / folder).glob("*.yaml"))


def _expected(text: str) -> list[str]:
    lines = text.splitlines()
    return [line[2:] for line in lines if line.startswith("# ") and line[2].isdigit()]


@pytest.mark.parametrize("name", _names("good"))
def test_a_good_playbook_loads_without_a_word(name: str) -> None:
    loaded = load_file(HERE / "good" / f"{name}.yaml")
    assert [str(p) for p in (*loaded.problems, *loaded.warnings)] == []
    assert loaded.playbook is not None


@pytest.mark.parametrize("name", _names("bad"))
def test_a_bad_playbook_is_refused_at_its_place_and_in_plain_words(name: str) -> None:
    path = HERE / "bad" / f"{name}.yaml"
    loaded = load_file(path)
    assert loaded.playbook is None
    told = [
        str(problem).removeprefix(f"{path}:").replace(": ", " ", 1) for problem in loaded.problems
    ]
    assert told == _expected(loaded.text)


@pytest.mark.parametrize("path", sorted(PLAYBOOKS.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_shipped_playbook_loads_without_a_word(path: Path) -> None:
    loaded = load_file(path, surroundings=Surroundings(targets=frozenset({"detector-1"})))
    assert [str(p) for p in (*loaded.problems, *loaded.warnings)] == []
