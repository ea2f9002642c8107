"""The Prometheus client against a server that says everything Prometheus, or a proxy, may say."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest

from remediator.errors import ConfigurationError
from remediator.model.verdict import Reading, ReadingStatus
from remediator.prometheus.client import PrometheusClient
from tests.actuators.server import (
    Behaviour,
    answer,
    closed_port,
    cut,
    deaf_port,
    flood,
    hang,
    hang_mid_body,
    hang_up,
    reset,
    serving,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
THEN = datetime(2026, 1, 1, 12, 0, 0, 250_000, tzinfo=UTC)
AT = THEN.timestamp()


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(follow_redirects=True, verify=False) as client:
        yield client


def success(kind: str, result: Any, **more: Any) -> Behaviour:
    body = {"status": "success", "data": {"resultType": kind, "result": result}, **more}
    return answer(200, body)


def series(value: str, **labels: str) -> dict[str, Any]:
    return {"metric": labels, "value": [AT, value]}


async def read(
    behaviour: Behaviour, http: httpx.AsyncClient, promql: str = "x", timeout_s: float = 5.0
) -> Reading:
    async with serving(behaviour) as server:
        client = PrometheusClient(server.url, client=http, timeout_s=timeout_s, clock=lambda: NOW)
        return await client.query(promql)


@pytest.mark.parametrize(
    ("behaviour", "value"),
    [
        (success("vector", [series("0.25", job="d")]), 0.25),
        (success("scalar", [AT, "3e2"]), 300.0),
        (success("scalar", [AT, "3"], infos=["a gauge"], future={"field": 1}), 3.0),
    ],
)
async def test_one_number_is_read_with_the_time_of_its_evaluation(
    http: httpx.AsyncClient, behaviour: Behaviour, value: float
) -> None:
    assert await read(behaviour, http) == Reading("x", THEN, ReadingStatus.OK, value)


@pytest.mark.parametrize("value", ["+Inf", "-Inf"])
async def test_an_infinite_answer_is_no_number(http: httpx.AsyncClient, value: str) -> None:
    got = await read(success("vector", [series(value)]), http)
    assert got == Reading("x", THEN, ReadingStatus.NAN, detail="infinite")
    assert got.describe() == "no finite number: infinite"


PARTIAL = {"warnings": ["remote read: connection refused", "PromQL info: a remark"]}


@pytest.mark.parametrize(
    ("kind", "result"), [("scalar", [AT, "3"]), ("vector", [series("3")]), ("vector", [])]
)
async def test_an_answer_from_a_part_of_the_data_is_unknown(
    http: httpx.AsyncClient, kind: str, result: Any
) -> None:
    got = await read(success(kind, result, **PARTIAL), http)
    detail = "a partial answer: remote read: connection refused"
    assert got == Reading("x", NOW, ReadingStatus.ERROR, detail=detail)


async def test_a_remark_on_the_query_does_not_make_its_answer_doubtful(
    http: httpx.AsyncClient,
) -> None:
    remark = "PromQL info: metric might not be a counter, name does not end in _total"
    got = await read(success("scalar", [AT, "3"], warnings=[remark]), http)
    assert got == Reading("x", THEN, ReadingStatus.OK, 3.0)


@pytest.mark.parametrize("kind", ["vector", "scalar"])
async def test_nan_is_no_number(http: httpx.AsyncClient, kind: str) -> None:
    result = [series("NaN")] if kind == "vector" else [AT, "NaN"]
    assert await read(success(kind, result), http) == Reading("x", THEN, ReadingStatus.NAN)


async def test_no_series_is_no_data_at_the_time_of_asking(http: httpx.AsyncClient) -> None:
    assert await read(success("vector", []), http) == Reading("x", NOW, ReadingStatus.EMPTY)


async def test_several_series_are_counted_and_none_is_picked(http: httpx.AsyncClient) -> None:
    got = await read(success("vector", [series("1", a="1"), series("2", a="2")]), http)
    assert (got.status, got.value, got.detail) == (ReadingStatus.MANY, None, "2 series")


BAD_QUERY = {"status": "error", "errorType": "bad_data", "error": "parse error at char 3"}


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        (success("string", [AT, "text"]), "gives a text"),
        (success("matrix", [{"metric": {}, "values": [[AT, "1"]]}]), "range of samples"),
        (success("vector", [{"metric": {}, "histogram": [AT, {}]}]), "native histogram"),
        (success("vector", [series("many")]), "not an answer of Prometheus"),
        (success("vector", [{"metric": {}, "value": [AT, 1]}]), "not an answer of Prometheus"),
        (success("vector", [{"metric": {}, "value": [1e300, "1"]}]), "not an answer"),
        (success("vector", [{"metric": {}, "value": ["now", "1"]}]), "not an answer"),
        (success("tensor", []), "not an answer of Prometheus"),
        (answer(200, BAD_QUERY), "bad_data: parse error"),
        (answer(400, BAD_QUERY), "HTTP 400 bad_data: parse error at char 3"),
        (answer(422, {**BAD_QUERY, "errorType": "execution"}), "HTTP 422 execution"),
        (answer(503, {**BAD_QUERY, "errorType": "timeout"}), "HTTP 503 timeout"),
        (answer(503, b"Service Unavailable"), "HTTP 503: Service Unavailable"),
        (answer(504, b"<html>\n gateway"), "HTTP 504: <html> gateway"),
        (answer(404, b"404 page not found\n"), "HTTP 404: 404 page not found"),
        (answer(401), "HTTP 401: (no text)"),
        (answer(302, Location="/elsewhere"), "HTTP 302"),
        (answer(200, b"<html>login</html>"), "not an answer of Prometheus"),
        (answer(200, b"[" * 200_000), "not an answer of Prometheus"),
        (answer(200), "not an answer of Prometheus"),
        (cut(200), "was lost"),
        (hang_up, "was lost"),
        (reset, "was lost"),
        (flood(17 << 20), "more than 16 MiB"),
    ],
)
async def test_a_bad_answer_is_a_reading_that_says_what_is_wrong(
    http: httpx.AsyncClient, behaviour: Behaviour, words: str
) -> None:
    got = await read(behaviour, http)
    assert (got.status, got.value, got.at) == (ReadingStatus.ERROR, None, NOW)
    assert words in got.detail


@pytest.mark.parametrize("behaviour", [hang, hang_mid_body])
async def test_a_slow_prometheus_is_a_reading_too(
    http: httpx.AsyncClient, behaviour: Behaviour
) -> None:
    got = await read(behaviour, http, timeout_s=0.3)
    assert got.status is ReadingStatus.ERROR
    assert "did not answer within 0.3 s" in got.detail


async def test_a_prometheus_that_is_down_is_a_reading_too(http: httpx.AsyncClient) -> None:
    with closed_port() as refuses, deaf_port() as deaf:
        for url, words in ((refuses, "cannot reach"), (deaf, "did not answer within 0.3 s")):
            client = PrometheusClient(url, client=http, timeout_s=0.3)
            got = await client.query("up")
            assert got.status is ReadingStatus.ERROR
            assert words in got.detail
            assert not await client.ready()


async def test_a_query_that_is_no_text_is_a_reading_and_is_not_sent(
    http: httpx.AsyncClient,
) -> None:
    async with serving(success("vector", [])) as server:
        got = await PrometheusClient(server.url, client=http).query('up{a="\ud800"}')
    assert got.status is ReadingStatus.ERROR
    assert server.seen == []


async def test_the_query_travels_as_a_form_with_a_shorter_timeout_than_ours(
    http: httpx.AsyncClient,
) -> None:
    promql = 'x{a="' + "é&+%" * 30_000 + '"}'
    async with serving(success("vector", [])) as server:
        client = PrometheusClient(server.url + "/prefix/", client=http, timeout_s=2.0)
        await client.query(promql)
    [seen] = server.seen
    assert (seen.method, seen.path) == ("POST", "/prefix/api/v1/query")
    assert parse_qs(seen.body.decode()) == {"query": [promql], "timeout": ["1800ms"]}


async def test_history_is_the_points_of_the_only_series_oldest_first(
    http: httpx.AsyncClient,
) -> None:
    points = [[AT, "1"], [AT + 5, "NaN"], [AT + 10, "3"]]
    async with serving(success("matrix", [{"metric": {}, "values": points}])) as server:
        got = await PrometheusClient(server.url, client=http).history(
            "x", end=THEN, length=timedelta(minutes=1), step=timedelta(seconds=5)
        )
    form = parse_qs(server.seen[0].body.decode())
    assert [float(form[name][0]) for name in ("start", "end", "step")] == [AT - 60, AT, 5]
    assert [(reading.at, reading.value) for reading in got] == [
        (THEN, 1.0),
        (THEN + timedelta(seconds=5), None),
        (THEN + timedelta(seconds=10), 3.0),
    ]


@pytest.mark.parametrize(
    "behaviour",
    [
        success("matrix", []),
        success("matrix", [{"metric": {}, "values": []}, {"metric": {}, "values": []}]),
        success("vector", [series("1")]),
        success("matrix", [{"metric": {}, "values": [[AT, "1"]]}], **PARTIAL),
        answer(400, BAD_QUERY),
        hang_up,
    ],
)
async def test_a_history_that_cannot_be_told_is_empty(
    http: httpx.AsyncClient, behaviour: Behaviour
) -> None:
    async with serving(behaviour) as server:
        got = await PrometheusClient(server.url, client=http).history(
            "x", end=THEN, length=timedelta(minutes=1), step=timedelta(seconds=5)
        )
    assert got == []


@pytest.mark.parametrize(("status", "ready"), [(200, True), (503, False), (404, False)])
async def test_ready_is_what_prometheus_says_about_itself(
    http: httpx.AsyncClient, *, status: int, ready: bool
) -> None:
    async with serving(answer(status, b"words")) as server:
        assert await PrometheusClient(server.url, client=http).ready() is ready
    assert server.seen[0].path == "/-/ready"


@pytest.mark.parametrize("url", ["", "127.0.0.1:9090", "ftp://host", "http://", "http://[::1"])
async def test_a_url_that_is_none_is_refused_at_the_start(
    http: httpx.AsyncClient, url: str
) -> None:
    with pytest.raises(ConfigurationError):
        PrometheusClient(url, client=http)


async def test_a_password_in_the_url_never_shows(http: httpx.AsyncClient) -> None:
    with closed_port() as url:
        secret = url.replace("http://", "http://me:hunter2@")
        got = await PrometheusClient(secret, client=http).query("up")
    assert got.status is ReadingStatus.ERROR
    assert "hunter2" not in got.detail
