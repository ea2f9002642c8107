"""Who says what to the controls: blanks are no names, and what runs or holds has a name."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from remediator.settings import TargetSettings
from tests.api import rows
from tests.api.edge import Edge, controller

TARGETS = {"detector-1": TargetSettings(url="http://127.0.0.1:9")}
WHO = {"reason": "deploy", "by": "ann"}
BLANK = "  \t"
PLAYBOOK = """\
apiVersion: remediator/v1
name: fewer
on: {alerts: ['alertname="DetectorSlow"']}
target: ${{ alert.labels.instance }}
steps:
  - retune: {set: {batch_size: 4}}
    lease: 10m
"""


@pytest.fixture
async def edge(tmp_path: Path) -> AsyncIterator[Edge]:
    (tmp_path / "playbooks").mkdir()
    (tmp_path / "playbooks" / "fewer.yaml").write_text(PLAYBOOK)
    async with controller(tmp_path, targets=TARGETS) as built:
        yield built


@pytest.mark.parametrize("blank", ["reason", "by"])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("pauses", {"length_s": 60}),
        ("kill", {}),
        ("stop", {}),
        ("pins", {"target": "detector-1", "knob": "batch_size"}),
        ("breakers/reset", {"playbook": "fewer", "target": "detector-1"}),
    ],
)
async def test_a_blank_is_nobody_and_no_reason(
    edge: Edge, path: str, body: dict[str, Any], blank: str
) -> None:
    answer = await edge.client.post(f"/api/v1/{path}", json={**WHO, **body, blank: BLANK})
    assert answer.status_code == 422
    assert blank in answer.text


async def test_a_blank_lifts_nothing(edge: Edge) -> None:
    for path in ("kill", "pins", "modes"):
        query = {"by": BLANK, "target": "detector-1", "knob": "batch_size", "scope": "all"}
        answer = await edge.client.delete(f"/api/v1/{path}", params=query)
        assert answer.status_code == 422


async def test_what_people_say_goes_on_record_without_the_blanks_around_it(edge: Edge) -> None:
    body = {"reason": " deploy ", "by": " ann ", "length_s": 60}
    made = (await edge.client.post("/api/v1/pauses", json=body)).json()
    assert (made["reason"], made["by"]) == ("deploy", "ann")


async def test_what_is_no_longer_served_but_runs_can_be_paused_and_stopped_by_name(
    edge: Edge,
) -> None:
    await edge.db.write(rows.opened, "gone-1")
    (run,) = (await edge.client.get("/api/v1/runs")).json()
    for scope, name in (("playbook", run["playbook"]), ("target", "gone-1")):
        body = {**WHO, "scope": scope, "name": name}
        paused = await edge.client.post("/api/v1/pauses", json={**body, "length_s": 60})
        stopped = await edge.client.post("/api/v1/stop", json=body)
        assert (paused.status_code, stopped.status_code) == (201, 202), stopped.text


async def test_pinning_a_knob_that_no_playbook_moves_holds_and_says_so(edge: Edge) -> None:
    typo = {**WHO, "target": "detector-1", "knob": "batchsize"}
    made = await edge.client.post("/api/v1/pins", json=typo)
    assert made.status_code == 201
    assert made.json()["warning"] == "no playbook moves 'batchsize'; they move: batch_size"
    right = await edge.client.post("/api/v1/pins", json={**typo, "knob": "batch_size"})
    assert right.json()["warning"] == ""
