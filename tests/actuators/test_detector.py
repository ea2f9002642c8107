"""The detector actuator against a server that speaks the detector's contract, well and badly."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from remediator.actuators.detector import VERBS, DetectorActuator
from remediator.errors import PermanentError, RefusedError, TemporaryError
from remediator.model.effect import Call
from remediator.model.target import Target
from tests.actuators.contract import PLENTY_S, EffectContract
from tests.actuators.server import (
    Behaviour,
    Exchange,
    answer,
    closed_port,
    cut,
    hang,
    hang_up,
    serving,
)

TARGET = Target(name="detector-1")
LOAD = {"draining": False, "inflight": 3, "queued": 2, "oldest_age_s": 0.5, "owner": None}
WHO = {"owner": "run-1", "reason": "p95 over its objective"}
SET = {"values": {"max_concurrency": 4}, "lease_s": 900, **WHO}


def document(**fields: Any) -> dict[str, Any]:
    return {"generation": 7, "values": {}, "owners": {}, "leases": {}, **fields}


def call(verb: str, args: dict[str, Any], timeout_s: float = PLENTY_S) -> Call:
    return Call(verb, args, idempotency_key="r/f/0/0/1", fencing_token=12, timeout_s=timeout_s)


def paths(answers: dict[str, Behaviour]) -> Behaviour:
    async def behave(exchange: Exchange) -> None:
        await answers[exchange.seen.path](exchange)

    return behave


def state(settings: dict[str, Any], **ready: Any) -> Behaviour:
    status = 200 if ready.get("ready", True) else 503
    return paths(
        {
            "/v1/settings": answer(200, settings),
            "/readyz": answer(status, ready),
            "/v1/drain": answer(200, LOAD),
        }
    )


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(verify=False) as client:
        yield client


class TestDetectorKeepsTheContract(EffectContract):
    good = staticmethod(answer(200, document()))

    async def effect(self, url: str, client: httpx.AsyncClient, timeout_s: float) -> Any:
        return await DetectorActuator(url, client=client).send(TARGET, call("set", SET, timeout_s))


async def test_set_carries_the_key_the_fence_and_the_whole_lease(client: httpx.AsyncClient) -> None:
    args = {**SET, "revert_step": 1, "revert_every_s": 60, "if_generation": 7}
    async with serving(answer(200, document(generation=8))) as server:
        got = await DetectorActuator(server.url + "/", client=client).send(
            TARGET, call("set", args)
        )
    [seen] = server.seen
    assert (seen.method, seen.path) == ("PATCH", "/v1/settings")
    assert seen.headers["idempotency-key"] == "r/f/0/0/1"
    assert seen.headers["x-fencing-token"] == "12"
    assert seen.headers["if-match"] == '"7"'
    assert seen.headers["connection"] == "close"
    assert seen.json() == {name: args[name] for name in args if name != "if_generation"}
    assert got["generation"] == 8


@pytest.mark.parametrize(
    ("verb", "args", "wire", "body"),
    [
        ("release", {"knob": "a/b", **WHO}, ("DELETE", "/v1/leases/a%2Fb"), WHO),
        ("drain", {**WHO, "lease_s": 300}, ("POST", "/v1/drain"), {**WHO, "lease_s": 300}),
        ("undrain", WHO, ("DELETE", "/v1/drain"), WHO),
        ("canary", {}, ("POST", "/v1/canary"), {}),
        ("clear_cache", WHO, ("POST", "/v1/cache/clear"), WHO),
    ],
)
async def test_each_verb_goes_where_the_contract_says(
    client: httpx.AsyncClient,
    verb: str,
    args: dict[str, Any],
    wire: tuple[str, str],
    body: dict[str, Any],
) -> None:
    async with serving(answer(200, {"ok": True})) as server:
        assert await DetectorActuator(server.url, client=client).send(TARGET, call(verb, args)) == {
            "ok": True
        }
    [seen] = server.seen
    assert (seen.method, seen.path) == wire
    assert seen.json() == body
    assert "if-match" not in seen.headers


async def test_without_a_token_file_no_authorization_is_sent(client: httpx.AsyncClient) -> None:
    async with serving(answer(200, {})) as server:
        await DetectorActuator(server.url, client=client).send(TARGET, call("canary", {}))
    assert "authorization" not in server.seen[0].headers


async def test_without_a_key_none_is_sent_because_an_empty_one_is_refused(
    client: httpx.AsyncClient,
) -> None:
    async with serving(answer(200, {})) as server:
        await DetectorActuator(server.url, client=client).send(TARGET, Call("canary"))
    assert "idempotency-key" not in server.seen[0].headers


async def test_a_rotated_token_is_used_by_the_very_next_call(
    client: httpx.AsyncClient, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    async with serving(answer(200, {})) as server:
        actuator = DetectorActuator(server.url, client=client, token_file=token)
        for secret in ("first\n", "second\n"):
            token.write_text(secret)
            await actuator.send(TARGET, call("canary", {}))
    assert [seen.headers["authorization"] for seen in server.seen] == [
        "Bearer first",
        "Bearer second",
    ]


@pytest.mark.parametrize(
    ("content", "error"),
    [(None, TemporaryError), (b" \n", TemporaryError), (b"a\nb", PermanentError)],
    ids=["missing", "empty", "two lines"],
)
async def test_a_bad_token_file_is_named_and_nothing_is_sent(
    client: httpx.AsyncClient, tmp_path: Path, content: bytes | None, error: type[Exception]
) -> None:
    token = tmp_path / "token"
    if content is not None:
        token.write_bytes(content)
    async with serving(answer(200, {})) as server:
        actuator = DetectorActuator(server.url, client=client, token_file=token)
        with pytest.raises(error, match="token"):
            await actuator.send(TARGET, call("canary", {}))
    assert server.seen == []


async def test_a_refusal_keeps_the_reason_and_the_evidence_of_the_detector(
    client: httpx.AsyncClient,
) -> None:
    body = {"error": "pinned by ann", "reason": "pinned", "knob": "max_concurrency", "owner": "ann"}
    async with serving(answer(409, body)) as server:
        with pytest.raises(RefusedError, match="pinned by ann") as caught:
            await DetectorActuator(server.url, client=client).send(TARGET, call("set", SET))
    assert caught.value.reason == "pinned"
    assert caught.value.detail["owner"] == "ann"


async def test_releasing_what_is_not_leased_is_already_done(client: httpx.AsyncClient) -> None:
    body = {"error": "not leased", "reason": "no_lease"}
    async with serving(answer(404, body)) as server:
        got = await DetectorActuator(server.url, client=client).send(
            TARGET, call("release", {"knob": "imgsz", **WHO})
        )
    assert got == {"already": True}


@pytest.mark.parametrize(
    ("verb", "args", "words"),
    [
        ("explode", {}, "it knows set, release, drain, undrain, canary"),
        ("set", {"values": {}, **WHO}, "needs lease_s"),
        ("drain", {**WHO, "lease_s": 1, "knob": "x"}, "does not know knob"),
        ("set", {**SET, "values": {"conf_threshold": float("nan")}}, "cannot be sent"),
        ("set", {**SET, "values": {"conf_threshold": object()}}, "cannot be sent"),
    ],
)
async def test_a_call_that_makes_no_sense_is_permanent_and_never_sent(
    client: httpx.AsyncClient, verb: str, args: dict[str, Any], words: str
) -> None:
    async with serving(answer(200, {})) as server:
        with pytest.raises(PermanentError, match=words):
            await DetectorActuator(server.url, client=client).send(TARGET, call(verb, args))
    assert server.seen == []


async def test_reading_merges_the_settings_the_readiness_and_the_load(
    client: httpx.AsyncClient,
) -> None:
    async with serving(state(document(), ready=False, draining=True)) as server:
        got = await DetectorActuator(server.url, client=client).read(TARGET)
    assert got["settings"] == document()
    assert got["ready"] == {
        "ready": False,
        "draining": True,
        "inflight": 3,
        "queued": 2,
        "oldest_age_s": 0.5,
    }


@pytest.mark.parametrize(
    "broken",
    [hang, hang_up, cut(200), answer(500), answer(503, b"busy"), answer(200, b"[]")],
    ids=["hangs", "hangs up", "cut", "500", "503 text", "a list"],
)
@pytest.mark.parametrize("where", ["/v1/settings", "/readyz", "/v1/drain"])
async def test_half_a_read_is_no_read(
    client: httpx.AsyncClient, where: str, broken: Behaviour
) -> None:
    good = {
        "/v1/settings": answer(200, document()),
        "/readyz": answer(200, {"ready": True}),
        "/v1/drain": answer(200, LOAD),
    }
    async with serving(paths({**good, where: broken})) as server:
        actuator = DetectorActuator(server.url, client=client, read_timeout_s=0.3)
        with pytest.raises(TemporaryError):
            await actuator.read(TARGET)


def held(value: float, owner: str = "run-1", until: str = "2026-01-01T00:15:00.000Z") -> Any:
    lease = {"owner": owner, "value": value, "expires_at": until, "state": "held"}
    return document(
        values={"max_concurrency": value},
        owners={"max_concurrency": owner},
        leases={"max_concurrency": lease},
    )


EARLIER = "2026-01-01T00:10:00.000Z"
FREE = document(values={"max_concurrency": 10}, owners={"max_concurrency": "configuration"})


@pytest.mark.parametrize(
    ("before", "now", "applied"),
    [
        (FREE, held(4), True),
        (FREE, FREE, False),
        (FREE, held(4, owner="run-2"), False),
        (FREE, held(6), False),
        (held(4, until=EARLIER), held(4), True),
        (held(4), held(4), False),
    ],
    ids=["it is there", "untouched", "somebody else's", "another value", "renewed", "not renewed"],
)
async def test_probing_a_set_looks_for_our_value_under_our_name(
    client: httpx.AsyncClient, *, before: Any, now: Any, applied: bool
) -> None:
    async with serving(state(now, ready=True)) as server:
        actuator = DetectorActuator(server.url, client=client)
        assert await actuator.probe(TARGET, call("set", SET), {"settings": before}) is applied


@pytest.mark.parametrize(
    ("lease", "applied"), [(FREE, True), (held(4, owner="run-2"), True), (held(4), False)]
)
async def test_probing_a_release_looks_for_our_lease(
    client: httpx.AsyncClient, *, lease: Any, applied: bool
) -> None:
    async with serving(state(lease)) as server:
        actuator = DetectorActuator(server.url, client=client)
        release = call("release", {"knob": "max_concurrency", **WHO})
        assert await actuator.probe(TARGET, release, {}) is applied


@pytest.mark.parametrize(
    ("drain", "drained"),
    [
        ({"draining": True, "owner": "run-1"}, True),
        ({"draining": True, "owner": "ann"}, False),
        ({"draining": False, "owner": None}, False),
    ],
    ids=["by us", "by somebody else", "not at all"],
)
async def test_probing_a_drain_looks_for_our_drain(
    client: httpx.AsyncClient, *, drain: dict[str, Any], drained: bool
) -> None:
    async with serving(paths({"/v1/drain": answer(200, drain)})) as server:
        actuator = DetectorActuator(server.url, client=client)
        assert await actuator.probe(TARGET, call("drain", WHO), {}) is drained
        assert await actuator.probe(TARGET, call("undrain", WHO), {}) is not drained


@pytest.mark.parametrize(("verb", "args"), [("canary", {}), ("clear_cache", WHO)])
async def test_what_leaves_no_trace_may_always_be_done_again(
    client: httpx.AsyncClient, verb: str, args: dict[str, Any]
) -> None:
    with closed_port() as url:
        actuator = DetectorActuator(url, client=client)
        assert await actuator.probe(TARGET, call(verb, args), {}) is False


@pytest.mark.parametrize("verb", sorted(VERBS.keys() - {"canary", "clear_cache"}))
async def test_nothing_can_be_told_of_a_detector_that_is_away(
    client: httpx.AsyncClient, verb: str
) -> None:
    with closed_port() as url:
        actuator = DetectorActuator(url, client=client)
        assert await actuator.probe(TARGET, call(verb, SET), {}) is None
