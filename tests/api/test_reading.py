"""The read API: one story from alert to verdict, pages that do not shift, errors of one shape."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from remediator.model.decision import Admitted
from remediator.model.playbook import Mode
from remediator.model.verdict import Reading
from remediator.settings import TargetSettings
from remediator.store import decisions, steps
from remediator.store.database import Tx
from tests.api import rows
from tests.api.edge import Edge, a_payload, an_alert, controller


async def read(edge: Edge, path: str, status: int = 200, **query: Any) -> Any:
    answer = await edge.client.get(f"/api/v1/{path}", params=query)
    assert answer.status_code == status, answer.text
    return answer.json()


async def a_story(edge: Edge) -> int:
    await edge.post(a_payload(an_alert(severity="warning")))
    return await edge.db.write(rows.a_story)


async def test_an_alert_tells_its_decisions_and_its_runs(edge: Edge) -> None:
    run_id = await a_story(edge)
    (listed,) = await read(edge, "alerts", firing=True, name="DetectorSlow")
    story = await read(edge, f"alerts/{listed['id']}")
    assert story["labels"]["severity"] == "warning"
    told = {d["reason"]: d for d in story["decisions"]}
    assert told["cooldown"]["count"] == 3
    assert told["cooldown"]["evidence"] == {"cooldown_s": 300}
    assert told["admitted"]["run_id"] == run_id
    assert [run["id"] for run in story["runs"]] == [run_id]


async def test_a_run_tells_everything_on_record_of_it(edge: Edge) -> None:
    story = await read(edge, f"runs/{await a_story(edge)}")
    assert (story["state"], story["verdict"]) == ("succeeded", "improved")
    (step,) = story["steps"]
    assert step["status"] == "ok"
    assert step["idempotency_key"].endswith("/forward/0/0/set")
    assert step["fencing_token"] >= 1
    assert [(m["status"], m["value"]) for m in story["measurements"]] == [
        ("nan", None),
        ("ok", 0.2),
    ]
    (change,) = story["changes"]
    assert (change["base"], change["value"], change["state"]) == (10, 6, "held")
    assert story["messages"][0]["title"] == "throttled"
    assert story["playbook_text"] == "name: throttle\n"
    assert [d["reason"] for d in story["decisions"]] == ["admitted"]


async def test_evidence_without_a_finite_number_can_be_read(edge: Edge) -> None:
    run_id = await a_story(edge)
    await edge.db.write(_endless_evidence, run_id)
    assert (await read(edge, f"runs/{run_id}"))["id"] == run_id
    assert len(await read(edge, "decisions")) == 3


def _endless_evidence(tx: Tx, run_id: int) -> None:
    readings = [{"query": "a/0", "value": float("inf"), "said": "inf"}]
    decisions.record(
        tx,
        alert_id=1,
        playbook="p",
        target="t",
        decision=Admitted(run_id=run_id, evidence={"readings": readings}),
    )
    reading = Reading.of("a/0", tx.now, float("inf"))
    rows.opened(tx, "other")
    steps.measure(tx, rows.claimed(tx), role="verify", readings=[reading])


@pytest.mark.parametrize(
    ("query", "number"),
    [
        ({"state": "succeeded"}, 1),
        ({"state": "acting"}, 0),
        ({"target": "detector-1"}, 1),
        ({"target": "other"}, 0),
        ({"playbook": "throttle-slow-detector", "kind": "remedy"}, 1),
        ({"kind": "restore"}, 0),
        ({"alert_id": 1}, 1),
        ({"alert_id": 2}, 0),
    ],
)
async def test_runs_are_found_by_what_they_are(
    edge: Edge, query: dict[str, Any], number: int
) -> None:
    await a_story(edge)
    assert len(await read(edge, "runs", **query)) == number


async def test_alerts_are_found_by_name_fingerprint_and_state(edge: Edge) -> None:
    await edge.post(a_payload(an_alert("aa11"), an_alert("bb22", status="resolved")))
    assert len(await read(edge, "alerts", name="DetectorSlow")) == 2
    assert await read(edge, "alerts", name="Nothing") == []
    assert [a["fingerprint"] for a in await read(edge, "alerts", fingerprint="aa")] == ["aa11"]
    assert await read(edge, "alerts", fingerprint="%") == []
    assert [a["fingerprint"] for a in await read(edge, "alerts", firing=False)] == ["bb22"]


async def test_pages_by_cursor_miss_and_repeat_nothing_while_rows_arrive(edge: Edge) -> None:
    await edge.post(a_payload(*(an_alert(f"{i:04x}") for i in range(25))))
    seen: list[int] = []
    cursor: dict[str, int] = {}
    while page := await read(edge, "alerts", limit=10, **cursor):
        seen += [alert["id"] for alert in page]
        cursor = {"before": seen[-1]}
        await edge.post(a_payload(an_alert(f"new-{len(seen)}")))
    assert seen == sorted(range(1, 26), reverse=True)


LARGE = 10**30


@pytest.mark.parametrize(
    "path",
    [
        f"alerts/{LARGE}",
        f"runs/{LARGE}",
        f"runs?before={LARGE}",
        f"alerts?before={LARGE}",
        f"decisions?alert_id={LARGE}",
        f"decisions?run_id={LARGE}",
        f"runs?alert_id={LARGE}",
        "runs/0",
        "runs/-1",
        "runs/one",
        "runs?limit=0",
        "runs?limit=501",
        "alerts?firing=perhaps",
    ],
)
async def test_a_question_that_names_nothing_is_answered_422_with_the_place(
    edge: Edge, path: str
) -> None:
    answer = await edge.client.get(f"/api/v1/{path}")
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"]


@pytest.mark.parametrize("path", ["alerts/77", "runs/77", "targets/nobody", "nothing"])
async def test_what_is_not_there_is_answered_404_as_a_problem(edge: Edge, path: str) -> None:
    problem = await read(edge, path, status=404)
    assert (problem["status"], problem["title"]) == (404, "Not Found")


async def test_a_target_that_does_not_answer_is_still_described(tmp_path: Path) -> None:
    known = TargetSettings(url="http://127.0.0.1:9", instance="detector:7860", mode=Mode.PROPOSE)
    targets = {"detector-1": known}
    async with controller(tmp_path, targets=targets) as edge:
        await a_story(edge)
        (listed,) = await read(edge, "targets")
        assert (listed["name"], listed["live"], listed["live_error"]) == ("detector-1", None, None)
        assert [change["knob"] for change in listed["changes"]] == ["max_concurrency"]
        assert listed["caps"] == {"targets.detector-1.mode": "propose"}
        story = await read(edge, "targets/detector:7860")
        assert story["name"] == "detector-1"
        assert story["live"] is None
        assert story["live_error"]


PLAYBOOK = """\
apiVersion: remediator/v1
name: tell
mode: auto
priority: 5
on: {alerts: ['alertname="DetectorSlow"']}
target: ${{ alert.labels.instance }}
steps:
  - notify: {message: it is slow}
