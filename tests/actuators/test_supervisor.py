"""The supervisor actuator against a server that answers XML-RPC, well and badly."""

from __future__ import annotations

import xmlrpc.client
from pathlib import Path
from typing import Any

import httpx
import pytest

from remediator.actuators.supervisor import SupervisorActuator, client_for
from remediator.errors import (
    OutcomeUnknownError,
    PermanentError,
    RefusedError,
    TemporaryError,
)
from remediator.model.effect import Call
from remediator.model.target import Target
from tests.actuators.contract import PLENTY_S, EffectContract
from tests.actuators.server import Behaviour, Exchange, answer, hang, hang_up, serving

TARGET = Target(name="detector-1")


def info(state: str, pid: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "name": "detector",
        "group": "detector",
        "statename": state,
        "pid": pid,
        "start": 1_767_225_600 if pid else 0,
        "stop": 0,
        "exitstatus": 0,
        "spawnerr": "",
        **more,
    }


def value(result: Any) -> Behaviour:
    xml = xmlrpc.client.dumps((result,), methodresponse=True)
    return answer(200, xml.encode())


def fault(code: int, text: str) -> Behaviour:
    return answer(200, xmlrpc.client.dumps(xmlrpc.client.Fault(code, text)).encode())


class Script:
    """Answers each method from its own list, the last answer for ever."""

    def __init__(self, **answers: list[Behaviour]) -> None:
        self.answers = {name: list(list_) for name, list_ in answers.items()}
        self.calls: list[str] = []

    async def __call__(self, exchange: Exchange) -> None:
        _, method = xmlrpc.client.loads(exchange.seen.body.decode())
        name = str(method).removeprefix("supervisor.")
        self.calls.append(name)
        left = self.answers[name]
        await (left.pop(0) if len(left) > 1 else left[0])(exchange)


DONE = value(result=True)
STOPPED = value(info("STOPPED"))
RUNNING = value(info("RUNNING", 77))


async def send(script: Behaviour, verb: str, timeout_s: float = PLENTY_S) -> Any:
    async with serving(script) as server, client_for(server.url) as client:
        actuator = SupervisorActuator("detector", client=client)
        return await actuator.send(TARGET, Call(verb, timeout_s=timeout_s))


async def probe(now: Behaviour, verb: str, before: dict[str, Any]) -> bool | None:
    async with serving(Script(getProcessInfo=[now])) as server, client_for(server.url) as client:
        actuator = SupervisorActuator("detector", client=client, read_timeout_s=0.3)
        return await actuator.probe(TARGET, Call(verb), before)


class TestSupervisorKeepsTheContract(EffectContract):
    good = Script(stopProcess=[DONE], getProcessInfo=[STOPPED])
    refuses_before_applying = False

    async def effect(self, url: str, client: httpx.AsyncClient, timeout_s: float) -> Any:
        client.base_url = httpx.URL(url)
        actuator = SupervisorActuator("detector", client=client)
        return await actuator.send(TARGET, Call("stop", timeout_s=timeout_s))


async def test_stop_returns_only_when_the_program_is_seen_stopped() -> None:
    script = Script(
        stopProcess=[DONE],
        getProcessInfo=[value(info("STOPPING", 77)), value(info("STOPPING", 77)), STOPPED],
    )
    got = await send(script, "stop")
    assert (got["state"], got["pid"], got["already"]) == ("STOPPED", 0, False)
    assert script.calls.count("stopProcess") == 1


async def test_stopping_what_does_not_run_waits_until_it_is_really_gone() -> None:
    script = Script(
        stopProcess=[fault(70, "NOT_RUNNING: detector")],
        getProcessInfo=[value(info("STOPPING", 77)), STOPPED],
    )
    got = await send(script, "stop")
    assert (got["state"], got["already"]) == ("STOPPED", True)


async def test_start_waits_for_a_stop_to_end_because_supervisord_would_ignore_it() -> None:
    script = Script(
        startProcess=[DONE],
        getProcessInfo=[value(info("STOPPING", 5)), STOPPED, value(info("STARTING", 77)), RUNNING],
    )
    got = await send(script, "start")
    assert script.calls[:3] == ["getProcessInfo", "getProcessInfo", "startProcess"]
    assert got == {
        "state": "RUNNING",
        "pid": 77,
        "started_at": "2026-01-01T00:00:00+00:00",
        "stopped_at": None,
        "exitstatus": 0,
        "spawnerr": "",
        "already": False,
    }


async def test_a_start_that_never_got_its_turn_was_not_sent() -> None:
    script = Script(startProcess=[DONE], getProcessInfo=[value(info("STOPPING", 5))])
    with pytest.raises(TemporaryError, match="still stopping"):
        await send(script, "start", timeout_s=0.4)
    assert "startProcess" not in script.calls


async def test_starting_what_runs_is_already_done() -> None:
    script = Script(startProcess=[fault(60, "ALREADY_STARTED: detector")], getProcessInfo=[RUNNING])
    assert (await send(script, "start"))["already"] is True


