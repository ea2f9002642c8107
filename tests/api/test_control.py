"""Pause, resume, cancel: when the call returns it holds, on every replica; and it is on record."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from remediator.model.run import RunState, StepStatus
from remediator.settings import TargetSettings
from remediator.store import runs, steps
from remediator.store.database import Database, Tx
from tests.api import rows
from tests.api.edge import Edge, controller

TARGETS = {"detector-1": TargetSettings(url="http://127.0.0.1:9")}
PLAYBOOK = """\
apiVersion: remediator/v1
name: throttle-slow-detector
on: {alerts: ['alertname="DetectorSlow"']}
target: ${{ alert.labels.instance }}
steps:
  - notify: {message: it is slow}
"""


@pytest.fixture
async def edge(tmp_path: Path) -> AsyncIterator[Edge]:
    (tmp_path / "playbooks").mkdir()
    (tmp_path / "playbooks" / "throttle.yaml").write_text(PLAYBOOK)
    async with controller(tmp_path, targets=TARGETS) as built:
        yield built


async def pause(edge: Edge, **changed: Any) -> httpx.Response:
    body = {"reason": "deploy", "by": "ann", "length_s": 600, **changed}
    return await edge.client.post("/api/v1/pauses", json=body)


async def cancel(edge: Edge, run_id: int, reason: str = "enough") -> httpx.Response:
    body = {"reason": reason, "by": "ann"}
    return await edge.client.post(f"/api/v1/runs/{run_id}/cancel", json=body)


def try_to_act(tx: Tx, target: str = "detector-1") -> str:
    """Open a run, and say what its first intent met."""
    rows.opened(tx, target)
    begun = rows.begun(tx, rows.claimed(tx))
    return begun.reason if isinstance(begun, steps.Barred) else "begun"


SCOPES: list[dict[str, str]] = [
    {},
    {"scope": "all"},
    {"scope": "target", "name": "detector-1"},
    {"scope": "playbook", "name": "throttle-slow-detector"},
]


@pytest.mark.parametrize("scope", SCOPES, ids=str)
async def test_after_a_pause_no_replica_begins_a_forward_action(
    edge: Edge, scope: dict[str, str]
) -> None:
    answer = await pause(edge, **scope)
    assert answer.status_code == 201
    assert answer.json()["until"] == "2026-11-22T12:10:00Z"
    replica = Database(edge.db.url, clock=edge.clock)
    assert await replica.write(try_to_act) == "paused"
    replica.close()


async def test_a_pause_of_one_target_leaves_the_others_alone(edge: Edge) -> None:
    await pause(edge, scope="target", name="detector-1")
    assert await edge.db.write(try_to_act, "detector-2") == "begun"


async def test_a_pause_ends_by_itself(edge: Edge) -> None:
    await pause(edge)
    edge.clock.forward(seconds=599)
    assert len((await edge.client.get("/api/v1/pauses")).json()) == 1
    edge.clock.forward(seconds=2)
    assert (await edge.client.get("/api/v1/pauses")).json() == []
    assert await edge.db.write(try_to_act) == "begun"


async def test_resume_lifts_exactly_the_scope_it_names(edge: Edge) -> None:
    await pause(edge)
    await pause(edge, scope="target", name="detector-1")
    lifted = await edge.client.post("/api/v1/resume", json={"by": "bob"})
    assert lifted.json() == {"lifted": 1}
    (left,) = (await edge.client.get("/api/v1/pauses")).json()
    assert (left["scope"], left["name"]) == ("target", "detector-1")
    again = await edge.client.post("/api/v1/resume", json={"by": "bob"})
    assert again.json() == {"lifted": 0}


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"scope": "target", "name": "detector-l"}, "known: detector-1"),
        ({"scope": "playbook", "name": "throttle"}, "known: throttle-slow-detector"),
        ({"scope": "target"}, "which target? Give its name; known: detector-1"),
        ({"scope": "all", "name": "detector-1"}, "takes no name"),
        ({"scope": "everything"}, "scope"),
        ({"reason": ""}, "reason"),
        ({"by": ""}, "by"),
        ({"length_s": 0}, "length_s"),
        ({"length_s": 1e-9}, "length_s"),
        ({"length_s": -5}, "length_s"),
        ({"length_s": 7 * 86400 + 1}, "length_s"),
        ({"until": "tomorrow"}, "until"),
    ],
    ids=str,
)
async def test_a_pause_that_would_hold_nothing_is_refused(
    edge: Edge, wanted: dict[str, Any], said: str
) -> None:
    answer = await pause(edge, **wanted)
    assert answer.status_code == 422
    assert said in answer.json()["detail"]
    assert (await edge.client.get("/api/v1/pauses")).json() == []


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e400"])
async def test_a_length_that_is_no_number_is_refused(edge: Edge, number: str) -> None:
    body = f'{{"reason": "r", "by": "b", "length_s": {number}}}'
    headers = {"content-type": "application/json"}
    answer = await edge.client.post("/api/v1/pauses", content=body, headers=headers)
    assert answer.status_code == 422


async def test_a_cancelled_run_stops_before_its_next_forward_action(edge: Edge) -> None:
    run_id = await edge.db.write(rows.opened)
    answer = await cancel(edge, run_id)
    assert answer.status_code == 202
    assert answer.json()["stop_reason"] == "cancelled by ann: enough"
    run = await edge.db.write(rows.claimed)
    held = await edge.db.write(rows.begun, run)
    assert isinstance(held, steps.Barred)
    assert held.reason == "stop"


async def test_cancelling_twice_keeps_the_first_reason_and_is_no_error(edge: Edge) -> None:
    run_id = await edge.db.write(rows.opened)
    await cancel(edge, run_id)
    again = await cancel(edge, run_id, "me too")
    assert again.status_code == 202
    assert again.json()["stop_reason"] == "cancelled by ann: enough"


@pytest.mark.parametrize("asked", ["preempted: restart has a higher priority", "paused: all"])
async def test_a_persons_cancel_outranks_a_stop_that_would_keep_what_is_held(
    edge: Edge, asked: str
) -> None:
    run_id = await edge.db.write(rows.opened)
    assert await edge.db.write(runs.ask_to_stop, run_id, reason=asked)
    assert (await cancel(edge, run_id)).json()["stop_reason"] == "cancelled by ann: enough"
    assert not await edge.db.write(runs.ask_to_stop, run_id, reason=asked)


async def test_a_closed_run_cannot_be_cancelled(edge: Edge) -> None:
    await edge.db.write(rows.opened)
    run = await edge.db.write(rows.claimed)
    await edge.db.write(runs.close, run, state=RunState.FAILED, verdict=None, reason="x")
    answer = await cancel(edge, run.id)
    assert answer.status_code == 409
    assert "closed already: failed" in answer.json()["detail"]
    assert (await cancel(edge, 99)).status_code == 404


async def test_a_call_in_flight_while_a_pause_arrives_is_still_recorded(edge: Edge) -> None:
    await edge.db.write(rows.opened)
    run = await edge.db.write(rows.claimed)
    begun = await edge.db.write(rows.begun, run)
    assert isinstance(begun, steps.Begun)
    await pause(edge)
    await edge.db.write(steps.finish, run, begun.step_id, status=StepStatus.OK, result={})
    history = await edge.db.read(steps.history, run.id)
    assert [step.status for step in history.steps] == [StepStatus.OK]


async def test_a_web_page_cannot_post_a_pause_without_asking_the_browser_first(edge: Edge) -> None:
    """A form or a plain fetch sends no JSON type; the one that does must ask first."""
    body = '{"reason": "r", "by": "b", "length_s": 60}'
    for kind in ("text/plain", "application/x-www-form-urlencoded"):
        answer = await edge.client.post(
            "/api/v1/pauses", content=body, headers={"content-type": kind}
        )
        assert answer.status_code == 422
