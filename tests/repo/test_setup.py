"""The set-up script leaves a machine on which packages behave as before, however it ends.

What it cannot install it names, with the command that would.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ("bash", "cat", "chmod", "cut", "dirname", "env", "flock", "mktemp", "rm", "sha256sum")
PATIENCE_S = 30.0


@dataclass(frozen=True)
class Machine:
    """A checkout whose environment is ready, and a machine without daemons and without a screen.

    Attributes:
        folder: the checkout.
        policy: stands for /usr/sbin/policy-rc.d.
        seen: what the policy said while packages were installed; written by our apt-get.
        gate: apt-get installs until somebody writes to this pipe.
    """

    folder: Path
    policy: Path
    seen: Path
    gate: Path

    def set_up(self, *what: str) -> subprocess.Popen[str]:
        """Begin to set up, in a process group of its own that a signal can reach."""
        return subprocess.Popen(
            ["bash", "scripts/setup.sh", *(what or ("daemons",))],
            cwd=self.folder,
            env={"PATH": str(self.folder / "bin"), "TMPDIR": str(self.folder)},
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # A test run in the background of a shell inherits an interrupt that is ignored, and
            # bash cannot trap what was ignored when it began.
            preexec_fn=_heed_interrupts,  # noqa: PLW1509 - it only sets a signal
        )


def _heed_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path, tmp_path / "policy-rc.d", tmp_path / "seen", tmp_path / "gate")
    for folder in ("scripts", "requirements", "bin", ".venv/bin"):
        (tmp_path / folder).mkdir(parents=True)
    text = (ROOT / "scripts" / "setup.sh").read_text()
    # Neither this machine's policy nor its daemons: its sbin is not ours.
    text = text.replace("/usr/sbin/policy-rc.d", str(made.policy))
    text = text.replace(":/usr/local/sbin:/usr/sbin:/sbin", "")
    text = text.replace("/usr/share/icons", str(tmp_path / "icons"))
    (tmp_path / "scripts" / "setup.sh").write_text(text)
    (tmp_path / "pyproject.toml").write_text("")
    (tmp_path / "requirements" / "lock.txt").write_text("")
    stamp = hashlib.sha256(f"{text}{tmp_path}\n".encode()).hexdigest()
    (tmp_path / ".venv" / "ready").write_text(stamp)
    for tool in (*TOOLS, "tee"):
        (tmp_path / "bin" / tool).symlink_to(str(shutil.which(tool)))
    os.mkfifo(made.gate)
    _script(tmp_path / ".venv" / "bin" / "python", "exit 0")
    _script(tmp_path / "bin" / "id", "echo 0")
    install = (
        f"cat {made.policy} > {made.seen}.new; mv {made.seen}.new {made.seen}; cat {made.gate}"
    )
    _script(tmp_path / "bin" / "apt-get", f'case "$*" in *install*) {install};; esac')
    (tmp_path / "bin" / "mv").symlink_to(str(shutil.which("mv")))
    return made


def _script(path: Path, body: str) -> None:
    path.write_text(f"#!{shutil.which('bash')}\n{body}\n")
    path.chmod(0o755)


def _eventually(ask: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not ask():
        assert time.monotonic() < end
        threading.Event().wait(0.02)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_set_up_that_is_interrupted_lets_packages_start_their_daemons_again(
    machine: Machine, how: signal.Signals
) -> None:
    with machine.set_up() as running:
        _eventually(machine.seen.exists)
        assert machine.seen.read_text() == "#!/bin/sh\nexit 101\n"
        os.killpg(running.pid, how)
        running.communicate(timeout=PATIENCE_S)
    assert running.returncode == 128 + how
    assert not machine.policy.exists()


def test_a_policy_that_was_there_before_stays_as_it_was(machine: Machine) -> None:
    machine.policy.write_text("the owner's own")
    with machine.set_up() as running:
        _eventually(machine.seen.exists)
        os.killpg(running.pid, signal.SIGTERM)
        running.communicate(timeout=PATIENCE_S)
    assert machine.policy.read_text() == "the owner's own"


def test_a_set_up_that_ends_by_itself_takes_the_policy_away(machine: Machine) -> None:
    with machine.set_up() as running:
        _eventually(machine.seen.exists)
        machine.gate.write_text("go on")
        _, said = running.communicate(timeout=PATIENCE_S)
    assert "Missing for the daemons: prometheus prometheus-alertmanager haproxy\n" in said
    assert running.returncode == 1
    assert not machine.policy.exists()


def test_what_a_screen_needs_is_named_with_the_command_that_installs_it(machine: Machine) -> None:
    _script(machine.folder / "bin" / "id", "echo 1000")
    _script(machine.folder / "bin" / "chromium-browser", "exit 0")
    with machine.set_up("screen") as running:
        _, said = running.communicate(timeout=PATIENCE_S)
    assert "Missing for the screen: xvfb xdotool xterm adwaita-icon-theme\n" in said
    assert "sudo apt-get install --no-install-recommends xvfb xdotool xterm adwaita" in said
    assert "make check needs none of them." in said
    assert running.returncode == 1


def test_a_screen_that_is_there_is_left_alone(machine: Machine) -> None:
    for name in ("Xvfb", "xdotool", "xterm", "chromium"):
        _script(machine.folder / "bin" / name, "exit 0")
    (machine.folder / "icons" / "Adwaita" / "cursors").mkdir(parents=True)
    (machine.folder / "icons" / "Adwaita" / "cursors" / "left_ptr").touch()
    with machine.set_up("screen") as running:
        _, said = running.communicate(timeout=PATIENCE_S)
    assert (running.returncode, said) == (0, "")


def test_a_misspelt_wish_is_refused_and_nothing_is_installed(machine: Machine) -> None:
    with machine.set_up("deamons") as running:
        _, said = running.communicate(timeout=PATIENCE_S)
    assert "knows daemons and screen, not 'deamons'" in said
    assert running.returncode == 1
    assert not machine.seen.exists()
