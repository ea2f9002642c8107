"""What the alerts of a payload become: deduplicated one by one, whatever order they arrive in."""

from __future__ import annotations

import asyncio
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient

from remediator.api import webhook
from remediator.api.access import Access
from remediator.model.pace import Pace
from remediator.store.database import Database
from remediator.telemetry import Metrics
from tests.api.edge import (
    STARTED,
    WEBHOOK,
    Edge,
    Pokes,
    a_payload,
    an_alert,
    controller,
    recorded,
)


def firing(alerts: list[dict[str, Any]]) -> set[str]:
    return {alert["labels"]["k"] for alert in alerts if alert["firing"]}


async def test_every_recorded_payload_is_stored(edge: Edge) -> None:
    for name in (
        "single-firing",
        "single-resolved",
        "grouped-firing",
        "group-mixed-firing-resolved",
        "group-all-resolved",
        "repeat-first",
        "repeat-second",
        "truncated-max_alerts-3",
    ):
        payload = recorded(name)
        answer = await edge.post(payload)
        assert answer.json()["stored"] == len(payload["alerts"])
    assert firing(await edge.alerts()) == {"repeat", "trunc0", "trunc1", "trunc2"}


async def test_a_re_send_is_the_same_alert_received_once_more(edge: Edge) -> None:
    await edge.post(recorded("repeat-first"))
    edge.clock.forward(seconds=5)
    await edge.post(recorded("repeat-second"))
    (alert,) = await edge.alerts()
    assert alert["seen"] == 2
    assert alert["first_seen_at"] < alert["last_seen_at"]
    assert await edge.metric('remediator_alerts_total{meaning="new"}') == 1
    assert await edge.metric('remediator_alerts_total{meaning="refreshed"}') == 1


async def test_copies_that_arrive_together_are_one_alert(edge: Edge) -> None:
    payload = recorded("grouped-firing")
    answers = await asyncio.gather(*(edge.post(payload) for _ in range(8)))
    assert {answer.status_code for answer in answers} == {200}
    assert sorted(alert["seen"] for alert in await edge.alerts()) == [8] * 5


async def test_copies_that_reach_two_replicas_at_once_are_one_alert(
    edge: Edge, tmp_path: Path
) -> None:
    other_journal = Database(edge.db.url, clock=edge.clock)
    async with controller(tmp_path, db=other_journal) as other:
        payload = recorded("grouped-firing")
        posts = [replica.post(payload) for replica in (edge, other) for _ in range(5)]
        answers = await asyncio.gather(*posts)
        assert {answer.status_code for answer in answers} == {200}
        assert await edge.count() == (10, 5)
        assert await other.count() == (10, 5)
    other_journal.close()


async def test_a_group_that_is_half_over_resolves_only_that_half(edge: Edge) -> None:
    await edge.post(recorded("grouped-firing"))
    await edge.post(recorded("group-mixed-firing-resolved"))
    assert firing(await edge.alerts()) == {"grp3", "grp4", "grp5"}
    await edge.post(recorded("group-all-resolved"))
    assert firing(await edge.alerts()) == set()


async def test_a_resolve_that_was_never_seen_firing_is_kept_and_fires_nothing(edge: Edge) -> None:
    await edge.post(recorded("single-resolved"))
    (alert,) = await edge.alerts()
    assert not alert["firing"]
    assert await edge.metric('remediator_alerts_total{meaning="unseen"}') == 1


async def test_a_frozen_payload_after_the_resolve_is_over_as_soon_as_its_resolve_comes_again(
    edge: Edge,
) -> None:
    """What 0.33 delivered after an outage: firing of long ago, and its resolve 10 ms later."""
    for name in ("single-firing", "single-resolved", "single-firing", "single-resolved"):
        await edge.post(recorded(name))
    (alert,) = await edge.alerts()
    assert not alert["firing"]


