"""Child processes that are ended for certain, whatever state they are in.

The stack starts its parts with `Child` and clears up with `end_marked`. The surprise: every process
carries a mark in its environment, so what a killed supervisord leaves behind is found again, by
looking for the mark, and ended by its own process id.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

MARK = "REMEDIATOR_STACK"
"""Name of the environment variable every process of a stack carries, with the stack's own value."""

POLL_S = 0.05

LISTEN = "0A"
"""The state of a listening socket in the kernel's table."""


def wait_until(done: Callable[[], bool], seconds: float) -> bool:
    """Ask ``done`` until it is true or ``seconds`` have passed; says which."""
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            return False
        time.sleep(POLL_S)
    return True


def tail(path: Path, lines: int = 15) -> str:
    """The last lines of a log, or a word that there are none."""
    try:
        text = path.read_text(errors="replace").strip()
    except OSError:
        text = ""
    return "\n".join(text.splitlines()[-lines:]) or "(its log is empty)"


class Child:
    """One process the stack started: it can be stopped in any state, as often as one likes."""

    def __init__(
        self, argv: Sequence[str], *, log: Path, mark: str, environment: Mapping[str, str]
    ) -> None:
        self._argv = list(argv)
        self._log = log
        self._environment = {**environment, MARK: mark}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self._process.pid if self._process and self._process.poll() is None else None

    @property
    def exit_code(self) -> int | None:
        """How it ended; None while it runs or before it was started."""
        return self._process.poll() if self._process else None

    def start(self) -> None:
        """Start it, in a session of its own: Ctrl-C is for the stack, which stops it in order."""
        with self._log.open("ab") as out:
            self._process = subprocess.Popen(
                self._argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self._environment},
                start_new_session=True,
            )

    def stop(self, grace_s: float) -> None:
        """TERM, then KILL after ``grace_s`` seconds. A frozen process is woken to hear TERM."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        self._process.send_signal(signal.SIGCONT)
        try:
            self._process.wait(grace_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def wait(self, seconds: float) -> None:
        """Wait until it has ended, and take its exit code.

        Raises:
            subprocess.TimeoutExpired: it runs on.
        """
        if self._process is not None:
            self._process.wait(seconds)


def marked(mark: str) -> list[int]:
    """Process ids of everything alive that carries this mark; empty where there is no /proc."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        # Processes end while we look, and those of other users do not show their environment.
        with contextlib.suppress(OSError):
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return [pid for pid in found if pid != os.getpid()]


def listens(pids: Sequence[int], port: int) -> bool:
    """Whether one of these processes listens on a loopback port; true where there is no /proc.

    Columns of the table: https://docs.kernel.org/networking/proc_net_tcp.html
    """
    table = Path("/proc/net/tcp")
    if not table.exists():
        return True
    rows = [line.split() for line in table.read_text().splitlines()[1:]]
    here = {row[9] for row in rows if row[3] == LISTEN and row[1].endswith(f":{port:04X}")}
    wanted = {f"socket:[{inode}]" for inode in here}
    for pid in pids:
        with contextlib.suppress(OSError):
            for descriptor in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    if str(descriptor.readlink()) in wanted:
                        return True
    return False


def send(pids: Sequence[int], number: signal.Signals) -> None:
    """Signal processes that may be gone already."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def end_marked(mark: str, grace_s: float, *, spare: Sequence[int] = ()) -> list[int]:
    """End everything that carries the mark, but for the ids to spare; returns what it found."""

    def left() -> list[int]:
        return [pid for pid in marked(mark) if pid not in spare]

    found = left()
    send(found, signal.SIGTERM)
    send(found, signal.SIGCONT)
    if not wait_until(lambda: not left(), grace_s):
        send(left(), signal.SIGKILL)
        wait_until(lambda: not left(), grace_s)
    return found
