"""The reference in docs/ says what the code says: every setting, metric, reason and command."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from remediator.model.decision import Reason
from remediator.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs" / "reference"


def test_the_reference_is_what_the_code_would_write_today() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "reference.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr


def cells(page: str) -> list[list[str]]:
    """Return the rows of a page's tables, without their heads."""
    lines = (REFERENCE / f"{page}.md").read_text().splitlines()
    rows = [line for line in lines if line.startswith("| `")]
    return [re.split(r"\s*(?<!\\)\|\s*", row)[1:-1] for row in rows]


@pytest.mark.parametrize("page", ["settings", "metrics", "commands"])
def test_everything_in_the_reference_says_what_it_is(page: str) -> None:
    assert cells(page)
    assert [row[0] for row in cells(page) if not row[-1]] == []


def test_every_setting_and_every_reason_is_in_it() -> None:
    settings = {row[0].strip("`") for row in cells("settings")}
    assert set(Settings.model_fields) <= settings
    assert all(row[3] for row in cells("settings"))
    assert {row[0].strip("`") for row in cells("reasons")} == set(Reason)


def test_types_of_settings_are_words_for_whoever_writes_yaml() -> None:
    types = {row[1] for row in cells("settings")}
    assert [one for one in types if not re.fullmatch("[a-z ]+", one)] == []
    assert {"text", "list of whole numbers", "observe or propose or auto"} <= types