@pytest.mark.parametrize(
    ("state", "error"),
    [
        ("FATAL", PermanentError),
        ("EXITED", OutcomeUnknownError),
        ("BACKOFF", OutcomeUnknownError),
    ],
)
async def test_a_start_that_fails_tells_what_the_program_last_said(
    state: str, error: type[Exception]
) -> None:
    log = "\n".join(f"line {number}" for number in range(30))
    script = Script(
        startProcess=[DONE],
        getProcessInfo=[STOPPED, value(info(state, spawnerr="Exited too quickly"))],
        readProcessStderrLog=[fault(20, "NO_FILE")],
        readProcessStdoutLog=[value(log)],
    )
    with pytest.raises(error, match="Exited too quickly") as caught:
        await send(script, "start", timeout_s=0.5)
    assert str(caught.value).splitlines()[1:] == log.splitlines()[-10:]
    assert ("goes on trying" in str(caught.value)) == (state == "BACKOFF")


async def test_a_program_that_comes_up_at_the_second_attempt_was_started() -> None:
    dying = value(info("BACKOFF", spawnerr="Exited too quickly"))
    script = Script(startProcess=[DONE], getProcessInfo=[STOPPED, dying, dying, RUNNING])
    got = await send(script, "start")
    assert (got["state"], got["already"]) == ("RUNNING", False)
    assert script.calls.count("startProcess") == 1


async def test_a_spawn_that_failed_is_not_the_end_while_supervisord_goes_on_trying() -> None:
    script = Script(
        startProcess=[fault(50, "SPAWN_ERROR: detector")],
        getProcessInfo=[STOPPED, value(info("BACKOFF", spawnerr="too many files")), RUNNING],
    )
    got = await send(script, "start")
    assert (got["state"], got["already"]) == ("RUNNING", False)


@pytest.mark.parametrize("broken", [hang, hang_up, fault(6, "SHUTDOWN_STATE")])
async def test_a_spawn_that_failed_and_a_supervisord_that_goes_away_is_an_unknown_outcome(
    broken: Behaviour,
) -> None:
    script = Script(
        startProcess=[fault(50, "SPAWN_ERROR: detector")], getProcessInfo=[STOPPED, broken]
    )
    with pytest.raises(OutcomeUnknownError, match="stopped answering"):
        await send(script, "start", timeout_s=0.4)


async def test_a_program_that_can_never_be_spawned_was_not_started() -> None:
    script = Script(
        startProcess=[fault(50, "SPAWN_ERROR: detector")],
        getProcessInfo=[STOPPED, value(info("FATAL", spawnerr="too many files"))],
        readProcessStderrLog=[value("")],
        readProcessStdoutLog=[hang_up],
    )
    with pytest.raises(PermanentError, match="too many files"):
        await send(script, "start")


async def test_a_start_that_somebody_else_undid_is_an_unknown_outcome() -> None:
    script = Script(startProcess=[DONE], getProcessInfo=[STOPPED])
    with pytest.raises(OutcomeUnknownError, match="somebody else stopped it"):
        await send(script, "start")


@pytest.mark.parametrize(("verb", "state"), [("stop", "STOPPING"), ("start", "STARTING")])
async def test_a_wanted_state_that_does_not_come_in_time_is_an_unknown_outcome(
    verb: str, state: str
) -> None:
    script = Script(
        stopProcess=[DONE],
        startProcess=[DONE],
        getProcessInfo=[STOPPED, value(info(state, 77))]
        if verb == "start"
        else [value(info(state, 77))],
    )
    with pytest.raises(OutcomeUnknownError, match=f"is still {state}"):
        await send(script, verb, timeout_s=0.4)


@pytest.mark.parametrize("broken", [hang, hang_up, answer(500), fault(6, "SHUTDOWN_STATE")])
async def test_once_told_a_supervisord_that_goes_away_leaves_an_unknown_outcome(
    broken: Behaviour,
) -> None:
    script = Script(stopProcess=[DONE], getProcessInfo=[broken])
    with pytest.raises(OutcomeUnknownError, match="stopped answering"):
        await send(script, "stop", timeout_s=0.4)


