"""The supervisor actuator against a real supervisord with programs that misbehave."""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from remediator.actuators.supervisor import SupervisorActuator, client_for
from remediator.errors import (
    EffectError,
    OutcomeUnknownError,
    PermanentError,
    RefusedError,
    TemporaryError,
)
from remediator.model.effect import Call
from remediator.model.target import Target

pytestmark = pytest.mark.real

TARGET = Target(name="detector-1")
PASSWORD = "correct horse"
DIGEST = hashlib.sha1(PASSWORD.encode()).hexdigest()
SLEEPER = "import time; time.sleep(600)"
STUBBORN = (
    "import pathlib, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    " pathlib.Path('deaf').touch(); time.sleep(600)"
)
DYING = "import sys; print('starting'); sys.exit('no weights found')"

CONFIGURATION = """
[supervisord]
nodaemon = true
logfile = {folder}/supervisord.log
pidfile = {folder}/supervisord.pid
childlogdir = {folder}
[unix_http_server]
file = {folder}/s.sock
username = remediator
password = {{SHA}}{digest}
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
"""

COLOURFUL = (
    "import sys; print(chr(27) + '[31mred' + chr(27) + '[0m ' + chr(0x2588) * 4000, flush=True);"
    " sys.exit(1)"
)
PROGRAM = """
[program:{name}]
command = {python} -c "{code}"
directory = {folder}
autostart = false
autorestart = false
startsecs = {startsecs}
startretries = 0
stopwaitsecs = 1
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Run a supervisord in a folder; it and its programs are gone afterwards."""
    text = CONFIGURATION.format(folder=tmp_path, digest=DIGEST)
    for name, code, startsecs in (
        ("sleeper", SLEEPER, 0),
        ("slow", SLEEPER, 2),
        ("stubborn", STUBBORN, 0),
        ("dying", DYING, 1),
        ("colourful", COLOURFUL, 1),
    ):
        text += PROGRAM.format(
            name=name, code=code, startsecs=startsecs, python=sys.executable, folder=tmp_path
        )
    text += "\n[program:missing]\ncommand = /no/such/program\nautostart = false\n"
    configuration = tmp_path / "supervisord.conf"
    configuration.write_text(text)
    (tmp_path / "password").write_text(PASSWORD + "\n")
    with (tmp_path / "output").open("wb") as output:
        daemon = subprocess.Popen(
            [sys.executable, "-m", "supervisor.supervisord", "-c", str(configuration)],
            stdout=output,
            stderr=output,
        )
        try:
            yield tmp_path
        finally:
            daemon.terminate()
            daemon.wait(30)


