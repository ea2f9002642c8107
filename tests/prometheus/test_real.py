"""The clients against a real Prometheus and a real Alertmanager."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from remediator.clock import system_clock
from remediator.model.alert import SILENCER
from remediator.model.verdict import ReadingStatus
from remediator.prometheus.alertmanager import AlertmanagerClient
from remediator.prometheus.client import PrometheusClient
from tests.prometheus.daemon import free_port, running, until

pytestmark = pytest.mark.real


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(verify=False) as client:
        yield client


@dataclass
class Prometheus:
    url: str


@pytest.fixture(scope="module")
def prometheus(daemon: Callable[..., str], tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("prometheus")
    address = f"127.0.0.1:{free_port()}"
    (folder / "p.yml").write_text(
        "global: {scrape_interval: 1s}\n"
        f"scrape_configs: [{{job_name: itself, static_configs: [{{targets: ['{address}']}}]}}]\n"
    )
    argv = [
        daemon("prometheus"),
        "--config.file=p.yml",
        "--storage.tsdb.path=data",
        f"--web.listen-address={address}",
    ]
    with running(argv, folder):
        yield Prometheus(f"http://{address}")


@pytest.fixture
async def client(prometheus: Prometheus, http: httpx.AsyncClient) -> PrometheusClient:
    client = PrometheusClient(prometheus.url, client=http)
    await until(client.ready)
    return client


@pytest.mark.parametrize(
    ("promql", "value"),
    [
        ("vector(1)", 1.0),
        ("scalar(vector(2))", 2.0),
        ("3", 3.0),
        ("vector(1) # " + "x" * 90_000, 1.0),
    ],
    ids=["vector", "scalar", "literal", "long"],
)
async def test_prometheus_gives_one_number(
    client: PrometheusClient, promql: str, value: float
) -> None:
    got = await client.query(promql)
    assert (got.status, got.value) == (ReadingStatus.OK, value)
    assert abs(got.at - system_clock()) < timedelta(seconds=30)


@pytest.mark.parametrize(
    ("promql", "status", "words"),
    [
        ("vector(0) / 0", ReadingStatus.NAN, ""),
        ("vector(1) / 0", ReadingStatus.NAN, "infinite"),
        ("-vector(1) / 0", ReadingStatus.NAN, "infinite"),
        ("scalar(absent(vector(1)))", ReadingStatus.NAN, ""),
        ("vector(1) > 2", ReadingStatus.EMPTY, ""),
        ("no_such_metric", ReadingStatus.EMPTY, ""),
        ('label_replace(vector(1), "a", "1", "", "") or vector(2)', ReadingStatus.MANY, "2 series"),
        ('"text"', ReadingStatus.ERROR, "gives a text"),
        ("up[1m]", ReadingStatus.ERROR, "range of samples"),
        ("sum(", ReadingStatus.ERROR, "HTTP 400 bad_data"),
        ("", ReadingStatus.ERROR, "HTTP 400 bad_data"),
        (
            'vector(1) + on() (label_replace(vector(1), "a", "1", "", "") or vector(2))',
            ReadingStatus.ERROR,
            "HTTP 422 execution",
        ),
    ],
)
async def test_prometheus_gives_no_number_and_the_reading_says_why(
    client: PrometheusClient, promql: str, status: ReadingStatus, words: str
) -> None:
    got = await client.query(promql)
    assert (got.status, got.value) == (status, None)
    assert words in got.detail


async def test_a_query_that_takes_too_long_is_ended_by_prometheus_itself(
    prometheus: Prometheus, http: httpx.AsyncClient, client: PrometheusClient
) -> None:
    client = PrometheusClient(prometheus.url, client=http, timeout_s=1.0)
    sums = " + on() ".join(["vector(time())"] * 10)
    got = await client.query(f"max_over_time(({sums})[10d:1s])")
    assert got.status is ReadingStatus.ERROR
    assert "HTTP 503 timeout" in got.detail


async def test_history_has_a_reading_for_each_step(client: PrometheusClient) -> None:
    end = datetime(2026, 1, 1, tzinfo=UTC)
    got = await client.history(
        "time()", end=end, length=timedelta(seconds=30), step=timedelta(seconds=5)
    )
    assert [reading.at for reading in got] == [
        end - timedelta(seconds=seconds) for seconds in range(30, -1, -5)
    ]
    assert [reading.value for reading in got] == [reading.at.timestamp() for reading in got]


async def test_history_of_too_many_points_is_empty(client: PrometheusClient) -> None:
    end = datetime(2026, 1, 1, tzinfo=UTC)
    got = await client.history(
        "vector(1)", end=end, length=timedelta(days=1), step=timedelta(seconds=1)
    )
    assert got == []


async def test_a_scraped_target_is_seen(client: PrometheusClient) -> None:
    async def is_up() -> bool:
        return (await client.query('up{job="itself"}')).value == 1.0

    await until(is_up)
    assert (await client.query("count({job='itself'}) > 100")).status is ReadingStatus.OK


ALERTMANAGER = """
route:
  receiver: other
  group_wait: 0s
  routes:
  - {receiver: "team.a (b)", matchers: ['to="us"']}
  - {receiver: "teamxa (b)", matchers: ['to="them"']}
