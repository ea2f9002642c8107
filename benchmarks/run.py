"""What durability costs: webhooks acknowledged a second against the disk's own fsync rate.

`make bench` runs it. Both are measured in turn on the same disk in the same run, because only their
ratio means something elsewhere: an acknowledged webhook cannot be cheaper than one fsync. One
client posts one notification after the other to a real controller process.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import httpx
from rich.console import Console
from rich.table import Table

from remediator.demo.children import wait_until

ROUNDS = 5
SECONDS = 2.0
BLOCK = b"x" * 4096
RESULTS = Path(__file__).parent / "results"


def payload(number: int) -> bytes:
    """One notification of three alerts, all of them new."""
    alerts = [
        {
            "status": "firing",
            "labels": {"alertname": "Bench", "instance": f"i{number}-{part}", "severity": "none"},
            "annotations": {"summary": "a benchmark"},
            "startsAt": "2026-01-01T00:00:00Z",
            "endsAt": "0001-01-01T00:00:00Z",
            "generatorURL": "http://localhost/graph",
            "fingerprint": f"{number:012x}{part:04x}",
        }
        for part in range(3)
    ]
    document = {"version": "4", "receiver": "bench", "groupKey": "{}", "alerts": alerts}
    return json.dumps(document).encode()


def fsyncs_per_second(folder: Path) -> float:
    """Append 4 KiB and fsync, again and again."""
    with (folder / "fsync.bin").open("wb") as file:
        began, count = time.perf_counter(), 0
        while time.perf_counter() - began < SECONDS:
            file.write(BLOCK)
            file.flush()
            os.fsync(file.fileno())
            count += 1
        return count / (time.perf_counter() - began)


def acknowledged_per_second(client: httpx.Client, first: int) -> tuple[float, list[float]]:
    """Post one webhook after the other; return the rate and each one's seconds."""
    began, times = time.perf_counter(), []
    while time.perf_counter() - began < SECONDS:
        sent = time.perf_counter()
        client.post(
            "/webhooks/alertmanager", content=payload(first + len(times))
        ).raise_for_status()
        times.append(time.perf_counter() - sent)
    return len(times) / (time.perf_counter() - began), times


def main() -> None:
    """Measure, print the table, keep the figures as JSON."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        folder = Path(name)
        port = 20000 + os.getpid() % 10000
        (folder / "config.yml").write_text(
            f"listen: 127.0.0.1:{port}\ndatabase: sqlite:///{folder}/journal.db\n"
            f"playbooks: {folder}\nwatchdog_within_s: null\nreconcile_s: 3600\n"
        )
        log = (folder / "controller.log").open("wb")
        controller = subprocess.Popen(
            [sys.executable, "-m", "remediator", "serve", "--config", str(folder / "config.yml")],
            stdout=log,
            stderr=log,
        )
        try:
            rows = measure(folder, f"http://127.0.0.1:{port}")
        finally:
            controller.terminate()
            controller.wait(20)
            log.close()
    report(rows)


def measure(folder: Path, url: str) -> list[dict[str, float]]:
    """Take both figures in turn, `ROUNDS` times."""
    with httpx.Client(base_url=url, timeout=30, trust_env=False) as client:

        def answers() -> bool:
            try:
                return client.get("/readyz").is_success
            except httpx.TransportError:
                return False

        if not wait_until(answers, 30):
            raise SystemExit(
                "the controller did not start: " + (folder / "controller.log").read_text()
            )
        rows, sent = [], 0
        for _ in range(ROUNDS):
            disk = fsyncs_per_second(folder)
            rate, times = acknowledged_per_second(client, sent)
            sent += len(times) + 1
            rows.append(
                {
                    "fsyncs_per_s": disk,
                    "acknowledged_per_s": rate,
                    "ratio": rate / disk,
                    "p50_ms": statistics.median(times) * 1000,
                    "p99_ms": statistics.quantiles(times, n=100)[98] * 1000,
                }
            )
        return rows


def report(rows: list[dict[str, float]]) -> None:
    """Print medians with their spread; keep everything."""
    table = Table(title="Durability cost: one client, three new alerts a webhook, SQLite FULL")
    for column in ("figure", "median", "least", "most"):
        table.add_column(column, justify="left" if column == "figure" else "right")
    for figure in rows[0]:
        values = [row[figure] for row in rows]
        table.add_row(
            figure, *(f"{v:.3g}" for v in (statistics.median(values), min(values), max(values)))
        )
    Console().print(table)
    RESULTS.mkdir(exist_ok=True)
    document = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, "
        f"Python {platform.python_version()}",
        "rounds": rows,
    }
    (RESULTS / "durability.json").write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
