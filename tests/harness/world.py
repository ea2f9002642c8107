"""A whole small world for one controller: target, process manager, facts, wires, configuration.

Everything but the controller's neighbours is real: the detector's own service (with a toy for a
model), a supervisord, SQLite on disk, and controllers as processes. `world` cleans up by process
id, in whatever state things are.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from tests.harness.facts import Facts, facts
from tests.harness.nursery import Controller, Nursery
from tests.harness.relay import Relay, relay
from tests.harness.waiting import free_port, is_alive, until

ROOT = Path(__file__).resolve().parents[2]
INSTANCE = "detector-1:7860"
OPEN = {"acting", "waiting", "rolling_back"}

SUPERVISORD = """
[supervisord]
nodaemon = true
logfile = {folder}/supervisord.log
pidfile = {folder}/supervisord.pid
childlogdir = {folder}
[unix_http_server]
file = {folder}/s.sock
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
[program:detector]
command = {python} -m tests.harness.target {folder}
directory = {root}
autorestart = true
startsecs = 0
stopwaitsecs = 8
redirect_stderr = true
stdout_logfile = {folder}/target.log
"""


@dataclass
class World:
    """One world.

    Attributes:
        folder: where everything of it lies.
        facts: its Prometheus and Alertmanager.
        target_wire: between controller and target.
        process_wire: between controller and supervisord; None without one.
        web: for all questions of the test itself.
        controllers: those that were started.
    """

    folder: Path
    nursery: Nursery
    facts: Facts
    target_wire: Relay
    process_wire: Relay | None
    settings: dict[str, Any]
    web: httpx.Client
    controllers: list[Controller] = field(default_factory=list)

    # -- the controller ---------------------------------------------------------------------------

    def controller(self, number: int = 1, **dying: Any) -> Controller:
        """Start a controller and do not wait for it; `number` says which of several."""
        config = self.folder / f"controller-{number}.yaml"
        if not config.exists():
            listen = {"listen": f"127.0.0.1:{free_port()}"}
            config.write_text(json.dumps(self.settings | listen))
        log = self.folder / f"controller-{number}.log"
        started = self.nursery.start(config, log=log, **dying)
        self.controllers.append(started)
        return started

    def url(self, number: int = 1) -> str:
        """Return where a controller listens."""
        listen = json.loads((self.folder / f"controller-{number}.yaml").read_text())["listen"]
        return f"http://{listen}"

    def serving(self, number: int = 1, **dying: Any) -> Controller:
        """Start a controller and wait until it serves."""
        started = self.controller(number, **dying)
        until(
            lambda: self.ask("/readyz", number) is not None or not started.alive,
            what=f"a serving controller, see {started.log}",
        )
        assert started.alive or dying, started.log.read_text()[-3000:]
        return started

    def ask(self, path: str, number: int = 1) -> Any:
        """Return what the controller answers, or None when it does not."""
        try:
            answer = self.web.get(self.url(number) + path)
        except httpx.HTTPError:
            return None
        return answer.json() if answer.is_success else None

    def post(self, *alerts: dict[str, Any], number: int = 1) -> bool:
        """Post a webhook once; True when it was acknowledged."""
        url = self.url(number) + "/webhooks/alertmanager"
        try:
            return self.web.post(url, json=webhook(alerts)).is_success
        except httpx.HTTPError:
            return False

    def runs(self, number: int = 1, **wanted: str) -> list[dict[str, Any]]:
        """Return all runs with their stories, oldest first."""
        query = "&".join(f"{name}={value}" for name, value in wanted.items())
        found = self.ask(f"/api/v1/runs?limit=500&{query}", number) or []
        stories = [self.ask(f"/api/v1/runs/{run['id']}", number) for run in reversed(found)]
        return [story for story in stories if story is not None]

    def closed(self, number: int = 1, *, within_s: float = 60, **wanted: str) -> dict[str, Any]:
        """Wait until there are runs and all have ended; return the newest."""

        def look() -> dict[str, Any] | None:
            runs = self.runs(number, **wanted)
            return runs[-1] if runs and all(r["state"] not in OPEN for r in runs) else None

        story = until(look, within_s=within_s, what=f"the end of the runs in {self.folder}")
        assert story is not None
        return story

    def decisions(self, number: int = 1) -> list[dict[str, Any]]:
        """Return all decisions, oldest first."""
        return list(reversed(self.ask("/api/v1/decisions?limit=500", number) or []))

    def changes(self) -> list[dict[str, Any]]:
        """Return what runs changed, each once, oldest first."""
        found = {change["id"]: change for run in self.runs() for change in run["changes"]}
        return [found[key] for key in sorted(found)]

    # -- the target -------------------------------------------------------------------------------

    def dial_target(self) -> socket.socket:
        """Connect to the target, wherever it listens now."""
        return socket.create_connection(("127.0.0.1", self.target_port), timeout=5)

    @property
    def target_port(self) -> int:
        """The port of the target's newest start; 0 before the first."""
        told = self.folder / "port"
        return int(told.read_text()) if told.exists() else 0

    def target(self, path: str, method: str = "GET", **more: Any) -> Any:
        """Ask the target directly, past the wire; None when it does not answer."""
        url = f"http://127.0.0.1:{self.target_port}{path}"
        try:
            return self.web.request(method, url, **more).json()
        except (httpx.HTTPError, ValueError):
            return None

    @property
    def ceiling(self) -> int | None:
        """The target's ceiling now; None when it does not answer."""
        settings = self.target("/v1/settings")
        return settings["values"]["max_concurrency"] if settings else None

    @property
    def starts(self) -> list[int]:
        """Process ids of the target, one for each start."""
        told = self.folder / "starts"
        return [int(line) for line in told.read_text().split()] if told.exists() else []


