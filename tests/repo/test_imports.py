"""The rooms of the design: who may import whom, checked as `make check` checks it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOL = Path(sys.executable).with_name("lint-imports")


@pytest.mark.real
def test_every_import_contract_is_kept() -> None:
    done = subprocess.run([TOOL], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout


@pytest.mark.parametrize(
    ("room", "stranger"),
    [
        ("remediator.cli", "torch"),
        ("remediator.cli", "detector_service"),
        ("remediator.app", "ultralytics"),
        ("remediator.model.run", "sqlalchemy"),
        ("remediator.model.playbook", "httpx"),
        ("remediator.engine.ports", "fastapi"),
    ],
)
def test_importing_a_room_does_not_bring_a_stranger_along(room: str, stranger: str) -> None:
    program = f"import sys, {room}; sys.exit({stranger!r} in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], check=False, cwd=ROOT)
    assert done.returncode == 0
