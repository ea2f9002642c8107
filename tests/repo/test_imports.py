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
    ("rooms", "strangers"),
    [
        ("remediator.cli", {"torch", "ultralytics", "detector_service", "pynvml", "av"}),
        ("remediator.model.run, remediator.engine.ports", {"sqlalchemy", "httpx", "fastapi"}),
    ],
)
def test_importing_a_room_brings_no_stranger_along(rooms: str, strangers: set[str]) -> None:
    program = f"import sys, {rooms}; sys.exit(' '.join({strangers} & sys.modules.keys()))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.stderr.strip() == ""