def alert(name: str, *, number: int = 1, firing: bool = True, **labels: str) -> dict[str, Any]:
    """Return one alert as Alertmanager's webhook spells it."""
    now = datetime.now(UTC).isoformat()
    return {
        "status": "firing" if firing else "resolved",
        "labels": {"alertname": name, "instance": INSTANCE, **labels},
        "annotations": {},
        "startsAt": now,
        "endsAt": "0001-01-01T00:00:00Z" if firing else now,
        "generatorURL": "",
        "fingerprint": f"{name.lower()}{number:08x}"[:16],
    }


def listed(told: dict[str, Any]) -> dict[str, Any]:
    """Return a webhook's alert as Alertmanager's own list spells it."""
    quiet: dict[str, Any] = {"state": "active", "silencedBy": [], "inhibitedBy": []}
    return {
        **{k: told[k] for k in ("labels", "annotations", "startsAt", "generatorURL")},
        "fingerprint": told["fingerprint"],
        "updatedAt": datetime.now(UTC).isoformat(),
        "endsAt": told["startsAt"],
        "receivers": [{"name": "remediator"}],
        "status": quiet,
    }


def webhook(alerts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return a payload of version 4."""
    firing = any(a["status"] == "firing" for a in alerts)
    return {
        "version": "4",
        "groupKey": "{}:{}",
        "truncatedAlerts": 0,
        "status": "firing" if firing else "resolved",
        "receiver": "remediator",
        "groupLabels": {},
        "commonLabels": {},
        "commonAnnotations": {},
        "externalURL": "",
        "alerts": list(alerts),
    }


def _settings(folder: Path, facts_url: str, target: dict[str, Any]) -> dict[str, Any]:
    return {
        "database": f"sqlite:///{folder}/journal.db",
        "prometheus": facts_url,
        "alertmanager": [facts_url],
        "playbooks": str(folder / "playbooks"),
        "targets": {"detector-1": target},
        "notify_file": str(folder / "told.jsonl"),
        "tick_s": 0.1,
        "reconcile_s": 0.3,
        "reload_s": 0.3,
        "scrape_s": 0.2,
        "evaluation_s": 0.1,
        "hold_down_s": 0.2,
        "lease_s": 1.5,
        "review_s": 0.2,
        "absent_for_s": 3600,
        "actions": 50,
        "watchdog_within_s": None,
    }


@contextmanager
def world(
    folder: Path,
    nursery: Nursery,
    *playbooks: str,
    supervised: bool = False,
    **settings: Any,
) -> Iterator[World]:
    """Set a world up, with its target serving, and take it down.

    Args:
        folder: made for this world; its path must be short enough for a unix socket.
        nursery: where controllers are started.
        playbooks: their texts.
        supervised: the target runs under a supervisord.
        settings: of the controller, over those that suit most tests.
    """
    (folder / "playbooks").mkdir(parents=True)
    for number, text in enumerate(playbooks):
        (folder / "playbooks" / f"{number}.yaml").write_text(text)
    with ExitStack() as stack:
        served = stack.enter_context(facts())
        # A connection for each request: those on the other side die often.
        limits = httpx.Limits(max_keepalive_connections=0)
        web = stack.enter_context(httpx.Client(timeout=5, trust_env=False, limits=limits))
        made = World(folder, nursery, served, Relay(""), None, {}, web)
        made.target_wire = stack.enter_context(relay(made.dial_target))
        target: dict[str, Any] = {"url": made.target_wire.url, "instance": INSTANCE}
        if supervised:
            made.process_wire = stack.enter_context(relay(lambda: _unix(folder / "s.sock")))
            target["supervisor"] = {"url": made.process_wire.url, "program": "detector"}
        made.settings = _settings(folder, served.url, target) | settings
        stack.enter_context(_target(folder, supervised=supervised))
        stack.callback(_end, made)
        until(lambda: (made.target("/readyz") or {}).get("ready"), what=f"a target in {folder}")
        yield made


def _end(made: World) -> None:
    for controller in made.controllers:
        controller.kill()


def _unix(path: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    try:
        client.connect(str(path))
    except OSError:
        client.close()
        raise
    return client


@contextmanager
def _target(folder: Path, *, supervised: bool) -> Iterator[None]:
    argv = [sys.executable, "-m", "tests.harness.target", str(folder)]
    if supervised:
        configuration = folder / "supervisord.conf"
        text = SUPERVISORD.format(folder=folder, python=sys.executable, root=ROOT)
        configuration.write_text(text)
        argv = [sys.executable, "-m", "supervisor.supervisord", "-c", str(configuration)]
    with (folder / "target.out").open("ab") as said:
        started = subprocess.Popen(argv, cwd=ROOT, stdout=said, stderr=said)
    try:
        yield
    finally:
        # supervisord ends its program before it ends itself.
        started.terminate()
        try:
            started.wait(20)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()
        told = folder / "starts"
        left = [pid for pid in map(int, told.read_text().split()) if is_alive(pid)]
        assert not left, f"processes of the target outlived it: {left}"