async def test_a_resolve_of_an_earlier_start_does_not_end_what_fires_now(edge: Edge) -> None:
    await edge.post(a_payload({**an_alert(k="x"), "startsAt": "2026-11-22T21:00:00Z"}))
    late = {**an_alert(k="x", status="resolved"), "startsAt": STARTED}
    await edge.post(a_payload(late))
    assert firing(await edge.alerts()) == {"x"}
    assert await edge.metric('remediator_alerts_total{meaning="stale"}') == 1


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
async def test_no_order_of_arrival_loses_an_alert_that_fires(
    edge: Edge, order: tuple[int, ...]
) -> None:
    old, new = STARTED, "2026-11-22T21:00:00Z"
    told = [
        {**an_alert(k="x"), "startsAt": old},
        {**an_alert(k="x", status="resolved"), "startsAt": old},
        {**an_alert(k="x"), "startsAt": new},
    ]
    for index in order:
        await edge.post(a_payload(told[index]))
    # The last word of Alertmanager was that the newer one fires.
    assert firing(await edge.alerts()) == {"x"}


async def test_one_payload_that_says_both_counts_as_firing(edge: Edge) -> None:
    both = [an_alert(k="x"), an_alert(k="x", status="resolved")]
    await edge.post(a_payload(*both))
    assert firing(await edge.alerts()) == {"x"}
    assert await edge.count() == (1, 1)


async def test_a_prometheus_that_restarts_does_not_make_a_second_alert(edge: Edge) -> None:
    await edge.post(a_payload(an_alert(k="x")))
    edge.clock.forward(seconds=16)
    await edge.post(a_payload(an_alert(k="x", status="resolved")))
    edge.clock.forward(seconds=25)
    again = {"startsAt": "2026-11-22T20:45:18Z"}
    await edge.post(a_payload({**an_alert(k="x"), **again}))
    (alert,) = await edge.alerts()
    assert alert["firing"]
    edge.clock.forward(hours=1)
    await edge.post(a_payload({**an_alert(k="x", status="resolved"), **again}))
    edge.clock.forward(hours=1)
    await edge.post(a_payload(an_alert(k="x")))
    assert [a["firing"] for a in await edge.alerts()] == [True, False]


async def test_labels_that_no_target_has_are_stored_like_any_other(edge: Edge) -> None:
    await edge.post(a_payload(an_alert(instance="nobody-knows:9")))
    (alert,) = await edge.alerts()
    assert alert["labels"]["instance"] == "nobody-knows:9"


# -- truncated payloads: the top-level status lies ---------------------------------------------


@pytest.fixture
async def poked(edge: Edge) -> tuple[AsyncClient, Pokes]:
    """The webhook alone, with what it pokes."""
    pokes = Pokes()
    app = FastAPI()
    router = webhook.build_router(
        db=edge.db,
        access=Access(None),
        pace=Pace(),
        metrics=Metrics(),
        limit_bytes=1 << 20,
        poke=pokes.poke,
    )
    app.include_router(router)
    return AsyncClient(transport=ASGITransport(app=app), base_url="http://127.0.0.1:8090"), pokes


async def test_a_truncated_payload_is_believed_alert_by_alert_and_the_level_is_read(
    edge: Edge, poked: tuple[AsyncClient, Pokes]
) -> None:
    client, pokes = poked
    # As measured: 7 alerts, 3 of them resolved, max_alerts 3: "resolved" although 4 fire.
    await client.post(WEBHOOK, content=json.dumps(a_payload(an_alert("a", k="a"))))
    over = an_alert("b", k="b", status="resolved")
    lying = a_payload(over, status="resolved", truncatedAlerts=4)
    answer = await client.post(WEBHOOK, content=json.dumps(lying))
    assert answer.json() == {"stored": 1, "truncated": 4}
    assert firing(await edge.alerts()) == {"a"}
    assert pokes.names == ["dispatch", "dispatch", "reconcile"]


async def test_a_status_that_contradicts_its_alerts_is_not_read(edge: Edge) -> None:
    await edge.post(a_payload(an_alert(k="x"), status="resolved"))
    await edge.post(a_payload(an_alert("e", k="y", status="resolved"), status="firing"))
    assert firing(await edge.alerts()) == {"x"}


async def test_what_is_refused_pokes_nobody(poked: tuple[AsyncClient, Pokes]) -> None:
    client, pokes = poked
    assert (await client.post(WEBHOOK, content=b"no")).status_code == 400
    assert pokes.names == []
