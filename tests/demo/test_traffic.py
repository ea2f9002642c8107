"""A load generator that fails ends the demo with words, and the report says how far it came."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from remediator.demo import story
from remediator.demo.layout import Options, Site, StackError
from remediator.demo.traffic import Traffic

pytestmark = pytest.mark.slow

# Nobody listens on port 1: every request is an error at once, which is enough to be told of.
NOWHERE = "http://127.0.0.1:1"


@pytest.fixture
def traffic(tmp_path: Path) -> Iterator[Traffic]:
    with Traffic(NOWHERE, rate=5, log=tmp_path / "traffic.log") as traffic:
        traffic.wait(1, after=0)
        yield traffic


def test_a_generator_that_ended_is_told_with_its_log(traffic: Traffic, tmp_path: Path) -> None:
    (tmp_path / "traffic.log").write_text("MemoryError: too much load\n")
    os.kill(traffic._process.pid, signal.SIGKILL)
    with pytest.raises(StackError, match="has ended; its log:\nMemoryError: too much load"):
        traffic.wait(1, after=time.time() + 60)
    with pytest.raises(StackError, match="has ended"):
        traffic.rate(7)


def test_a_generator_that_falls_silent_is_told(traffic: Traffic) -> None:
    os.kill(traffic._process.pid, signal.SIGSTOP)
    try:
        with pytest.raises(StackError, match=r"has said nothing for 0\.2 s"):
            traffic.wait(1, after=time.time() + 60, patience_s=0.2)
    finally:
        os.kill(traffic._process.pid, signal.SIGCONT)


def test_what_the_generator_complains_about_is_in_its_log(tmp_path: Path) -> None:
    log = tmp_path / "traffic.log"
    with (
        Traffic("--help", rate=5, log=log) as traffic,
        pytest.raises(StackError, match="expected one argument"),
    ):
        traffic.wait(1, after=0)


@dataclass(frozen=True)
class Unreachable:
    """As much of a stack as setting a size needs, and nobody behind it."""

    site: Site

    def url(self, part: str) -> str:
        return self.site.url(part)


def test_a_detector_that_is_away_when_its_size_is_set_ends_the_story(tmp_path: Path) -> None:
    site = Site(Options(), tmp_path, tmp_path / "s", {"detector": 1})
    site.secret("detector").parent.mkdir()
    site.secret("detector").write_text("secret")
    with pytest.raises(StackError, match="does not take imgsz 320"):
        story._set_size(Unreachable(site), 320)


def test_a_report_that_cannot_be_written_is_told_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert story.play(once=True, report=tmp_path / "no" / "folder.json") == 1
    said = capsys.readouterr().out
    assert "cannot write the report" in said
    assert "No such file or directory" in said
    assert "starting" not in said


def test_a_demo_that_cannot_start_leaves_a_report_that_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    report = tmp_path / "report.json"
    assert story.play(once=True, report=report) == 1
    document = json.loads(report.read_text())
    assert document["closed"] is False
    (check,) = document["checks"]
    assert "prometheus" in check["seen"].lower()
