"""The stand-alone exporter as a process: what it serves, how it starts and ends."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from detector_service import exporter
from tests.detector.nvml import environment

WAIT_S = 30
LIGHT = """
import sys, detector_service.exporter
print([name for name in ("torch", "fastapi", "uvicorn", "cv2", "av") if name in sys.modules])
"""


@contextmanager
def exporting(*arguments: str, fake: bool = True, **told: str) -> Iterator[tuple[str, Process]]:
    """Run an exporter on a free port; yields its URL and itself."""
    command = [sys.executable, "-m", "detector_service.exporter", "--port", "0", *arguments]
    with subprocess.Popen(
        command, env=environment(fake=fake, **told), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            assert "listening on" in line, line
            yield line.split()[-1], process
        finally:
            process.kill()


Process = subprocess.Popen[str]


def scrape_until(url: str, wanted: str) -> str:
    for _ in range(1000):
        text = httpx.get(url, timeout=WAIT_S).text
        if wanted in text:
            return text
    raise AssertionError(text)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_the_articles_names_and_ours_and_ends_as_asked(number: signal.Signals) -> None:
    with exporting("--interval", "0.2") as (url, process):
        text = scrape_until(url, 'gpu_utilization_percent{gpu_id="0"} 97.0')
        assert 'detector_gpu_memory_used_bytes{gpu="0"} 3.221225472e+09' in text
        process.send_signal(number)
        assert process.wait(WAIT_S) == 0


def test_on_a_machine_without_a_gpu_it_runs_says_so_once_and_serves_no_series() -> None:
    with exporting("--interval", "0.1", fake=False) as (url, process):
        assert process.stdout is not None
        assert "no GPU readings" in process.stdout.readline()
        text = httpx.get(url, timeout=WAIT_S).text
        assert "# TYPE gpu_utilization_percent gauge" in text
        assert [line for line in text.splitlines() if not line.startswith("#")] == []
        process.terminate()
        assert process.wait(WAIT_S) == 0
        assert process.stdout.read() == ""


def test_a_driver_that_hangs_keeps_it_neither_from_answering_nor_from_ending() -> None:
    with exporting(FAKE_NVML_HANG="100") as (url, process):
        assert 'gpu_id="0"' not in httpx.get(url, timeout=WAIT_S).text
        process.terminate()
        assert process.wait(WAIT_S) == 0


def test_a_port_in_use_is_refused_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            assert exporter.main(["--port", str(port)]) == 2
    finally:
        for number, found in before.items():
            signal.signal(number, found)
    words = f"exporter: cannot listen on 127.0.0.1:{port}: Address already in use\n"
    assert capsys.readouterr().err == words


@pytest.mark.parametrize(
    "wrong",
    [("--port", "65536"), ("--port", "x"), ("--interval", "0"), ("--interval", "nan")],
)
def test_a_wrong_argument_is_refused_by_name(
    wrong: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        exporter.main(list(wrong))
    assert left.value.code == 2
    assert f"argument {wrong[0]}:" in capsys.readouterr().err


def test_it_needs_neither_torch_nor_a_web_framework() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIGHT], capture_output=True, text=True, check=True, timeout=WAIT_S
    )
    assert done.stdout == "[]\n"
