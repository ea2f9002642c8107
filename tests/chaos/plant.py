"""Many emulated targets in one HTTP server: settings documents, and a supervisord's XML-RPC.

Used by `harness`. Nothing here is a real service: `/d/NAME/...` keeps a settings document by the
rules of docs/detector.md (leases, keys, fencing tokens, drain), and `/RPC2` stops and starts
programs as supervisord would, each with a process id and a start in whole seconds. The surprise:
stops and starts are counted here, where they arrive and where they take effect, never where they
are sent; so what the controller believes cannot hide a restart done twice.
"""

from __future__ import annotations

import itertools
import json
import random
import re
import socket
import struct
import threading
import time
import xmlrpc.client
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KNOB = "max_concurrency"
BASE = 10


class Fate(Enum):
    """What becomes of one request."""

    PASS = "passes"
    SLOW = "is answered late, and in time"
    HANG = "never takes effect, and is never answered"
    CUT = "is reset before it takes effect"
    CUT_ANSWER = "takes effect, and its answer is lost"
    LATE = "takes effect when the caller has long given up"
    BUSY = "is refused with 503"


@dataclass
class Lease:
    """A value over the base."""

    owner: str
    value: float
    until: float


@dataclass
class Emulated:
    """One target: its program and its settings.

    Attributes:
        sick: it runs and is of no use (`up` is 0) until it is started anew.
        mute: it also answers no request.
        arrived: `stop` and `start` calls received.
        applied: those that changed something.
    """

    name: str
    pids: Iterator[int]
    running: bool = True
    sick: bool = False
    mute: bool = False
    loaded: bool = False
    pid: int = 0
    started: int = 0
    stopped: int = 0
    draining: bool = False
    generation: int = 1
    token: int = 0
    leases: dict[str, Lease] = field(default_factory=dict)
    replies: dict[str, dict[str, Any]] = field(default_factory=dict)
    arrived: Counter[str] = field(default_factory=Counter)
    applied: Counter[str] = field(default_factory=Counter)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        self.pid, self.started = next(self.pids), int(time.time()) - 3600

    # -- what Prometheus would say ---------------------------------------------------------------

    @property
    def up(self) -> int:
        """Say whether it is of use."""
        return int(self.running and not self.sick)

    @property
    def ceiling(self) -> float:
        """The value in force."""
        with self.lock:
            self._lapse()
            lease = self.leases.get(KNOB)
            return lease.value if lease else BASE

    @property
    def p95(self) -> float:
        """Slow while it is loaded and lets everybody in."""
        return 0.5 if self.loaded and self.ceiling > BASE / 2 else 0.1

    # -- the program -----------------------------------------------------------------------------

    def stop(self) -> bool:
        """Stop it; False when it was stopped already."""
        with self.lock:
            if not self.running:
                return False
            self.running, self.stopped = False, int(time.time())
            self.applied["stop"] += 1
            return True

    def start(self) -> bool:
        """Start it; False when it runs already."""
        with self.lock:
            if self.running:
                return False
            self.running, self.sick, self.mute = True, False, False
            self.pid, self.started = next(self.pids), int(time.time())
            self.applied["start"] += 1
            return True

    def mended_by_hand(self) -> None:
        """Do what a person does who was told."""
        with self.lock:
            self.running, self.sick, self.mute, self.draining = True, False, False, False
            self.pid, self.started = next(self.pids), int(time.time())

    def info(self) -> dict[str, Any]:
        """Describe it as `supervisor.getProcessInfo` does."""
        return {
            "name": self.name,
            "group": self.name,
            "statename": "RUNNING" if self.running else "STOPPED",
            "pid": self.pid if self.running else 0,
            "start": self.started,
            "stop": self.stopped,
            "exitstatus": 0,
            "spawnerr": "",
        }

    # -- the settings ----------------------------------------------------------------------------

    def _lapse(self) -> None:
        for knob, lease in list(self.leases.items()):
            if time.time() >= lease.until:
                del self.leases[knob]
                self.generation += 1

    def document(self) -> dict[str, Any]:
        """Return the settings document."""
        with self.lock:
            self._lapse()
            return {
                "generation": self.generation,
                "values": {KNOB: self.ceiling},
                "base": {KNOB: BASE},
                "owners": {knob: lease.owner for knob, lease in self.leases.items()},
                "leases": {
                    knob: {
                        "owner": lease.owner,
                        "value": lease.value,
                        "base": BASE,
                        "expires_at": datetime.fromtimestamp(lease.until, UTC).isoformat(),
                    }
                    for knob, lease in self.leases.items()
                },
                "pins": {},
                "effective": {KNOB: True},
            }

    def change(
        self, method: str, path: str, headers: dict[str, str], body: dict[str, Any]
    ) -> tuple[int, dict[str, Any]]:
        """Carry out one changing call, once for each key and never for an old token."""
        with self.lock:
            self._lapse()
            key, token = headers.get("idempotency-key", ""), int(headers["x-fencing-token"])
            if key in self.replies:
                return 200, self.replies[key]
            if token < self.token:
                return 409, {"reason": "fencing", "error": f"{token} is older than {self.token}"}
            wanted = headers.get("if-match", "").strip('"')
            if wanted and int(wanted) != self.generation:
                return 412, {"reason": "generation", "error": f"it is {self.generation} now"}
            self.token = token
            status, answer = self._carry_out(method, path, body)
            if key and status == 200:
                self.replies[key] = answer
            return status, answer

    def _carry_out(
        self, method: str, path: str, body: dict[str, Any]
    ) -> tuple[int, dict[str, Any]]:
        match method, path:
            case "PATCH", "/v1/settings":
                until = time.time() + body["lease_s"]
                for knob, value in body["values"].items():
                    self.leases[knob] = Lease(body["owner"], value, until)
                self.generation += 1
            case "DELETE", "/v1/leases/max_concurrency":
                if self.leases.pop(KNOB, None) is None:
                    return 404, {"reason": "no_lease", "error": "nothing is leased"}
                self.generation += 1
            case (("POST" | "DELETE"), "/v1/drain"):
                self.draining = method == "POST"
            case "POST", "/v1/canary":
                return 200, {"ok": not self.sick, "iou": 1.0, "seconds": 0.01}
            case _:
                return 404, {"reason": "unknown", "error": f"{method} {path}"}
        return 200, {"generation": self.generation}


