"""The endpoints of the configuration against a real server, well and badly behaved."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from remediator.actuators.endpoints import Endpoint, EndpointsActuator
from remediator.errors import PermanentError, TemporaryError
from remediator.model.effect import Call
from remediator.model.target import Target
from tests.actuators.contract import PLENTY_S, EffectContract
from tests.actuators.server import Behaviour, answer, cut, flood, serving

TARGET = Target(name="detector-1")


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(verify=False) as client:
        yield client


def a_call(timeout_s: float = PLENTY_S, verb: str = "call", **args: Any) -> Call:
    wanted = {"endpoint": "scaler", "method": "POST", "path": "", "body": None, **args}
    return Call(verb, wanted, idempotency_key="r/f/0/0/1", fencing_token=12, timeout_s=timeout_s)


async def send(endpoint: Endpoint, call: Call, client: httpx.AsyncClient) -> Any:
    return await EndpointsActuator({"scaler": endpoint}, client=client).send(TARGET, call)


class TestEndpointsKeepTheContract(EffectContract):
    good = staticmethod(answer(200, {"ok": True}))
    refuses_before_applying = False

    async def effect(self, url: str, client: httpx.AsyncClient, timeout_s: float) -> Any:
        return await send(Endpoint(url), a_call(timeout_s, body={"by": 1}), client)

    # Any whole 2xx is a success, whatever its body; one that breaks off may be anybody's.
    @pytest.mark.parametrize("behaviour", [cut(200)], ids=["cut"])
    async def test_a_success_that_cannot_be_read_is_an_unknown_outcome(
        self, client: httpx.AsyncClient, behaviour: Behaviour
    ) -> None:
        await super().test_a_success_that_cannot_be_read_is_an_unknown_outcome(client, behaviour)


async def test_a_success_without_end_is_cut_and_still_one(client: httpx.AsyncClient) -> None:
    async with serving(flood(3 << 20)) as server:
        got = await send(Endpoint(server.url), a_call(), client)
    assert got == {"status": 200, "said": "(no text)"}


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (200, {"replicas": 3}, {"replicas": 3}),
        (204, b"", "(no text)"),
        (202, b"<html>queued</html>", "<html>queued</html>"),
        (200, b"a\x00b\x1b[31m", "a b [31m"),
    ],
)
async def test_any_2xx_is_a_success_whatever_it_says(
    client: httpx.AsyncClient, status: int, body: Any, said: Any
) -> None:
    async with serving(answer(status, body)) as server:
        got = await send(Endpoint(server.url), a_call(), client)
    assert got == {"status": status, "said": said}


async def test_the_call_carries_key_fence_body_and_what_the_files_hold(
    client: httpx.AsyncClient, tmp_path: Path
) -> None:
    token, headers = tmp_path / "token", tmp_path / "headers"
    token.write_text("s3cret\n")
    headers.write_text("X-Tenant: gpu\n\nAccept: application/json\n")
    async with serving(answer(200)) as server:
        endpoint = Endpoint(server.url + "/api/", token_file=token, headers_file=headers)
        await send(endpoint, a_call(method="PUT", path="/pools/a%2Fb?dry=1", body={"n": 3}), client)
        token.write_text("rotated")
        await send(endpoint, a_call(), client)
    first, second = server.seen
    assert (first.method, first.path) == ("PUT", "/api/pools/a%2Fb?dry=1")
    assert first.json() == {"n": 3}
    assert first.headers["idempotency-key"] == "r/f/0/0/1"
    assert first.headers["x-fencing-token"] == "12"
    assert first.headers["authorization"] == "Bearer s3cret"
    assert first.headers["x-tenant"] == "gpu"
    assert second.headers["authorization"] == "Bearer rotated"
    assert (second.method, second.path, second.body) == ("POST", "/api/", b"")


@pytest.mark.parametrize(
    "path",
    [
        "evil",
        "@evil.example/x",
        ".evil.example",
        ":1/x",
        "//evil.example/x",
        "/../admin",
        "/a/%2e%2e/admin",
        "/a/..",
        "/a/./b",
        "/..\\admin",
        "/%2e%2e%2fadmin",
        "/x#fragment",
        "/x\r\nHost: evil",
        "/x\x00",
    ],
)
async def test_a_path_that_would_leave_the_endpoint_is_not_sent(
    client: httpx.AsyncClient, path: str
) -> None:
    async with serving(answer(200)) as server:
        with pytest.raises(PermanentError, match="not sent"):
            await send(Endpoint(server.url + "/api"), a_call(path=path), client)
    assert server.seen == []


@pytest.mark.parametrize("path", ["/a%20b", "/a%2Fb", "/%22%7D", "/v1.2/x", "/..a", "?only=query"])
async def test_an_encoded_value_stays_in_its_place(client: httpx.AsyncClient, path: str) -> None:
    async with serving(answer(200)) as server:
        await send(Endpoint(server.url + "/api"), a_call(path=path), client)
    assert server.seen[0].path == f"/api{path}"


@pytest.mark.parametrize(
    "call",
    [
        a_call(endpoint="other"),
        a_call(method="TRACE"),
        a_call(method="GET / HTTP/1.1\r\nX: y"),
        a_call(verb="set"),
        a_call(body={"not": object()}),
    ],
)
async def test_what_nobody_configured_is_not_sent(client: httpx.AsyncClient, call: Call) -> None:
    async with serving(answer(200)) as server:
        with pytest.raises(PermanentError):
            await send(Endpoint(server.url), call, client)
    assert server.seen == []


@pytest.mark.parametrize(
    "line",
    ["Connection: keep-alive", "Idempotency-Key: mine", "no colon", "a b: c", "X: \x07", "X: ü"],
)
async def test_a_headers_file_cannot_change_what_is_ours_and_is_never_shown(
    client: httpx.AsyncClient, tmp_path: Path, line: str
) -> None:
    headers = tmp_path / "headers"
    headers.write_text(f"X-Good: 1\n{line}\n", encoding="utf-8")
    async with serving(answer(200)) as server:
        with pytest.raises(PermanentError, match="headers:2") as caught:
            await send(Endpoint(server.url, headers_file=headers), a_call(), client)
    assert server.seen == []
    assert line not in str(caught.value)


async def test_a_secret_file_that_is_missing_may_be_there_soon(
    client: httpx.AsyncClient, tmp_path: Path
) -> None:
    for endpoint in (
        Endpoint("http://127.0.0.1:1", token_file=tmp_path / "none"),
        Endpoint("http://127.0.0.1:1", headers_file=tmp_path / "none"),
    ):
        with pytest.raises(TemporaryError):
            await send(endpoint, a_call(), client)


async def test_nothing_can_be_looked_up_about_an_endpoint(client: httpx.AsyncClient) -> None:
    actuator = EndpointsActuator({}, client=client)
    assert await actuator.read(TARGET) == {}
    assert await actuator.probe(TARGET, a_call(), {}) is None