receivers: [{name: other}, {name: "team.a (b)"}, {name: "teamxa (b)"}]
inhibit_rules: [{source_matchers: ['alertname="Down"'], target_matchers: ['alertname="Slow"'],
  equal: [instance]}]
"""


@pytest.fixture
def alertmanager(daemon: Callable[..., str], tmp_path: Path):
    address = f"127.0.0.1:{free_port()}"
    (tmp_path / "a.yml").write_text(ALERTMANAGER)
    argv = [
        daemon("prometheus-alertmanager", "alertmanager"),
        "--config.file=a.yml",
        "--storage.path=data",
        "--cluster.listen-address=",
        f"--web.listen-address={address}",
    ]
    with running(argv, tmp_path):
        yield f"http://{address}"


async def test_alertmanager_gives_what_is_routed_to_us_and_not_kept_quiet(
    alertmanager: str, http: httpx.AsyncClient
) -> None:
    async def is_ready() -> bool:
        try:
            return (await http.get(f"{alertmanager}/-/ready")).is_success
        except httpx.ConnectError:
            return False

    await until(is_ready)
    now = system_clock()
    for who, instance in {"ann": "quiet", SILENCER: "ours"}.items():
        silence = {
            "matchers": [
                {"name": "instance", "value": instance, "isRegex": False, "isEqual": True}
            ],
            "startsAt": now.isoformat(),
            "endsAt": (now + timedelta(hours=1)).isoformat(),
            "createdBy": who,
            "comment": "test",
        }
        (await http.post(f"{alertmanager}/api/v2/silences", json=silence)).raise_for_status()
    labels = [
        {"alertname": "Slow", "instance": "d1", "to": "us"},
        {"alertname": "Slow", "instance": "d2", "to": "us"},
        {"alertname": "Down", "instance": "d2", "to": "us"},
        {"alertname": "Slow", "instance": "quiet", "to": "us"},
        {"alertname": "Slow", "instance": "ours", "to": "us"},
        {"alertname": "Slow", "instance": "d3", "to": "them"},
    ]
    alerts = [{"labels": one, "startsAt": now.isoformat()} for one in labels]
    (await http.post(f"{alertmanager}/api/v2/alerts", json=alerts)).raise_for_status()

    client = AlertmanagerClient([alertmanager], client=http)
    wanted = {("Slow", "d1"), ("Down", "d2"), ("Slow", "ours")}

    async def settled() -> bool:
        found, _ = await client.active_alerts("team.a (b)")
        return {(alert.name, alert.labels["instance"]) for alert in found} == wanted

    await until(settled)
    found, failed = await client.active_alerts("team.a (b)")
    assert failed == []
    assert all(alert.firing and alert.ends_at is None and alert.fingerprint for alert in found)
    [theirs], _ = await client.active_alerts("teamxa (b)")
    assert theirs.labels["instance"] == "d3"
    assert await client.active_alerts("team") == ([], [])
    by = {silence.created_by: silence for silence in await client.silences()}
    assert by["ann"].covers({"alertname": "Slow", "instance": "quiet"})
    assert not by["ann"].covers({"alertname": "Slow", "instance": "ours"})
    assert [by["ann"].is_ours, by[SILENCER].is_ours] == [False, True]
