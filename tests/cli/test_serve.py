"""`remediator serve` with a configuration that cannot work: one line each, and nothing started."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.cli.conftest import Type


def a_config(folder: Path, text: str) -> str:
    path = folder / "remediator.yaml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lsten: 127.0.0.1:1\ntick_s: 0\n", "lsten: Extra inputs"),
        ("listen: 0.0.0.0:8090\n", "set webhook_token_file"),
        ("database: nonsense\n", "is not an address"),
        ("database: sqlite:////nowhere/at/all/journal.db\n", "its folder must exist"),
        ("webhook_token_file: /nowhere/token\n", "token file /nowhere/token"),
        ("prometheus: nonsense\n", "'nonsense' is not a URL"),
        ("alertmanager: []\n", "Alertmanager"),
    ],
)
def test_a_configuration_that_cannot_work_is_told_and_ends_in_two(
    typed: Type, tmp_path: Path, text: str, said: str
) -> None:
    journal = "" if "database" in text else f"database: sqlite:///{tmp_path}/journal.db\n"
    answer = typed("serve", "--config", a_config(tmp_path, text + journal))
    assert answer.code == 2
    assert said in answer.err
    assert all(line.startswith("remediator: ") for line in answer.err.splitlines())
    assert answer.out == ""


@pytest.mark.real
def test_a_controller_that_serves_stops_when_it_is_told_to(tmp_path: Path) -> None:
    config = a_config(
        tmp_path,
        f"listen: 127.0.0.1:0\ndatabase: sqlite:///{tmp_path}/journal.db\n"
        f"playbooks: {tmp_path}\nalertmanager: [http://127.0.0.1:9]\n",
    )
    with (tmp_path / "log").open("w") as log:
        served = subprocess.Popen(
            [sys.executable, "-m", "remediator", "serve", "--config", config], stderr=log
        )
        try:
            deadline = time.monotonic() + 30
            while "serving" not in (tmp_path / "log").read_text():
                assert served.poll() is None
                assert time.monotonic() < deadline
                with pytest.raises(httpx.HTTPError):
                    httpx.get("http://127.0.0.1:9")
            served.send_signal(signal.SIGTERM)
            assert served.wait(20) in {0, -signal.SIGTERM}
        finally:
            served.kill()
            served.wait(10)
    assert "Traceback" not in (tmp_path / "log").read_text()
