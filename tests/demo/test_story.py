"""The demo as a user runs it unattended: both loops close, and nothing is left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = [pytest.mark.real, pytest.mark.alone]


@pytest.mark.timeout(420)
def test_both_loops_close_and_no_process_is_left(
    tmp_path: Path, daemon: Callable[..., str]
) -> None:
    daemon("prometheus")
    daemon("prometheus-alertmanager", "alertmanager")
    report = tmp_path / "report.json"
    played = subprocess.run(
        [sys.executable, "-m", "remediator", "demo", "--once", "--report", str(report)],
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    assert played.returncode == 0, played.stdout[-8000:] + played.stderr[-2000:]
    document = json.loads(report.read_text())
    assert document["closed"]
    assert all(check["ok"] for check in document["checks"])
    assert document["figures"]["saturated"]["time_to_mitigate_s"] > 0
    assert document["figures"]["dead"]["time_to_mitigate_s"] > 0
    assert [pid for pid in _processes() if str(tmp_path) in _command(pid)] == []


def _processes() -> list[str]:
    names = [path.name for path in Path("/proc").iterdir() if path.name.isdigit()]
    return [name for name in names if int(name) != os.getpid()]


def _command(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""
