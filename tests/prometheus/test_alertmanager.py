"""The Alertmanager client against peers that answer, differ, or do not."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from remediator.errors import ConfigurationError, TemporaryError
from remediator.model.alert import SILENCER
from remediator.prometheus.alertmanager import AlertmanagerClient
from tests.actuators.server import (
    Behaviour,
    Exchange,
    answer,
    closed_port,
    hang,
    hang_up,
    serving,
)


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(verify=False) as client:
        yield client


def active(fingerprint: str, *, updated: str = "2026-01-01T00:00:05.000Z", **more: Any) -> Any:
    return {
        "fingerprint": fingerprint,
        "labels": {"alertname": "DetectorSlow", "instance": "d1"},
        "annotations": {"value": "0.4"},
        "startsAt": "2026-01-01T00:00:00.123456789Z",
        "updatedAt": updated,
        "endsAt": "2026-01-01T00:04:00.000Z",
        "generatorURL": "http://prometheus/graph",
        "receivers": [{"name": "remediator"}],
        "status": {"state": "active", "silencedBy": [], "inhibitedBy": []},
        **more,
    }


async def test_an_active_alert_is_firing_and_has_no_end(http: httpx.AsyncClient) -> None:
    async with serving(answer(200, [active("f1")])) as server:
        [alert], failed = await AlertmanagerClient([server.url], client=http).active_alerts("r")
    assert failed == []
    assert (alert.fingerprint, alert.firing, alert.ends_at) == ("f1", True, None)
    assert alert.name == "DetectorSlow"
    assert alert.annotations == {"value": "0.4"}
    assert alert.starts_at == datetime(2026, 1, 1, 0, 0, 0, 123456, tzinfo=UTC)
    assert alert.generator_url == "http://prometheus/graph"


@pytest.mark.parametrize("name", ["remediator", "a.b (c)|d+", "team/é ü", 'say "hi"'])
async def test_only_the_receiver_of_exactly_this_name_is_asked_for(
    http: httpx.AsyncClient, name: str
) -> None:
    async with serving(answer(200, [])) as server:
        await AlertmanagerClient([server.url + "/"], client=http).active_alerts(name)
    url = urlsplit(server.seen[0].path)
    asked = parse_qs(url.query)
    assert url.path == "/api/v2/alerts"
    assert asked["inhibited"] == ["false"]
    assert asked["active"] == asked["silenced"] == ["true"]
    [pattern] = asked["receiver"]
    assert re.search(pattern, name)
    assert not re.search(pattern, f"{name}x")
    assert not re.search(pattern, f"x{name}")


def a_silence(name: str, *, by: str = "ann", state: str = "active", **more: Any) -> Any:
    matcher = {"name": "alertname", "value": "Slow", "isRegex": False, "isEqual": True}
    return {
        "id": name,
        "matchers": [matcher],
        "createdBy": by,
        "comment": "a test",
        "startsAt": "2026-01-01T00:00:00.000Z",
        "endsAt": "2026-01-01T01:00:00.000Z",
        "updatedAt": "2026-01-01T00:00:00.000Z",
        "status": {"state": state},
        **more,
    }


def both(alerts: Any, silences: Any) -> Behaviour:
    """Answer as an Alertmanager with these alerts and silences."""
    listed, silenced = answer(200, alerts), answer(200, silences)

    async def respond(exchange: Exchange) -> None:
        await (silenced if "/silences" in exchange.seen.path else listed)(exchange)

    return respond


async def test_alerts_told_to_be_quiet_are_left_out_and_unprocessed_ones_kept(
    http: httpx.AsyncClient,
) -> None:
    states = {
        "active": {"state": "active"},
        "unprocessed": {"state": "unprocessed"},
        "suppressed": {"state": "suppressed"},
        "silenced": {"state": "active", "silencedBy": ["s1"]},
        "inhibited": {"state": "active", "inhibitedBy": ["f9"]},
        "muted": {"state": "active", "mutedBy": ["night"]},
    }
    body = [active(name, status=status) for name, status in states.items()]
    async with serving(both(body, [a_silence("s1")])) as server:
        found, _ = await AlertmanagerClient([server.url], client=http).active_alerts("r")
    assert [alert.fingerprint for alert in found] == ["active", "unprocessed"]


async def test_an_alert_that_only_a_run_silenced_is_not_over(http: httpx.AsyncClient) -> None:
    states = {
        "ours": {"state": "suppressed", "silencedBy": ["o1"]},
        "ours twice": {"state": "suppressed", "silencedBy": ["o1", "o2"]},
        "a person's as well": {"state": "suppressed", "silencedBy": ["o1", "s1"]},
        "ended since": {"state": "suppressed", "silencedBy": ["gone"]},
        "inhibited as well": {
            "state": "suppressed",
            "silencedBy": ["o1"],
            "inhibitedBy": ["f9"],
        },
    }
    body = [active(name, status=status) for name, status in states.items()]
    silences = [a_silence("o1", by=SILENCER), a_silence("o2", by=SILENCER), a_silence("s1")]
    async with serving(both(body, silences)) as server:
        found, _ = await AlertmanagerClient([server.url], client=http).active_alerts("r")
    assert [alert.fingerprint for alert in found] == ["ours", "ours twice"]


async def test_silences_are_asked_for_only_when_something_is_silenced(
    http: httpx.AsyncClient,
) -> None:
    async with serving(both([active("f1")], b"broken")) as server:
        found, failed = await AlertmanagerClient([server.url], client=http).active_alerts("r")
    assert ([alert.fingerprint for alert in found], failed) == (["f1"], [])


async def test_a_peer_that_cannot_say_who_silenced_an_alert_has_not_answered(
    http: httpx.AsyncClient,
) -> None:
    status = {"state": "suppressed", "silencedBy": ["o1"]}
    async with serving(both([active("f1", status=status)], b"broken")) as server:
        with pytest.raises(TemporaryError, match="not a list of silences"):
            await AlertmanagerClient([server.url], client=http).active_alerts("r")


async def test_active_silences_of_all_peers_are_merged(http: httpx.AsyncClient) -> None:
    left = [a_silence("s1"), a_silence("s2", state="expired"), a_silence("s3", state="pending")]
    right = [a_silence("s1"), a_silence("s4", by=SILENCER)]
    async with serving(answer(200, left)) as one, serving(answer(200, right)) as other:
        client = AlertmanagerClient([one.url, other.url], client=http)
        found = {silence.id: silence for silence in await client.silences()}
    assert sorted(found) == ["s1", "s4"]
    assert [found["s1"].is_ours, found["s4"].is_ours] == [False, True]
    assert found["s1"].ends_at == datetime(2026, 1, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("matcher", "covered", "not_covered"),
    [
        ({"value": "Slow", "isRegex": False}, "Slow", "Slower"),
        ({"value": "Sl.w", "isRegex": False}, "Sl.w", "Slow"),
        ({"value": "Slow|Dead", "isRegex": True}, "Dead", "Deadly"),
        ({"value": "Slow", "isRegex": False, "isEqual": False}, "Dead", "Slow"),
        ({"value": "S.*", "isRegex": True, "isEqual": False}, "Dead", "Slow"),
        ({"value": r"\pL+", "isRegex": True}, "Ä", "1"),
    ],
)
async def test_a_silence_covers_what_alertmanager_would_silence(
    http: httpx.AsyncClient, matcher: dict[str, Any], covered: str, not_covered: str
) -> None:
    body = [a_silence("s1", matchers=[{"name": "alertname", "isEqual": True, **matcher}])]
    async with serving(answer(200, body)) as server:
        [silence] = await AlertmanagerClient([server.url], client=http).silences()
    assert silence.covers({"alertname": covered})
    assert not silence.covers({"alertname": not_covered})


@pytest.mark.parametrize("expression", ["(?<ü>x)", "x{1001}"])
async def test_an_expression_that_cannot_be_read_is_taken_to_match(
    http: httpx.AsyncClient, expression: str
) -> None:
    strange = {"name": "alertname", "value": expression, "isRegex": True, "isEqual": True}
    team = {"name": "team", "value": "ops", "isRegex": False, "isEqual": True}
    async with serving(answer(200, [a_silence("s1", matchers=[strange, team])])) as server:
        [silence] = await AlertmanagerClient([server.url], client=http).silences()
    assert silence.covers({"alertname": "x", "team": "ops"})
    assert not silence.covers({"alertname": "x", "team": "dev"})


@pytest.mark.parametrize("broken", [hang, hang_up, answer(500, b"x"), answer(200, {"a": 1})])
async def test_no_answer_about_silences_is_never_taken_for_none(
    http: httpx.AsyncClient, broken: Behaviour
) -> None:
    async with serving(broken) as server:
        client = AlertmanagerClient([server.url], client=http, timeout_s=0.3)
        with pytest.raises(TemporaryError, match="no Alertmanager answered"):
            await client.silences()


async def test_peers_are_merged_by_fingerprint_and_the_newest_word_wins(
    http: httpx.AsyncClient,
) -> None:
    newer = active("both", updated="2026-01-01T00:00:09.000Z", annotations={"value": "0.9"})
    async with (
        serving(answer(200, [active("both"), active("left")])) as left,
        serving(answer(200, [newer, active("right")])) as right,
    ):
        client = AlertmanagerClient([left.url, right.url], client=http)
        found, failed = await client.active_alerts("r")
    by_name = {alert.fingerprint: alert for alert in found}
    assert sorted(by_name) == ["both", "left", "right"]
    assert by_name["both"].annotations == {"value": "0.9"}
    assert failed == []


BROKEN = {
    "hangs": hang,
    "hangs up": hang_up,
    "500": answer(500, b"sorry"),
    "400": answer(400, {"code": 400, "message": "bad receiver"}),
    "no list": answer(200, {"alerts": []}),
    "no fingerprint": answer(200, [{"labels": {}}]),
    "no zone": answer(200, [active("f", updated="2026-01-01T00:00:09")]),
    "html": answer(200, b"<html>"),
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
async def test_one_peer_that_answers_is_enough_and_the_other_is_named(
    http: httpx.AsyncClient, broken: Behaviour
) -> None:
    async with serving(answer(200, [active("f1")])) as good, serving(broken) as bad:
        client = AlertmanagerClient([bad.url, good.url], client=http, timeout_s=0.5)
        [alert], [failed] = await client.active_alerts("r")
    assert alert.fingerprint == "f1"
    assert bad.url in failed


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
async def test_no_answer_at_all_is_never_taken_for_no_alerts(
    http: httpx.AsyncClient, broken: Behaviour
) -> None:
    with closed_port() as away:
        async with serving(broken) as bad:
            client = AlertmanagerClient([bad.url, away], client=http, timeout_s=0.3)
            with pytest.raises(TemporaryError, match="no Alertmanager answered") as caught:
                await client.active_alerts("r")
    assert bad.url in str(caught.value)
    assert away in str(caught.value)


async def test_five_thousand_alerts_are_read(http: httpx.AsyncClient) -> None:
    body = [active(f"f{number}") for number in range(5000)]
    async with serving(answer(200, body)) as server:
        found, _ = await AlertmanagerClient([server.url], client=http).active_alerts("r")
    assert len(found) == 5000


async def test_no_url_is_refused_at_the_start(http: httpx.AsyncClient) -> None:
    with pytest.raises(ConfigurationError, match="at least one"):
        AlertmanagerClient([], client=http)