@pytest.fixture
async def client(folder: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with client_for(f"unix://{folder}/s.sock") as client:
        await answers(actuator("sleeper", client, folder))
        yield client


def actuator(program: str, client: httpx.AsyncClient, folder: Path) -> SupervisorActuator:
    return SupervisorActuator(
        program, client=client, username="remediator", password_file=folder / "password"
    )


async def answers(one: SupervisorActuator) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                await one.read(TARGET)
            except TemporaryError:
                await asyncio.sleep(0.05)
            else:
                return


async def appears(path: Path) -> None:
    async with asyncio.timeout(30):
        while not path.exists():  # noqa: ASYNC110, ASYNC240 - another process makes it
            await asyncio.sleep(0.05)


async def test_stop_and_start_make_a_new_process(client: httpx.AsyncClient, folder: Path) -> None:
    one = actuator("sleeper", client, folder)
    first = await one.send(TARGET, Call("start"))
    assert (first["state"], first["already"]) == ("RUNNING", False)
    assert (await one.send(TARGET, Call("start")))["already"] is True
    before = await one.read(TARGET)
    assert await one.probe(TARGET, Call("stop"), before) is False

    stopped = await one.send(TARGET, Call("stop"))
    assert (stopped["state"], stopped["pid"], stopped["already"]) == ("STOPPED", 0, False)
    assert (await one.send(TARGET, Call("stop")))["already"] is True
    assert await one.probe(TARGET, Call("stop"), before) is True
    down = await one.read(TARGET)
    assert await one.probe(TARGET, Call("start"), down) is False

    second = await one.send(TARGET, Call("start"))
    assert second["pid"] not in {0, first["pid"]}
    assert await one.probe(TARGET, Call("start"), down) is True


async def test_a_slow_start_is_waited_for(client: httpx.AsyncClient, folder: Path) -> None:
    one = actuator("slow", client, folder)
    with pytest.raises(OutcomeUnknownError, match="still STARTING"):
        await one.send(TARGET, Call("start", timeout_s=0.5))
    got = await one.send(TARGET, Call("start", timeout_s=30))
    assert (got["state"], got["already"]) == ("RUNNING", True)


async def test_a_program_that_ignores_term_is_waited_for_until_it_is_killed(
    client: httpx.AsyncClient, folder: Path
) -> None:
    one = actuator("stubborn", client, folder)
    await one.send(TARGET, Call("start"))
    await appears(folder / "deaf")
    with pytest.raises(OutcomeUnknownError, match="still STOPPING"):
        await one.send(TARGET, Call("stop", timeout_s=0.3))
    # A start in the middle of the stop waits for it; supervisord alone would do nothing.
    got = await one.send(TARGET, Call("start", timeout_s=30))
    assert (got["state"], got["already"]) == ("RUNNING", False)
    assert (await one.send(TARGET, Call("stop", timeout_s=30)))["state"] == "STOPPED"


async def test_a_program_that_dies_at_once_tells_why(
    client: httpx.AsyncClient, folder: Path
) -> None:
    one = actuator("dying", client, folder)
    with pytest.raises(PermanentError, match="no weights found"):
        await one.send(TARGET, Call("start", timeout_s=30))


async def test_a_program_that_does_not_exist_is_a_refusal(
    client: httpx.AsyncClient, folder: Path
) -> None:
    with pytest.raises(RefusedError, match="/no/such/program") as caught:
        await actuator("missing", client, folder).send(TARGET, Call("start"))
    assert caught.value.reason == "no_file"


async def test_an_unknown_program_is_answered_with_the_known_ones(
    client: httpx.AsyncClient, folder: Path
) -> None:
    one = actuator("detector", client, folder)
    for attempt in (one.read(TARGET), one.send(TARGET, Call("stop"))):
        with pytest.raises(RefusedError, match=r"it knows .*sleeper.*stubborn"):
            await attempt


async def test_a_wrong_password_is_a_refusal_and_is_read_anew_each_time(
    client: httpx.AsyncClient, folder: Path
) -> None:
    one = actuator("sleeper", client, folder)
    (folder / "password").write_text("wrong")
    with pytest.raises(RefusedError) as caught:
        await one.send(TARGET, Call("stop"))
    assert caught.value.reason == "unauthorized"
    (folder / "password").write_text(PASSWORD)
    assert (await one.read(TARGET))["state"] == "STOPPED"


async def test_many_calls_at_once_do_not_disturb_each_other(
    client: httpx.AsyncClient, folder: Path
) -> None:
    one = actuator("sleeper", client, folder)
    outcomes = await asyncio.gather(
        *(one.send(TARGET, Call("start")) for _ in range(20)), return_exceptions=True
    )
    assert not [outcome for outcome in outcomes if isinstance(outcome, EffectError)]
    assert len({outcome["pid"] for outcome in outcomes if not isinstance(outcome, Exception)}) == 1


async def test_a_look_shows_what_a_dead_program_said_last(
    client: httpx.AsyncClient, folder: Path
) -> None:
    one = actuator("dying", client, folder)
    with pytest.raises(EffectError):
        await one.send(TARGET, Call("start", timeout_s=20))
    assert await one.look(TARGET, log_lines=5) == {
        "stderr": ["no weights found"],
        "stdout": ["starting"],
    }
    never = actuator("sleeper", client, folder)
    assert await never.look(TARGET, log_lines=5) in ({}, {"stderr": [], "stdout": []})


@pytest.mark.parametrize("lines", [1, 2, 3, 4, 5])
async def test_a_look_survives_colours_and_a_cut_in_the_middle_of_a_letter(
    client: httpx.AsyncClient, folder: Path, lines: int
) -> None:
    one = actuator("colourful", client, folder)
    with pytest.raises(EffectError):
        await one.send(TARGET, Call("start", timeout_s=20))
    [last] = (await one.look(TARGET, log_lines=lines))["stdout"]
    assert set(last) == {chr(0x2588)}
