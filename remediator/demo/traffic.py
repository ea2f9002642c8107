"""The demo's traffic: the detector's own open-loop load generator as a child process.

The story calls it. Open loop: a request is due whether or not the last one was answered, as with
real clients; a closed loop would slow down with the detector and hide the queue.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from remediator.demo.children import tail
from remediator.demo.layout import StackError

PATIENCE_S = 15.0


@dataclass(frozen=True)
class Second:
    """One second of traffic, as clients saw it.

    Attributes:
        at: when it ended, seconds since the epoch.
        offered, answered, in_objective, rejected, errors: requests in it.
        p50, p95: seconds; None when nothing was answered.
    """

    at: float
    offered: int
    answered: int
    in_objective: int
    rejected: int
    errors: int
    p50: float | None
    p95: float | None


class Traffic:
    """Posts frames of the sample video at a rate that can be changed while it runs.

    What the generator complains about is added to the file `log`.
    """

    def __init__(self, url: str, *, rate: float, log: Path) -> None:
        self._argv = [
            *(sys.executable, "-m", "detector_service.load"),
            *("--url", url, "--rate", f"{rate:g}"),
        ]
        self._log = log
        self._seconds: list[Second] = []
        self._is_over = False
        self._told = threading.Condition()

    def __enter__(self) -> Self:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        self._reader = threading.Thread(target=self._read, name="traffic", daemon=True)
        self._reader.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with contextlib.suppress(OSError):
            if self._process.stdin:
                self._process.stdin.close()
        try:
            self._process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(PATIENCE_S)
        if self._process.stdout:
            self._process.stdout.close()

    def rate(self, rate: float) -> None:
        """Change the rate, in requests per second.

        Raises:
            StackError: the generator is gone.
        """
        with self._told:
            if self._is_over:
                raise self._gone()
        if self._process.stdin:
            try:
                self._process.stdin.write(f"rate {rate:g}\n")
                self._process.stdin.flush()
            except OSError as error:
                raise self._gone() from error

    def since(self, moment: float) -> list[Second]:
        """Return the seconds that began after `moment` (seconds since the epoch)."""
        with self._told:
            return [second for second in self._seconds if second.at - 1 >= moment]

    def wait(self, count: int, *, after: float, patience_s: float = 60.0) -> list[Second]:
        """Return at least `count` seconds of traffic that began after `after`.

        Raises:
            StackError: the generator is gone, or says nothing any more.
        """
        end = time.monotonic() + patience_s
        with self._told:
            while True:
                found = [second for second in self._seconds if second.at - 1 >= after]
                if len(found) >= count:
                    return found
                if self._is_over:
                    raise self._gone()
                if not self._told.wait(max(0.0, end - time.monotonic())):
                    raise StackError(
                        f"the load generator has said nothing for {patience_s:g} s; its log:\n"
                        f"{tail(self._log)}"
                    )

    def _gone(self) -> StackError:
        return StackError(f"the load generator has ended; its log:\n{tail(self._log)}")

    def _read(self) -> None:
        try:
            self._take_down()
        finally:
            with self._told:
                self._is_over = True
                self._told.notify_all()

    def _take_down(self) -> None:
        for line in self._process.stdout or ():
            document = json.loads(line)
            if document.get("total"):
                continue
            fields = {name: document.get(name) for name in Second.__dataclass_fields__}
            with self._told:
                self._seconds.append(Second(**fields))
                self._told.notify_all()


def per_second(seconds: list[Second], what: str) -> float:
    """Return the mean per second of one of the counts of `Second`."""
    return float(sum(getattr(second, what) for second in seconds)) / max(1, len(seconds))
