"""Start and stop a whole stack of real processes: detector, Prometheus, Alertmanager, controller.

The demo, ``make up`` and the acceptance tests use it::

    with Stack(Options(scale=12)) as stack:
        httpx.get(stack.url("prometheus") + "/api/v1/alerts")

Everything listens on free loopback ports and lives in one folder. The surprise: `Stack.stop` does
not trust its own bookkeeping alone; it also ends every process that carries this stack's mark, so a
detector orphaned by a killed supervisord is ended too.
"""

from __future__ import annotations

import atexit
import contextlib
import secrets
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

import httpx

from remediator.demo import daemons
from remediator.demo.children import Child, end_marked, listens, marked, send, tail, wait_until
from remediator.demo.layout import (
    PARTS,
    PORTS,
    SOCKET_PATH_LIMIT,
    Options,
    Site,
    StackError,
    shipped,
)
from remediator.demo.scaling import scale_durations
from remediator.demo.supervisor import Supervisor

__all__ = ["Options", "Stack", "StackError", "scale_durations", "shipped"]

GRACE_S = 8.0
"""Seconds a part gets to end by itself."""

ATTEMPTS = 3
"""How often a start is tried when somebody else took one of the ports in between."""

PORT_RANGE = range(20000, 32000)
"""Where ports are drawn from; Linux hands out 32768 and up, macOS 49152 and up."""

DRAWS = 100

READY = {"alertmanager": "/-/ready", "prometheus": "/-/ready", "controller": "/readyz"}


class PortTakenError(StackError):
    """A port that was free a moment ago is not; starting again with others will do."""


