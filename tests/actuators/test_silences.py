"""The silences of Alertmanager against a server that keeps them, well and badly behaved."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from remediator.actuators.silences import SilencesActuator
from remediator.errors import EffectError, PermanentError, TemporaryError
from remediator.model.effect import Call
from remediator.model.target import Target
from tests.actuators.contract import PLENTY_S, EffectContract
from tests.actuators.server import (
    Behaviour,
    Exchange,
    answer,
    closed_port,
    hang,
    hang_up,
    reset,
    serving,
)

TARGET = Target(name="detector-1")
TAG = "run-7-18f/0"
MATCHERS = [{"name": "alertname", "value": "Slow", "isRegex": False, "isEqual": True}]


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(verify=False) as client:
        yield client


class Keeping:
    """Keeps silences as Alertmanager does: a repeated POST makes a second one."""

    def __init__(self, *kept: dict[str, Any], writes: Behaviour | None = None) -> None:
        self.kept = list(kept)
        self.writes = writes

    async def __call__(self, exchange: Exchange) -> None:
        seen = exchange.seen
        if seen.method != "GET" and self.writes is not None:
            await self.writes(exchange)
        elif seen.method == "GET":
            await answer(200, self.kept)(exchange)
        elif seen.method == "POST":
            made = {"id": f"s{len(self.kept)}", "status": {"state": "active"}, **seen.json()}
            self.kept.append(made)
            await answer(200, {"silenceID": made["id"]})(exchange)
        else:
            name = seen.path.rpartition("/")[2]
            found = [one for one in self.kept if one["id"] == name]
            for one in found:
                one["status"] = {"state": "expired"}
            await answer(200 if found else 404)(exchange)


def silence(name: str, state: str = "active", tag: str = TAG, by: str = "remediator") -> Any:
    return {"id": name, "status": {"state": state}, "comment": f"R7 [{tag}]", "createdBy": by}


def call(verb: str, timeout_s: float = PLENTY_S, tag: str = TAG) -> Call:
    args: dict[str, Any] = {"tag": tag}
    if verb == "silence":
        args |= {
            "matchers": MATCHERS,
            "ends_at": "2026-03-02T12:30:00+00:00",
            "comment": "R7 (hush): wait",
        }
    return Call(verb, args, idempotency_key="r/f/0/0/1", fencing_token=12, timeout_s=timeout_s)


async def send(server: Any, client: httpx.AsyncClient, what: Call) -> Any:
    return await SilencesActuator([server.url], client=client).send(TARGET, what)


class TestSilencesKeepTheContract(EffectContract):
    good = staticmethod(answer(200, {"silenceID": "s1"}))
    refuses_before_applying = False

    async def effect(self, url: str, client: httpx.AsyncClient, timeout_s: float) -> Any:
        actuator = Unguarded([url], client=client)
        return await actuator.send(TARGET, call("silence", timeout_s))


class Unguarded(SilencesActuator):
    """Without the look before, which has tests of its own."""

    async def _tagged(self, tag: str) -> list[str]:
        return []


async def test_a_silence_says_who_made_it_for_which_run_and_until_when(
    client: httpx.AsyncClient,
) -> None:
    async with serving(Keeping()) as server:
        assert await send(server, client, call("silence")) == {"id": "s0"}
    look, seen = server.seen
    assert (look.method, look.path) == ("GET", "/api/v2/silences")
    assert (seen.method, seen.path) == ("POST", "/api/v2/silences")
    assert seen.json() == {
        "matchers": MATCHERS,
        "startsAt": "1970-01-01T00:00:00Z",
        "endsAt": "2026-03-02T12:30:00+00:00",
        "createdBy": "remediator",
        "comment": f"R7 (hush): wait [{TAG}]",
    }


async def test_a_silence_that_is_there_already_is_not_made_again(client: httpx.AsyncClient) -> None:
    async with serving(Keeping()) as server:
        first = await send(server, client, call("silence"))
        again = await send(server, client, call("silence"))
        other = await send(server, client, call("silence", tag="run-7-18f/1"))
    assert again == {**first, "already": True}
    assert other["id"] != first["id"]


@pytest.mark.parametrize(
    "known",
    [
        silence("over", "expired"),
        silence("theirs", by="ann"),
        silence("longer tag", tag=f"{TAG}1"),
        silence("tag in the middle", tag=f"{TAG}] ["),
    ],
    ids=lambda known: known["id"],
)
async def test_what_is_not_this_silence_does_not_count(
    client: httpx.AsyncClient, known: dict[str, Any]
) -> None:
    async with serving(Keeping(known)) as server:
        actuator = SilencesActuator([server.url], client=client)
        assert await actuator.probe(TARGET, call("silence"), {}) is False
        assert "already" not in await actuator.send(TARGET, call("silence"))
        assert (await actuator.send(TARGET, call("expire")))["ended"] != [known["id"]]


async def test_ending_ends_every_silence_of_the_tag_and_no_other(client: httpx.AsyncClient) -> None:
    keeping = Keeping(
        silence("a"), silence("b", "pending"), silence("c", by="ann"), silence("d", tag="x")
    )
    async with serving(keeping) as server:
        assert await send(server, client, call("expire")) == {"ended": ["a", "b"], "already": False}
        assert await send(server, client, call("expire")) == {"ended": [], "already": True}
    states = {one["id"]: one["status"]["state"] for one in keeping.kept}
    assert states == {"a": "expired", "b": "expired", "c": "active", "d": "active"}


async def test_probing_looks_for_the_tag(client: httpx.AsyncClient) -> None:
    async with serving(Keeping(silence("a"))) as server:
        actuator = SilencesActuator([server.url], client=client)
        assert await actuator.probe(TARGET, call("silence"), {}) is True
        assert await actuator.probe(TARGET, call("expire"), {}) is False
        read = await actuator.read(TARGET)
    assert read == {"silences": [{"id": "a", "comment": f"R7 [{TAG}]"}]}


@pytest.mark.parametrize("looks", [answer(500), answer(200, b"[{}]"), hang_up, answer(403)])
async def test_without_a_look_nothing_is_sent(client: httpx.AsyncClient, looks: Behaviour) -> None:
    async with serving(looks) as server:
        actuator = SilencesActuator([server.url], client=client)
        with pytest.raises((TemporaryError, PermanentError)):
            await actuator.send(TARGET, call("silence"))
        assert await actuator.probe(TARGET, call("silence"), {}) is None
    assert {seen.method for seen in server.seen} == {"GET"}


async def test_of_several_peers_those_that_answer_are_enough(client: httpx.AsyncClient) -> None:
    with closed_port() as dead:
        async with serving(Keeping()) as server:
            actuator = SilencesActuator([dead, server.url], client=client)
            assert "id" in await actuator.send(TARGET, call("silence"))
            assert (await actuator.send(TARGET, call("silence")))["already"]
            assert (await actuator.send(TARGET, call("expire")))["ended"] == ["s0"]


@pytest.mark.parametrize("writes", [hang, reset, hang_up, answer(500)])
async def test_a_second_peer_is_not_asked_when_the_first_may_have_done_it(
    client: httpx.AsyncClient, writes: Behaviour
) -> None:
    async with serving(Keeping(writes=writes)) as first, serving(Keeping()) as second:
        actuator = SilencesActuator([first.url, second.url], client=client)
        with pytest.raises(EffectError):
            await actuator.send(TARGET, call("silence", timeout_s=0.3))
    assert [seen.method for seen in second.seen] == ["GET"]


async def test_a_verb_nobody_knows_is_not_sent(client: httpx.AsyncClient) -> None:
    async with serving(Keeping()) as server:
        with pytest.raises(PermanentError, match="silence, expire"):
            await send(server, client, call("set"))
    assert server.seen == []


async def test_words_of_every_script_survive_the_way(client: httpx.AsyncClient) -> None:
    async with serving(Keeping()) as server:
        what = call("silence")
        args = {**what.args, "comment": 'ü "quoted" \\ \n { }'}
        await send(server, client, Call("silence", args))
    assert json.loads(server.seen[-1].body)["comment"].startswith('ü "quoted" \\ \n { }')