Meddle = Callable[[str], Fate]


@dataclass
class Plant:
    """All targets, and what is done to requests about them.

    Attributes:
        meddle: decides what becomes of a request; it gets the verb, `read` for questions.
    """

    url: str
    targets: dict[str, Emulated]
    meddle: Meddle = field(default=lambda _verb: Fate.PASS)
    fates: Counter[Fate] = field(default_factory=Counter)
    closing: threading.Event = field(default_factory=threading.Event)
    late: list[threading.Timer] = field(default_factory=list)

    def value(self, query: str) -> float:
        """Answer the two queries of the playbooks."""
        target = self.targets[query.partition('instance="')[2].partition('"')[0]]
        return target.up if query.startswith("up") else target.p95

    def rpc(self, body: bytes) -> bytes:
        """Answer one XML-RPC call."""
        params, method = xmlrpc.client.loads(body.decode())
        target = self.targets[str(params[0])]
        value: Any = True
        match str(method).removeprefix("supervisor."):
            case "getProcessInfo":
                value = target.info()
            case "stopProcess":
                value = target.stop() or xmlrpc.client.Fault(70, f"NOT_RUNNING: {target.name}")
            case "startProcess":
                value = target.start() or xmlrpc.client.Fault(60, f"ALREADY_STARTED: {target.name}")
            case _:
                value = ""
        told = value if isinstance(value, xmlrpc.client.Fault) else (value,)
        return xmlrpc.client.dumps(told, methodresponse=True).encode()


VERBS = {
    ("PATCH", "/v1/settings"): "set",
    ("DELETE", "/v1/leases/max_concurrency"): "release",
    ("POST", "/v1/drain"): "drain",
    ("DELETE", "/v1/drain"): "undrain",
    ("POST", "/v1/canary"): "canary",
}
RPC_VERB = re.compile(rb"<methodName>supervisor\.(stop|start)Process")
RPC_PROGRAM = re.compile(rb"<string>([^<]+)</string>")