"""


async def test_playbooks_are_listed_beside_the_problems_of_broken_ones(tmp_path: Path) -> None:
    folder = tmp_path / "playbooks"
    folder.mkdir()
    (folder / "broken.yaml").write_text("name: [\n")
    (folder / "good.yaml").write_text(PLAYBOOK)
    async with controller(tmp_path) as edge:
        told = await read(edge, "playbooks")
    assert [p["name"] for p in told["playbooks"]] == ["tell"]
    assert told["playbooks"][0]["text"] == PLAYBOOK
    (problem,) = told["problems"]
    assert problem["path"].endswith("broken.yaml")
    assert problem["line"] >= 1
    assert problem["message"]


async def test_every_endpoint_says_what_it_is_for(edge: Edge) -> None:
    document = (await edge.client.get("/openapi.json")).json()
    silent = [
        f"{method} {path}"
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if not operation.get("description")
    ]
    assert silent == []
    assert len(document["paths"]) >= 13
    assert "ValidationError" not in str(document["paths"]["/webhooks/alertmanager"])


async def test_metrics_carry_no_label_of_an_alert_a_run_or_a_target(edge: Edge) -> None:
    await a_story(edge)
    scraped = await edge.client.get("/metrics")
    assert scraped.headers["content-type"].startswith("text/plain")
    assert 'remediator_runs{kind="remedy",state="succeeded",verdict="improved"} 1.0' in scraped.text
    assert "remediator_held_changes 1.0" in scraped.text
    for word in ("detector-1", "f00d", "throttle-slow", "DetectorSlow"):
        assert word not in scraped.text


async def test_being_alive_asks_nobody(edge: Edge) -> None:
    edge.db._engine.dispose()
    assert (await edge.client.get("/livez")).json() == {"alive": True}
    assert (await edge.client.get("/readyz")).json()["ready"] is True
