"""What a stack is made of: its options, and where its files and ports are.

The stack and its configuration writers share these values; nothing here starts a process.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from remediator.errors import RemediatorError

PARTS = ("supervisord", "alertmanager", "prometheus", "controller")
"""The processes the stack starts itself, in the order in which they start."""

PORTS = ("detector", "alertmanager", "prometheus", "controller")
"""What listens on a port of its own; supervisord listens on a unix socket."""

USER = "remediator"
"""The user name in supervisord's own access check."""

SOCKET_PATH_LIMIT = 100
"""Bytes; the kernel's limit for the path of a unix socket is 108 with its closing zero."""


class StackError(RemediatorError):
    """A part of the stack is missing, did not start or does not answer; the text says which."""


def shipped(name: str) -> Path:
    """Where ``rules``, ``playbooks`` or ``deploy`` lie: beside the package, in a wheel inside it.

    Raises:
        StackError: neither place has the folder.
    """
    package = Path(__file__).resolve().parents[1]
    checkout = package.parent
    places = [package / "shipped" / name]
    if (checkout / "pyproject.toml").is_file():
        places.insert(0, checkout / name)
    for place in places:
        if place.is_dir():
            return place
    raise StackError(f"this installation has no folder {name!r}; looked at {places[0]}")


@dataclass(frozen=True)
class Options:
    """How a stack differs from what is shipped. The defaults run all of it.

    Attributes:
        parts: which of ``PARTS`` to start.
        scrape_s: Prometheus' scrape and evaluation interval, in seconds.
        scale: every duration in rules, playbooks and Alertmanager's routes is divided by this.
        instance: the detector's name: its ``instance`` label and its name in the inventory.
        detector_command: the program under supervisord; ``{port}`` stands for its port.
        detector_ready: the path of it that answers 200 when it is ready.
        detector_env: further environment variables of it.
        detector_stop_s: seconds between TERM and KILL when supervisord stops it.
        detector_start_s: seconds it must stay up before supervisord calls it RUNNING.
        controller: settings laid over the controller's configuration file; mappings are merged.
        webhook_url: where Alertmanager posts instead of to the controller.
        ports: fixed ports by name of ``PORTS``; what is left out gets a free one.
        rules: folder of rule files instead of the shipped one.
        playbooks: folder of playbooks instead of the shipped one.
        folder: where everything is written, and kept; without it a temporary folder, removed at
            stop.
        keep: leave the temporary folder where it is.
        deadline_s: seconds a part may take until it is ready.
    """

    parts: tuple[str, ...] = PARTS
    scrape_s: float = 1.0
    scale: float = 1.0
    instance: str = "detector-1"
    detector_command: tuple[str, ...] = (
        *(sys.executable, "-m", "detector_service"),
        *("--host", "127.0.0.1", "--port", "{port}"),
    )
    detector_ready: str = "/readyz"
    detector_env: Mapping[str, str] = field(default_factory=dict)
    detector_stop_s: int = 10
    detector_start_s: int = 2
    controller: Mapping[str, Any] = field(default_factory=dict)
    webhook_url: str | None = None
    ports: Mapping[str, int] = field(default_factory=dict)
    rules: Path | None = None
    playbooks: Path | None = None
    folder: Path | None = None
    keep: bool = False
    deadline_s: float = 60.0

    def __post_init__(self) -> None:
        if unknown := set(self.parts) - set(PARTS):
            raise StackError(
                f"no such part: {', '.join(sorted(unknown))}; known: {', '.join(PARTS)}"
            )
        if unknown := set(self.ports) - set(PORTS):
            raise StackError(
                f"no such port: {', '.join(sorted(unknown))}; known: {', '.join(PORTS)}"
            )


@dataclass(frozen=True)
class Site:
    """One stack's folder and ports. Paths are functions of it, so every writer agrees on them."""

    options: Options
    folder: Path
    socket: Path
    ports: Mapping[str, int]

    def url(self, part: str) -> str:
        """Base address of a part that listens on a port."""
        return f"http://127.0.0.1:{self.ports[part]}"

    def address(self, part: str) -> str:
        """``host:port`` of a part."""
        return f"127.0.0.1:{self.ports[part]}"

    def log(self, part: str) -> Path:
        """Log file of a part, the detector included."""
        return self.folder / "logs" / f"{part}.log"

    def config(self, name: str) -> Path:
        """A configuration file the stack wrote."""
        return self.folder / "config" / name

    def secret(self, name: str) -> Path:
        """File with one secret: ``webhook``, ``detector`` or ``supervisor``."""
        return self.folder / "secrets" / f"{name}.token"

    def state(self, part: str) -> Path:
        """Folder in which a part keeps its data."""
        return self.folder / "state" / part
