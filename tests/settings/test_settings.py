"""The configuration: what is wrong is said in a line with its place, before anything starts."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from remediator.errors import ConfigurationError
from remediator.model.playbook import Mode
from remediator.settings import Settings, load_settings

FULL = """\
listen: 127.0.0.1:9999
database: sqlite:////var/lib/remediator/journal.db
alertmanager: [http://one:9093, http://two:9093]
lease_s: 12.5
watchdog_within_s: null
targets:
  detector-1:
    url: http://127.0.0.1:7860
    instance: 127.0.0.1:7860
    supervisor: {socket: /run/supervisor.sock, program: "detectors:one"}
"""


def a_file(folder: Path, text: str | bytes) -> Path:
    path = folder / "remediator.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refused(path: Path | None) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(path)
    return str(caught.value)


def test_a_file_is_read_whole(tmp_path: Path) -> None:
    settings = load_settings(a_file(tmp_path, FULL))
    assert (settings.host, settings.port) == ("127.0.0.1", 9999)
    assert settings.pace().lease == timedelta(seconds=12.5)
    assert settings.pace().watchdog_within is None
    supervisor = settings.targets["detector-1"].supervisor
    assert supervisor is not None
    assert supervisor.server_url == "unix:///run/supervisor.sock"


@pytest.mark.parametrize("text", ["", "# nothing but a remark\n", "{}"])
def test_an_empty_file_means_the_defaults(tmp_path: Path, text: str) -> None:
    assert load_settings(a_file(tmp_path, text)) == load_settings(None)


def test_the_environment_wins_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REMEDIATOR_LISTEN", "127.0.0.1:7777")
    monkeypatch.setenv("REMEDIATOR_URL", "http://read-by-the-command-line-only")
    settings = load_settings(a_file(tmp_path, FULL))
    assert settings.port == 7777
    assert settings.lease_s == 12.5


BAD: dict[str, tuple[str | bytes, str]] = {
    "a misspelt name": ("lsten: 127.0.0.1:1", "lsten: Extra inputs"),
    "a misspelt name inside": ("targets: {a: {url: x, tokenfile: y}}", "targets.a.tokenfile"),
    "a name that is a number": ("1: 2", "1: Extra inputs"),
    "a list": ("- 1", "must be a mapping"),
    "a text": ("hello", "must be a mapping"),
    "two of one name": ("listen: a:1\nlisten: a:2", "not YAML"),
    "a tab": ("a:\n\tb: 1", "not YAML"),
    "a tag that runs code": ("!!python/object/apply:os.getcwd []", "not YAML"),
    "bytes that are not UTF-8": (b"listen: \xff", "cannot be read"),
    "a listen address without a port": ("listen: localhost", "listen: "),
    "a port that is none": ("listen: 127.0.0.1:99999", "listen: "),
    "a port that is a word": ("listen: 127.0.0.1:http", "listen: "),
    "no time at all": ("tick_s: 0", "tick_s: "),
    "a time that is not a number": ("lease_s: .nan", "lease_s: "),
    "a time without end": ("retention_s: .inf", "retention_s: "),
    "a time beyond counting": ("max_hold_s: 1.0e+300", "max_hold_s: "),
    "a patience below nothing": ("watchdog_within_s: -1", "watchdog_within_s: "),
    "no supervisor address": ("targets: {a: {url: x, supervisor: {program: p}}}", "exactly one"),
    "two supervisor addresses": (
        "targets: {a: {url: x, supervisor: {program: p, socket: /s, url: http://s}}}",
        "exactly one",
    ),
    "a mode that is none": ("targets: {a: {url: x, mode: careful}}", "targets.a.mode"),
    "a pool without a mode": ("targets: {a: {url: x, pool: p}}\npools: {p: {}}", "pools.p.mode"),
    "a pool that nobody is in": (
        "targets: {a: {url: x, pool: gpus}}\npools: {gpu: {mode: observe}}",
        "'gpu' is the pool of no target; known: gpus",
    ),
    "a target without an address": ("targets: {a: {}}", "targets.a.url"),
    "an endpoint that is no URL": ("endpoints: {a: {url: scaler:80}}", "endpoints.a.url"),
    "a secret in a URL": ("endpoints: {a: {url: 'http://me:pw@h'}}", "token_file"),
    "a query in a URL": ("endpoints: {a: {url: 'http://h/?key=1'}}", "without user, query"),
    "an endpoint no playbook can name": ("endpoints: {A_1: {url: 'http://h'}}", "is not a name"),
    "a program by its short name": ("commands: {a: {argv: [sh]}}", "absolute path"),
    "a program that is not there": ("commands: {a: {argv: [/no/such]}}", "absolute path"),
    "a folder": ("commands: {a: {argv: [/tmp]}}", "absolute path"),
    "a file that is no program": ("commands: {a: {argv: [/etc/passwd]}}", "absolute path"),
    "a program as one text": ("commands: {a: {argv: /bin/sh -c x}}", "commands.a.argv"),
    "no program at all": ("commands: {a: {argv: []}}", "commands.a.argv"),
    "a placeholder for the program": ("commands: {a: {argv: ['{p}']}}", "absolute path"),
    "a placeholder that is no name": ("commands: {a: {argv: [/bin/sh, '{0}']}}", "placeholder"),
    "success as a refusal": ("commands: {a: {argv: [/bin/sh], not_applied_exits: [0]}}", "not_app"),
}


@pytest.mark.parametrize(("text", "said"), BAD.values(), ids=BAD)
def test_what_cannot_work_is_said_with_the_file_and_the_place(
    tmp_path: Path, text: str | bytes, said: str
) -> None:
    path = a_file(tmp_path, text)
    message = refused(path)
    assert message.startswith(f"{path}: ")
    assert said in message


def test_a_playbook_is_checked_against_the_endpoints_and_commands_there_are(
    tmp_path: Path,
) -> None:
    text = """\
endpoints: {scaler: {url: "https://scaler.example/api", token_file: /run/token}}
commands: {flush: {argv: [/bin/sh, "-c", "--q={queue}", "{target}"], not_applied_exits: [75]}}
"""
    known = load_settings(a_file(tmp_path, text)).surroundings()
    assert known.endpoints == {"scaler"}
    assert known.commands == {"flush": {"queue", "target"}}


def test_every_wrong_setting_is_told_at_once(tmp_path: Path) -> None:
    message = refused(a_file(tmp_path, "tick_s: 0\nlisten: x\nlsten: y\n"))
    assert len(message.splitlines()) == 3


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert str(tmp_path / "none.yaml") in refused(tmp_path / "none.yaml")
    assert "cannot be read" in refused(tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [("LISTEN", "nowhere", "listen"), ("TARGETS", "{", "targets"), ("TICK_S", "soon", "tick_s")],
)
def test_a_wrong_variable_is_told_like_a_wrong_line(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    monkeypatch.setenv(f"REMEDIATOR_{name}", value)
    message = refused(None)
    assert message.startswith("the environment: ")
    assert said in message


OWN = ["127.0.0.1:1", "127.9.9.9:1", "localhost:1", "[::1]:1"]
REACHED = ["0.0.0.0:1", "[::]:1", "192.168.0.1:1", "localhost.example.org:1", "127.0.0.1.nip.io:1"]


@pytest.mark.parametrize("listen", OWN + REACHED)
def test_only_an_address_of_this_machine_alone_counts_as_loopback(listen: str) -> None:
    assert Settings(listen=listen).on_loopback is (listen in OWN)


def test_a_target_and_its_pool_may_each_hold_playbooks_to_a_more_careful_mode(
    tmp_path: Path,
) -> None:
    text = """\
targets: {a: {url: x, pool: gpus, mode: propose}, b: {url: y, pool: gpus}, c: {url: z}}
pools: {gpus: {mode: observe}}
"""
    settings = load_settings(a_file(tmp_path, text))
    gpus = {"pools.gpus.mode": Mode.OBSERVE}
    assert settings.caps("a") == {"targets.a.mode": Mode.PROPOSE, **gpus}
    assert settings.caps("b") == {"targets.b.mode": Mode.AUTO, **gpus}
    assert settings.caps("c") == {"targets.c.mode": Mode.AUTO}