class Stack:
    """The processes of one stack. Use it in a ``with`` statement, or call `start` and `stop`."""

    def __init__(self, options: Options | None = None) -> None:
        self.options = options or Options()
        self.mark = secrets.token_hex(8)
        self._site: Site | None = None
        self._children: dict[str, Child] = {}
        self._reserved: dict[str, socket.socket] = {}
        self._temporary: list[Path] = []
        self._detector_pid: int | None = None
        self._old_handlers: dict[int, Any] = {}

    # --- life ---------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start every part of the options and wait until each says it is ready.

        Raises:
            StackError: a daemon is missing, or a part did not start; its last log lines are in the
                text, and everything already started has been stopped.
        """
        if self._site is not None:
            raise StackError("this stack is already started; make another one")
        atexit.register(self.stop)
        self._catch_signals()
        try:
            self._start_with_free_ports()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End everything this stack started. It may be called at any time, and again."""
        with _undisturbed():
            atexit.unregister(self.stop)
            self._stop_parts()
            for folder in self._temporary:
                shutil.rmtree(folder, ignore_errors=True)
            self._temporary = []
            self._give_back_signals()

    # --- what is where ------------------------------------------------------------------------

    @property
    def site(self) -> Site:
        """Folder, ports and files of the running stack."""
        if self._site is None:
            raise StackError("the stack is not started")
        return self._site

    @property
    def folder(self) -> Path:
        """Where this stack writes everything."""
        return self.site.folder

    def url(self, part: str) -> str:
        """Base address of ``detector``, ``prometheus``, ``alertmanager`` or ``controller``."""
        return self.site.url(part)

    @property
    def urls(self) -> dict[str, str]:
        """Base addresses of all parts that listen on a port."""
        return {part: self.url(part) for part in PORTS if part in self._shown()}

    def log(self, part: str) -> Path:
        """Log file of a part, ``detector`` included."""
        return self.site.log(part)

    @property
    def supervisor(self) -> Supervisor:
        """Client of this stack's supervisord."""
        return Supervisor(self.site.socket, self.site.secret("supervisor"))

    def pid(self, part: str) -> int:
        """Process id of a part; the detector's as supervisord knows it, or last knew it.

        Raises:
            StackError: it does not run.
        """
        if part == "detector":
            with contextlib.suppress(StackError):
                self._detector_pid = self.supervisor.info(daemons.PROGRAM)["pid"] or None
            pid = self._detector_pid if self._detector_pid in marked(self.mark) else None
        else:
            pid = self._child(part).pid
        if pid is None:
            raise StackError(f"{part} does not run")
        return pid

    @property
    def pids(self) -> dict[str, int]:
        """Process ids of all parts that run, the detector included."""
        found = {}
        for part in self._shown():
            with contextlib.suppress(StackError):
                found[part] = self.pid(part)
        return found

    # --- one part at a time -------------------------------------------------------------------

    def kill(self, part: str, number: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal to a part, as a fault would; returns the process id that got it.

        Raises:
            StackError: it does not run.
        """
        pid = self.pid(part)
        send([pid], number)
        if number == signal.SIGKILL and part != "detector":
            self._child(part).wait(GRACE_S)
        return pid

    def stop_part(self, part: str) -> None:
        """End one part in an orderly way; the ports and files stay its own."""
        if part == "supervisord":
            send(self._offspring(), signal.SIGCONT)
            self._child(part).stop(self.options.detector_stop_s + GRACE_S)
            end_marked(self.mark, GRACE_S, spare=self._own_pids())
        else:
            self._child(part).stop(GRACE_S)

    def start_part(self, part: str) -> None:
        """Start one part on the port it had, and wait until it is ready.

        Raises:
            StackError: it did not start.
        """
        self._child(part).start()
        self._await_ready(part)

    def restart(self, part: str) -> None:
        """Stop and start one part, or the detector through supervisord, and wait until it is ready.

        Raises:
            StackError: it did not start.
        """
        if part == "detector":
            patience = self.options.detector_stop_s + self.options.detector_start_s + GRACE_S
            self.supervisor.restart(daemons.PROGRAM, patience)
            self._await_detector()
        else:
            self.stop_part(part)
            self.start_part(part)

    def wait_ready(self, part: str) -> None:
        """Wait until a part, or ``detector``, answers that it is ready.

        Raises:
            StackError: it does not within the deadline of the options.
        """
        if part == "detector":
            self._await_detector()
        else:
            self._await_ready(part)

    # --- inside -------------------------------------------------------------------------------

    def _shown(self) -> tuple[str, ...]:
        parts = self.options.parts
        return (*parts, "detector") if "supervisord" in parts else parts

    def _child(self, part: str) -> Child:
        try:
            return self._children[part]
        except KeyError:
            raise StackError(f"{part} is not a part of this stack") from None

    def _own_pids(self) -> list[int]:
        return [child.pid for child in self._children.values() if child.pid]

    def _offspring(self) -> list[int]:
        own = self._own_pids()
        return [pid for pid in marked(self.mark) if pid not in own]

    def _start_with_free_ports(self) -> None:
        for attempt in range(1, ATTEMPTS + 1):
            self._prepare()
            try:
                self._start_parts()
            except PortTakenError:
                if attempt == ATTEMPTS:
                    raise
                self._stop_parts()
            else:
                return

    def _prepare(self) -> None:
        """Choose ports and write every file; done again when a port was lost."""
        self._reserved = {part: _reserve() for part in PORTS if part not in self.options.ports}
        free = {part: int(held.getsockname()[1]) for part, held in self._reserved.items()}
        folder = self._site.folder if self._site else self._folder()
        path = folder / "supervisor.sock"
        if len(str(path)) > SOCKET_PATH_LIMIT:
            path = self._temporary_folder() / "supervisor.sock"
        ports = {**free, **self.options.ports}
        self._site = Site(options=self.options, folder=folder, socket=path, ports=ports)
        daemons.write_files(self._site)
        self._children = {
            part: Child(
                daemons.argv(part, self._site),
                log=self._site.log(part),
                mark=self.mark,
                environment=daemons.environment(part, self._site),
            )
            for part in PARTS
            if part in self.options.parts
        }

    def _folder(self) -> Path:
        if self.options.folder is None:
            return self._temporary_folder(keep=self.options.keep)
        self.options.folder.mkdir(parents=True, exist_ok=True)
        return self.options.folder.resolve()

    def _temporary_folder(self, *, keep: bool = False) -> Path:
        folder = Path(tempfile.mkdtemp(prefix="remediator-"))
        if not keep:
            self._temporary.append(folder)
        return folder

    def _start_parts(self) -> None:
        """The detector first: were Prometheus to look before it is up, it would be called dead."""
        for part, child in self._children.items():
            # Held until now, so that nobody gets the port before its owner binds it.
            for name in {"supervisord": ("detector",)}.get(part, (part,)):
                if held := self._reserved.pop(name, None):
                    held.close()
            child.start()
            self._await_ready(part)

    def _stop_parts(self) -> None:
        """The controller first, so that it does not treat what comes next as a fault."""
        send(marked(self.mark), signal.SIGCONT)
        for part in ("controller", "prometheus", "alertmanager"):
            if part in self._children:
                self._children[part].stop(GRACE_S)
        if supervisord := self._children.get("supervisord"):
            supervisord.stop(self.options.detector_stop_s + GRACE_S)
        end_marked(self.mark, GRACE_S)
        for held in self._reserved.values():
            held.close()
        self._reserved = {}

    def _await_ready(self, part: str) -> None:
        if part == "supervisord":
            self._await(part, self.supervisor.running, self._died(part))
            self._await_detector()
        else:
            self._await(part, lambda: self._answers(part, READY[part]), self._died(part))

    def _await_detector(self) -> None:
        def fatal() -> str | None:
            with contextlib.suppress(StackError):
                info = self.supervisor.info(daemons.PROGRAM)
                self._detector_pid = info["pid"] or self._detector_pid
                if info["statename"] == "FATAL":
                    return f"supervisord gave up on it: {info['spawnerr'] or info['description']}"
            return self._died("supervisord")()

        path = self.options.detector_ready
        self._await("detector", lambda: self._answers("detector", path), fatal)

    def _answers(self, part: str, path: str) -> bool:
        """Whether a part says it is ready, and it is our part that says so."""
        if not _ready(self.url(part) + path):
            return False
        return listens(marked(self.mark), self.site.ports[part])

    def _await(self, part: str, ready: Callable[[], bool], fatal: Callable[[], str | None]) -> None:
        end = time.monotonic() + self.options.deadline_s
        why: str | None = None
        while not (why := fatal()) and time.monotonic() < end:
            if wait_until(ready, 0.2):
                return
        why = why or f"it was not ready within {self.options.deadline_s:g} s"
        said = tail(self.log(part))
        kind = PortTakenError if "address already in use" in said.lower() else StackError
        raise kind(f"{part} did not start: {why}. The end of {self.log(part)}:\n{said}")

    def _died(self, part: str) -> Callable[[], str | None]:
        def ask() -> str | None:
            code = self._child(part).exit_code
            return None if code is None else f"it ended with exit code {code}"

        return ask

    def _catch_signals(self) -> None:
        """TERM and HUP become an exception, so that ``with`` and ``finally`` are honoured."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) == signal.SIG_DFL:
                self._old_handlers[number] = signal.signal(number, _leave)

    def _give_back_signals(self) -> None:
        for number, old in self._old_handlers.items():
            with contextlib.suppress(ValueError):  # not the main thread: it was not ours to change
                signal.signal(number, old)
        self._old_handlers = {}


def _leave(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """A second Ctrl-C must not stop the clearing up half-way."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _reserve() -> socket.socket:
    """A free loopback port, held by being bound but not listened on.

    It is drawn from below the range the system hands out by itself, so that between our letting go
    of it and its owner's binding it, which takes a detector seconds, no stranger is given it.

    Raises:
        StackError: no free one was found.
    """
    for _ in range(DRAWS):
        held = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            held.bind(("127.0.0.1", secrets.choice(PORT_RANGE)))
        except OSError:
            held.close()
        else:
            return held
    raise StackError(f"no free port between {PORT_RANGE.start} and {PORT_RANGE.stop}")


def _ready(url: str) -> bool:
    try:
        answer = httpx.get(url, timeout=2.0, trust_env=False, follow_redirects=False)
    except httpx.HTTPError:
        return False
    return answer.status_code == httpx.codes.OK