@pytest.mark.parametrize(
    ("behaviour", "error", "words"),
    [
        (fault(6, "SHUTDOWN_STATE"), TemporaryError, "shutting down"),
        (fault(30, "FAILED: no"), RefusedError, "FAILED: no"),
        (fault(1, "UNKNOWN_METHOD"), RefusedError, "UNKNOWN_METHOD"),
    ],
)
async def test_a_fault_is_a_definite_no(
    behaviour: Behaviour, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        await send(Script(stopProcess=[behaviour]), "stop")


@pytest.mark.parametrize("verb", ["stop", "start"])
async def test_a_wrong_name_is_answered_with_the_right_ones(verb: str) -> None:
    known = [info("RUNNING"), info("RUNNING", name="b", group="a")]
    wrong = fault(10, "BAD_NAME: detector")
    script = Script(stopProcess=[wrong], getProcessInfo=[wrong], getAllProcessInfo=[value(known)])
    with pytest.raises(RefusedError, match="it knows detector, a:b") as caught:
        await send(script, verb)
    assert caught.value.reason == "bad_name"


async def test_a_verb_it_does_not_have_is_never_sent() -> None:
    script = Script()
    with pytest.raises(PermanentError, match="it knows stop, start"):
        await send(script, "restart")
    assert script.calls == []


@pytest.mark.parametrize(
    "broken",
    [hang, hang_up, answer(500), answer(200, b"<html/>"), value("words"), value({"pid": 1})],
)
async def test_a_read_that_gives_nothing_may_be_tried_again(broken: Behaviour) -> None:
    async with (
        serving(Script(getProcessInfo=[broken])) as server,
        client_for(server.url) as client,
    ):
        actuator = SupervisorActuator("detector", client=client, read_timeout_s=0.3)
        with pytest.raises(TemporaryError):
            await actuator.read(TARGET)


async def test_a_missing_socket_means_that_nothing_was_sent(tmp_path: Path) -> None:
    async with client_for(f"unix://{tmp_path}/away.sock") as client:
        actuator = SupervisorActuator("detector", client=client)
        for verb in ("stop", "start"):
            with pytest.raises(TemporaryError, match="cannot reach"):
                await actuator.send(TARGET, Call(verb))
        assert await actuator.probe(TARGET, Call("stop"), {"pid": 1}) is None


BEFORE = {"pid": 77, "state": "RUNNING", "started_at": "2026-01-01T00:00:00+00:00"}
DOWN = {"pid": 0, "state": "STOPPED", "started_at": "2026-01-01T00:00:00+00:00"}
NEVER = {"pid": 0, "state": "STOPPED", "started_at": None}
AGO = 1_767_225_600


def ended(state: str, started: int) -> Behaviour:
    return value(info(state, start=started))


@pytest.mark.parametrize(
    ("verb", "before", "now", "applied"),
    [
        ("stop", BEFORE, STOPPED, True),
        ("stop", BEFORE, value(info("RUNNING", 78)), True),
        ("stop", BEFORE, value(info("STOPPING", 77)), True),
        ("stop", BEFORE, RUNNING, False),
        ("start", DOWN, RUNNING, True),
        ("start", BEFORE, value(info("RUNNING", 78)), True),
        ("start", DOWN, ended("STOPPED", AGO), False),
        ("start", NEVER, ended("STOPPED", 0), False),
        ("start", DOWN, ended("EXITED", AGO + 5), True),
        ("start", DOWN, ended("BACKOFF", AGO + 5), True),
        ("start", NEVER, ended("FATAL", AGO), True),
        ("start", DOWN, ended("STOPPED", 0), None),
        ("start", {"error": "away"}, ended("EXITED", AGO), None),
        ("start", BEFORE, RUNNING, None),
        ("start", {"error": "away"}, RUNNING, None),
        ("stop", {"error": "away"}, RUNNING, None),
        ("stop", {"error": "away"}, STOPPED, True),
        ("start", DOWN, hang, None),
        ("stop", BEFORE, hang_up, None),
    ],
    ids=[
        "gone",
        "another pid",
        "on its way",
        "the same pid",
        "up",
        "up anew",
        "down",
        "never up",
        "up and down again",
        "dying",
        "dead",
        "forgotten",
        "down, never seen before",
        "it ran before",
        "up, never seen before",
        "the same or not",
        "gone, never seen before",
        "away",
        "gone away",
    ],
)
async def test_probing_looks_at_the_process_itself(
    *, verb: str, before: dict[str, Any], now: Behaviour, applied: bool | None
) -> None:
    assert await probe(now, verb, before) is applied


async def look(lines: int, **answers: list[Behaviour]) -> Any:
    script = Script(**answers)
    async with serving(script) as server, client_for(server.url) as client:
        actuator = SupervisorActuator("detector", client=client, read_timeout_s=0.5)
        return await actuator.look(TARGET, log_lines=lines), script.calls


async def test_a_look_shows_the_end_of_both_logs() -> None:
    out, err = value("one\ntwo\nthree\n"), value("\x1b[31mOut of memory\n")
    seen, _ = await look(2, readProcessStdoutLog=[out], readProcessStderrLog=[err])
    assert seen == {"stderr": ["[31mOut of memory"], "stdout": ["two", "three"]}


async def test_a_log_that_is_not_there_is_left_out_of_a_look() -> None:
    missing, out = fault(20, "NO_FILE"), value("one\n")
    seen, _ = await look(9, readProcessStderrLog=[missing], readProcessStdoutLog=[out])
    assert seen == {"stdout": ["one"]}


async def test_who_wants_no_lines_asks_for_none() -> None:
    assert await look(0) == ({}, [])


@pytest.mark.parametrize("broken", [hang, hang_up, answer(500), fault(6, "SHUTDOWN_STATE")])
async def test_a_look_at_a_supervisord_that_is_away_may_be_repeated(broken: Behaviour) -> None:
    with pytest.raises(TemporaryError):
        await look(5, readProcessStderrLog=[broken])