class _Requests(BaseHTTPRequestHandler):
    plant: Plant

    def _any(self) -> None:
        length = int(self.headers.get("Content-Length", "0"))
        body = self.rfile.read(length)
        verb, reply = self._service(body)
        fate = self.plant.meddle(verb)
        self.plant.fates[fate] += 1
        if fate is Fate.SLOW:
            self.plant.closing.wait(0.3)
        if fate is Fate.HANG:
            self.plant.closing.wait(4.0)
        if fate is Fate.LATE:
            late = threading.Timer(2.5, reply)
            self.plant.late.append(late)
            late.start()
            self.plant.closing.wait(4.0)
        if fate is Fate.BUSY:
            self._send(503, b'{"error": "busy"}')
            return
        told = reply() if fate in {Fate.PASS, Fate.SLOW, Fate.CUT_ANSWER} else None
        if told is None or fate is Fate.CUT_ANSWER:
            self._reset()
            return
        self._send(*told)

    do_GET = do_POST = do_PATCH = do_DELETE = _any  # noqa: N815 - http.server's names

    def _service(self, body: bytes) -> tuple[str, Callable[[], tuple[int, bytes] | None]]:
        """Return the verb, and what carries it out; that gives None when nobody answers."""
        plant = self.plant
        if self.path == "/RPC2":
            found, program = RPC_VERB.search(body), RPC_PROGRAM.search(body)
            verb = found[1].decode() if found else "read"
            if found and program:
                plant.targets[program[1].decode()].arrived[verb] += 1
            return verb, lambda: (200, plant.rpc(body))
        _, _, name, rest = self.path.split("/", 3)
        target, path = plant.targets[name], f"/{rest}"
        verb = VERBS.get((self.command, path), "read")

        def reply() -> tuple[int, bytes] | None:
            if target.mute or not target.running:
                return None
            status, answer = 200, self._read(target, path)
            if verb != "read":
                headers = {name.lower(): value for name, value in self.headers.items()}
                status, answer = target.change(
                    self.command, path, headers, json.loads(body or b"{}")
                )
            return status, json.dumps(answer).encode()

        return verb, reply

    def _read(self, target: Emulated, path: str) -> dict[str, Any]:
        if path == "/readyz":
            return {"loaded": True, "warm": True, "draining": target.draining, "ready": True}
        if path == "/v1/drain":
            load = {"inflight": 0, "queued": 0, "oldest_age_s": 0.0}
            return {"draining": target.draining, "owner": "remediator", **load}
        return target.document()

    def _send(self, status: int, body: bytes) -> None:
        try:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        except OSError:
            self.close_connection = True  # whoever asked was killed meanwhile

    def _reset(self) -> None:
        # Lingering for no time makes the close a reset.
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def finish(self) -> None:
        try:
            super().finish()
        except OSError:
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of connections whose other end was killed."""


@contextmanager
def plant(names: list[str]) -> Iterator[Plant]:
    """Serve these targets on a free port until the block ends."""
    server = _Server(("127.0.0.1", 0), _Requests)
    pids = itertools.count(1000)
    made = Plant(
        url=f"http://127.0.0.1:{server.server_address[1]}",
        targets={name: Emulated(name, pids) for name in names},
    )
    server.RequestHandlerClass = type("_Bound", (_Requests,), {"plant": made})
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield made
    finally:
        made.closing.set()
        for late in made.late:
            late.cancel()
        server.shutdown()
        thread.join()
        server.server_close()


def storm(seed: int, *, late_restarts: bool) -> Meddle:
    """Return fates at random: most pass, about one call in six does not.

    Args:
        seed: of the fates; which request meets which is a matter of time all the same.
        late_restarts: whether a stop or a start may take effect after its caller gave up. Nobody
            can look and know that it never will, so `on_unknown: probe` must not be used there.
    """
    rng, lock = random.Random(seed), threading.Lock()
    trouble = [Fate.SLOW, Fate.SLOW, Fate.HANG, Fate.CUT, Fate.CUT_ANSWER, Fate.CUT_ANSWER]

    def meddle(verb: str) -> Fate:
        with lock:
            if rng.random() > (0.03 if verb == "read" else 0.17):
                return Fate.PASS
            restarts = verb in {"stop", "start"}
            more = [] if restarts and not late_restarts else [Fate.LATE]
            # Only the settings promise that a 503 comes before anything is applied.
            return rng.choice(trouble + more + ([] if restarts else [Fate.BUSY]))

    return meddle
