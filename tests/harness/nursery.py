"""Starts many controllers fast: a process that has imported everything, and forks one on request.

Each is a process of its own with its own id, and runs the very command line (`remediator serve`);
only the second or two of importing is saved. `Nursery` is the client, for tests; the module run as
a program is the server. The surprise: when its standard input closes it kills what it started.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.harness.waiting import is_alive, until

ROOT = Path(__file__).resolve().parents[2]


class Controller:
    """One controller process."""

    def __init__(self, pid: int, log: Path) -> None:
        self.pid = pid
        self.log = log

    @property
    def alive(self) -> bool:
        """Say whether it still runs."""
        return is_alive(self.pid)

    def send(self, number: signal.Signals) -> None:
        """Signal it, if it is still there."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        self.send(signal.SIGKILL)
        self.gone()

    def gone(self, *, within_s: float = 30.0) -> None:
        """Wait until it has ended."""
        until(lambda: not self.alive, within_s=within_s, what=f"the end of {self.pid}")


class Nursery:
    """Starts controllers; used from several threads."""

    def __init__(self, log: Path) -> None:
        self._lock = threading.Lock()
        with log.open("ab") as said:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.harness.nursery"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                cwd=ROOT,
                text=True,
                # A signal to the tests' process group must not end it before it has cleared up.
                start_new_session=True,
            )

    def start(self, config: Path, *, log: Path, **dying: Any) -> Controller:
        """Start `remediator serve --config CONFIG`; with `die` or `record`, one that may die."""
        argv = ["--config", str(config)]
        for name, value in dying.items():
            argv += [f"--{name}", str(value)]
        asked = json.dumps({"argv": argv, "dying": bool(dying), "log": str(log)})
        with self._lock:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.write(asked + "\n")
            self._process.stdin.flush()
            return Controller(int(self._process.stdout.readline()), log)

    def close(self) -> None:
        """End everything it started, and itself."""
        self._process.communicate(timeout=30)


def serve() -> None:
    """Fork a controller for each line on standard input."""
    # Imported here: the client must not pay for it.
    from remediator import cli  # noqa: PLC0415 - the preloading itself
    from tests.harness import dying_controller  # noqa: PLC0415 - the same

    # The dead are never waited for, so that no process id is used twice while tests hold it.
    started = []
    for line in sys.stdin:
        asked = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _become(asked["log"])
            if asked["dying"]:
                dying_controller.main(asked["argv"])
            else:
                cli.app(["serve", *asked["argv"]])
            os._exit(0)
        started.append(pid)
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()
    for pid in started:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _become(log: str) -> None:
    os.setsid()
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, wanted in ((nothing, 0), (out, 1), (out, 2)):
        os.dup2(source, wanted)


if __name__ == "__main__":
    serve()
