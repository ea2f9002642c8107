"""Whatever is posted to the webhook gets the one right answer, and the next post is served."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.api.edge import (
    NOON,
    WEBHOOK,
    YEAR_ONE,
    Edge,
    a_payload,
    an_alert,
    controller,
    recorded,
)

NO_WEBHOOKS: dict[str, Any] = {
    "not JSON": b"hello",
    "nothing": b"",
    "half of it": json.dumps(a_payload(an_alert())).encode()[:-20],
    "JSON that is a list": [],
    "JSON that is a number": 4,
    "JSON of something else": {"title": "[FIRING:1] DetectorSlow", "state": "alerting"},
    "nested beyond reason": b"[" * 100_000,
    "version 3": a_payload(an_alert(), version="3"),
    "version 5": a_payload(an_alert(), version="5"),
    "a version that is a number": a_payload(an_alert(), version=4),
    "no version": {"alerts": []},
    "no alerts": {"version": "4"},
    "alerts that are null": a_payload(alerts=None),
    "an alert that is a text": a_payload("DetectorSlow"),  # type: ignore[arg-type]  # on purpose
    "an unknown status": a_payload(an_alert(status="pending")),
    "an alert without a fingerprint": a_payload({**an_alert(), "fingerprint": ""}),
    "a label that became a number": a_payload({**an_alert(), "labels": {"gpu": 0}}),
    "a label that became null": a_payload({**an_alert(), "labels": {"gpu": None}}),
    "a start without a zone": a_payload({**an_alert(), "startsAt": "2026-11-22T20:44:37"}),
    "a start that is no time": a_payload({**an_alert(), "startsAt": "yesterday"}),
    "a count beyond counting": a_payload(an_alert(), truncatedAlerts=10**30),
    "a negative count": a_payload(an_alert(), truncatedAlerts=-1),
    "half a surrogate pair": json.dumps(a_payload(an_alert(x="X")))
    .replace("X", "\\ud800")
    .encode(),
    "bytes that are not UTF-8": json.dumps(a_payload(an_alert(x="X")))
    .encode()
    .replace(b"X", b"\xff"),
}


@pytest.mark.parametrize("body", NO_WEBHOOKS.values(), ids=NO_WEBHOOKS)
async def test_what_can_never_be_a_webhook_is_answered_400_kept_and_counted(
    edge: Edge, body: Any
) -> None:
    answer = await edge.post(body)
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert "not an Alertmanager v4 webhook" in answer.json()["detail"]
    (kept,) = await edge.deliveries()
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    assert kept.body == sent[: 64 * 1024]
    assert kept.problem
    assert await edge.alerts() == []
    assert await edge.metric('remediator_webhooks_total{outcome="rejected"}') == 1
    assert (await edge.post(a_payload(an_alert()))).status_code == 200


async def test_a_person_is_told_once_a_day_about_bodies_that_are_no_webhook(edge: Edge) -> None:
    for body in (b"one", b"two", b"three"):
        await edge.post(body)
    assert len(await edge.messages()) == 1
    edge.clock.forward(days=1)
    await edge.post(b"four")
    assert len(await edge.messages()) == 2
    assert len(await edge.deliveries()) == 4


async def test_a_problem_that_quotes_what_was_posted_stays_short(edge: Edge) -> None:
    answer = await edge.post(a_payload({**an_alert(), "labels": {"k" * 1_000_000: 1}}))
    assert answer.status_code == 400
    assert len(answer.text) < 1000
    assert all(len(message.body) < 1000 for message in await edge.messages())


async def test_fields_that_a_newer_alertmanager_adds_are_ignored(edge: Edge) -> None:
    alert = {**an_alert(), "value": "0.31", "silenceURL": "http://x"}
    payload = a_payload(alert, notification_reason="repeat interval elapsed", routeLabels={"a": 1})
    assert (await edge.post(payload)).json() == {"stored": 1, "truncated": 0}


async def test_optional_fields_may_be_missing(edge: Edge) -> None:
    alert = an_alert()
    for name in ("annotations", "endsAt", "generatorURL"):
        del alert[name]
    assert (await edge.post({"version": "4", "alerts": [alert]})).status_code == 200
    assert [a["firing"] for a in await edge.alerts()] == [True]


async def test_an_empty_list_of_alerts_is_stored_and_changes_nothing(edge: Edge) -> None:
    assert (await edge.post(a_payload())).status_code == 200
    assert await edge.count() == (1, 0)


async def test_an_end_in_year_one_means_that_it_still_fires(edge: Edge) -> None:
    payload = recorded("single-firing")
    assert payload["alerts"][0]["endsAt"] == YEAR_ONE
    await edge.post(payload)
    (alert,) = await edge.alerts()
    assert alert["firing"]
    assert alert["resolved_at"] is None


async def test_a_resolve_that_ended_in_year_one_ends_now(edge: Edge) -> None:
    await edge.post(a_payload({**an_alert(status="resolved"), "endsAt": YEAR_ONE}))
    (alert,) = await edge.alerts()
    assert alert["resolved_at"] == NOON.isoformat().replace("+00:00", "Z")


@pytest.mark.parametrize(
    "edge_of_time",
    ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59-14:00"],
)
@pytest.mark.parametrize("status", ["firing", "resolved"])
async def test_a_time_at_the_edge_of_the_calendar_stops_nobody_from_reading(
    edge: Edge, edge_of_time: str, status: str
) -> None:
    alert = {**an_alert(status=status), "startsAt": edge_of_time, "endsAt": edge_of_time}
    assert (await edge.post(a_payload(alert))).status_code == 200
    assert (await edge.post(a_payload(alert))).status_code == 200
    assert len(await edge.alerts()) == 1


async def test_text_in_labels_comes_back_as_it_was_sent(edge: Edge) -> None:
    hostile = "\x00\x1b[31m[red]\u202e'; DROP TABLE alerts; --{{ 7*7 }}\n\U0001f525"
    await edge.post(a_payload(an_alert(pod=hostile)))
    (alert,) = await edge.alerts()
    assert alert["labels"]["pod"] == hostile


async def test_five_thousand_alerts_in_one_post_are_stored_and_stored_again(edge: Edge) -> None:
    many = [an_alert(f"{i:016x}", pod=f"pod-{i}", padding="x" * 60) for i in range(5000)]
    body = json.dumps(a_payload(*many)).encode()
    assert 1_500_000 < len(body) < 1_900_000
    assert (await edge.post(body)).json() == {"stored": 5000, "truncated": 0}
    assert (await edge.post(body)).status_code == 200
    assert await edge.count() == (2, 5000)


@pytest.fixture
async def narrow(tmp_path: Path) -> AsyncIterator[Edge]:
    """A controller that takes 2000 bytes at most."""
    async with controller(tmp_path, webhook_limit_bytes=2000) as built:
        yield built


async def test_a_body_that_announces_to_be_over_the_limit_is_answered_413(narrow: Edge) -> None:
    answer = await narrow.post(a_payload(an_alert(padding="x" * 2000)))
    assert answer.status_code == 413
    assert "2000 bytes" in answer.json()["detail"]
    assert await narrow.count() == (0, 0)
    assert await narrow.metric('remediator_webhooks_total{outcome="too_large"}') == 1


async def test_a_body_in_chunks_is_cut_off_where_it_passes_the_limit(narrow: Edge) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(30):
            yield b" " * 100

    answer = await narrow.client.post(WEBHOOK, content=chunks())
    assert answer.status_code == 413
    assert await narrow.count() == (0, 0)


async def test_a_body_of_exactly_the_limit_is_taken(narrow: Edge) -> None:
    body = json.dumps(a_payload(an_alert())).encode().ljust(2000)
    assert (await narrow.post(body)).status_code == 200
    assert (await narrow.post(body + b" ")).status_code == 413


async def test_a_length_that_lies_does_not_open_the_limit(narrow: Edge) -> None:
    answer = await narrow.post(b"x" * 3000, **{"content-length": "12"})
    assert answer.status_code == 413
