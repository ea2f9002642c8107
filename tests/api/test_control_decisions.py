"""Approve, reject, stop, kill, override, pin, mode: what a person decides, and what is refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from remediator.model.playbook import Mode
from remediator.model.run import PROPOSAL, RunState
from remediator.settings import TargetSettings
from remediator.store import approvals, changes, overrides, runs, steps
from remediator.store.database import Database, Tx
from tests.api import rows
from tests.api.edge import Edge, controller
from tests.api.test_control import PLAYBOOK

TARGETS = {"detector-1": TargetSettings(url="http://127.0.0.1:9", pool="detectors")}
WHO = {"by": "ann", "reason": "deploy"}


@pytest.fixture
async def edge(tmp_path: Path) -> AsyncIterator[Edge]:
    (tmp_path / "playbooks").mkdir()
    (tmp_path / "playbooks" / "throttle.yaml").write_text(PLAYBOOK)
    async with controller(tmp_path, targets=TARGETS) as built:
        yield built


async def post(edge: Edge, path: str, **body: Any) -> httpx.Response:
    return await edge.client.post(f"/api/v1/{path}", json={**WHO, **body})


def asking(tx: Tx, /) -> int:
    """Open a proposal that waits for a person."""
    run_id = rows.opened(tx, mode=Mode.PROPOSE, proposed=True, holds_slot=False)
    run = rows.claimed(tx)
    row = approvals.ask(tx, run, pc=PROPOSAL, message="May it?", within=timedelta(minutes=30))
    runs.park(tx, run, due_at=row.expires_at, reason="waits")
    return run_id


def a_held_change(tx: Tx, /) -> int:
    """Leave a change held after its run."""
    run_id = rows.opened(tx, pool="detectors")
    run = rows.claimed(tx)
    changes.hold(
        tx,
        run,
        changes.NewChange(
            knob="max_concurrency",
            base=10,
            value=6,
            actuator="settings",
            lease=timedelta(minutes=15),
            restore=None,
        ),
    )
    runs.close(tx, run, state=RunState.SUCCEEDED, verdict=None, reason="x")
    return run_id


def try_to_act(tx: Tx, /, **intent: Any) -> str:
    """Open a run, and say what its first intent met."""
    rows.opened(tx, pool="detectors")
    begun = rows.begun(tx, rows.claimed(tx), **intent)
    return begun.reason if isinstance(begun, steps.Barred) else "begun"


# -- approvals -------------------------------------------------------------------------------------


async def test_an_open_question_is_listed_and_can_be_answered_once(edge: Edge) -> None:
    run_id = await edge.db.write(asking)
    (asked,) = (await edge.client.get("/api/v1/approvals")).json()
    assert (asked["run_id"], asked["target"], asked["message"]) == (run_id, "detector-1", "May it?")
    answer = await post(edge, f"runs/{run_id}/approve")
    assert (answer.status_code, answer.json()["decision"]) == (202, "approved")
    again = await post(edge, f"runs/{run_id}/reject", by="bob")
    assert again.status_code == 409
    assert again.json()["detail"] == "ann approved it already, at 2026-11-22 12:00:00 UTC"
    assert (await edge.client.get("/api/v1/approvals")).json() == []
    story = (await edge.client.get(f"/api/v1/runs/{run_id}")).json()
    assert (story["mode"], story["approvals"][0]["by"]) == ("auto", "ann")


async def test_a_question_that_has_lapsed_cannot_be_answered(edge: Edge) -> None:
    run_id = await edge.db.write(asking)
    edge.clock.forward(minutes=30)
    answer = await post(edge, f"runs/{run_id}/approve")
    assert answer.status_code == 409
    assert "too late: it was open until 2026-11-22 12:30:00 UTC" in answer.json()["detail"]


async def test_what_asks_nothing_cannot_be_answered(edge: Edge) -> None:
    run_id = await edge.db.write(rows.opened)
    answer = await post(edge, f"runs/{run_id}/approve")
    assert (answer.status_code, answer.json()["detail"]) == (
        409,
        f"run R{run_id} asks nothing; it is acting",
    )
    assert (await post(edge, "runs/99/approve")).status_code == 404


async def test_a_run_that_was_stopped_cannot_be_approved_any_more(edge: Edge) -> None:
    run_id = await edge.db.write(asking)
    await post(edge, "stop")
    answer = await post(edge, f"runs/{run_id}/approve")
    assert answer.status_code == 409
    assert "stopped by ann: deploy" in answer.json()["detail"]
    assert (await edge.client.get("/api/v1/approvals")).json() == []


# -- stop and kill ---------------------------------------------------------------------------------


async def test_a_stop_names_what_goes_back(edge: Edge) -> None:
    await edge.db.write(a_held_change)
    open_id = await edge.db.write(rows.opened, "detector-2")
    answer = await post(edge, "stop")
    assert (answer.status_code, answer.json()) == (202, {"runs": [open_id], "changes": [1]})
    (run,) = (await edge.client.get("/api/v1/runs?kind=restore")).json()
    assert (run["change_id"], run["target"]) == (1, "detector-1")


async def test_a_closed_run_is_stopped_by_giving_back_what_it_left(edge: Edge) -> None:
    run_id = await edge.db.write(a_held_change)
    assert (await post(edge, f"runs/{run_id}/stop")).json() == {"runs": [], "changes": [1]}
    (restore,) = (await edge.client.get("/api/v1/runs?kind=restore")).json()
    answer = await post(edge, f"runs/{restore['id']}/stop")
    assert answer.status_code == 409
    assert "gives back already; cancel it" in answer.json()["detail"]
    assert (await post(edge, "runs/99/stop")).status_code == 404


async def test_a_run_that_left_nothing_cannot_be_stopped(edge: Edge) -> None:
    await edge.db.write(rows.opened)
    run = await edge.db.write(rows.claimed)
    await edge.db.write(runs.close, run, state=RunState.FAILED, verdict=None, reason="x")
    answer = await post(edge, f"runs/{run.id}/stop")
    assert (answer.status_code, answer.json()["detail"]) == (
        409,
        f"run R{run.id} is failed, and nothing of it is held",
    )


async def test_the_kill_switch_holds_on_every_replica_until_it_is_lifted(edge: Edge) -> None:
    await post(edge, "kill")
    replica = Database(edge.db.url, clock=edge.clock)
    edge.clock.forward(days=30)
    assert await replica.write(try_to_act) == "killed"
    (one,) = (await edge.client.get("/api/v1/controls")).json()
    assert (one["kind"], one["until"], one["by"]) == ("kill", None, "ann")
    assert (await edge.client.delete("/api/v1/kill?by=bob")).json() == {"lifted": 1}
    assert (await edge.client.delete("/api/v1/kill?by=bob")).json() == {"lifted": 0}
    replica.close()


# -- overrides, pins, modes ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("overrides", {"scope": "all", "decision": "hands_off", "length_s": 60}, "scope"),
        ("overrides", {"scope": "target", "name": "x", "decision": "hands_off", "length_s": 60},
         "known: detector-1"),
        ("overrides", {"scope": "pool", "name": "x", "decision": "hands_off", "length_s": 60},
         "known: detectors"),
        ("overrides", {"scope": "target", "name": "detector-1", "decision": "hands_off"},
         "length_s"),
        ("overrides", {"scope": "target", "name": "detector-1", "decision": "waive",
                       "length_s": 60}, "waive names the guards: cooldown"),
        ("overrides", {"scope": "target", "name": "detector-1", "decision": "waive",
                       "guards": ["require"], "length_s": 60}, "'require' cannot be waived"),
        ("overrides", {"scope": "target", "name": "detector-1", "decision": "hands_off",
                       "guards": ["cooldown"], "length_s": 60}, "with waive only"),
        ("pins", {"target": "detector-2", "knob": "k"}, "known: detector-1"),
        ("pins", {"target": "detector-1", "knob": ""}, "knob"),
        ("pauses", {"scope": "action", "name": "reboot", "length_s": 60}, "restart"),
        ("pauses", {"scope": "pool", "name": "", "length_s": 60}, "which pool?"),
        ("stop", {"scope": "action", "name": "restart"}, "scope"),
        ("stop", {"scope": "pool", "name": "nowhere"}, "known: detectors"),
        ("breakers/reset", {"playbook": "x", "target": "detector-1"},
         "known: throttle-slow-detector"),
        ("kill", {"reason": ""}, "reason"),
    ],
    ids=str,
)  # fmt: skip
async def test_what_would_hold_nothing_or_names_nothing_is_refused(
    edge: Edge, path: str, body: dict[str, Any], said: str
) -> None:
    answer = await post(edge, path, **body)
    assert answer.status_code == 422
    assert said in answer.json()["detail"]
    assert (await edge.client.get("/api/v1/controls")).json() == []


async def test_an_override_holds_ends_and_can_be_lifted(edge: Edge) -> None:
    where = {"scope": "target", "name": "detector-1", "decision": "hands_off", "length_s": 600}
    made = (await post(edge, "overrides", **where)).json()
    assert await edge.db.write(try_to_act) == "override"
    listed = (await edge.client.get("/api/v1/overrides")).json()
    assert [one["id"] for one in listed] == [made["id"]]
    path = f"/api/v1/overrides/{made['id']}?by=bob"
    assert (await edge.client.delete(path)).json() == {"lifted": 1}
    assert (await edge.client.delete(path)).status_code == 404


async def test_a_waiver_names_its_guards(edge: Edge) -> None:
    where = {"scope": "pool", "name": "detectors", "decision": "waive", "length_s": 600}
    await post(edge, "overrides", **where, guards=["cooldown", "storm"])
    place = {"playbook": "any", "target": "detector-1", "pool": "detectors"}
    (one,) = await edge.db.read(overrides.active, **place)
    assert (one.guards, one.by) == (("cooldown", "storm"), "ann")
    assert await edge.db.write(try_to_act) == "begun"


async def test_a_pin_bars_its_knob_and_yields_what_is_held_on_it(edge: Edge) -> None:
    run_id = await edge.db.write(a_held_change)
    await post(edge, "pins", target="detector-1", knob="max_concurrency")
    (change,) = (await edge.client.get(f"/api/v1/runs/{run_id}")).json()["changes"]
    assert (change["state"], change["reason"]) == ("yielded", "pinned by ann: deploy")
    assert await edge.db.write(try_to_act, knobs=("max_concurrency",)) == "pinned"
    query = "/api/v1/pins?target=detector-1&knob=max_concurrency&by=bob"
    assert (await edge.client.delete(query)).json() == {"lifted": 1}
    assert (await edge.client.delete(query)).json() == {"lifted": 0}


async def test_a_mode_replaces_the_one_set_before_and_can_be_taken_away(edge: Edge) -> None:
    for mode in ("observe", "propose"):
        body = {**WHO, "scope": "pool", "name": "detectors", "mode": mode}
        assert (await edge.client.put("/api/v1/modes", json=body)).status_code == 200
    (one,) = (await edge.client.get("/api/v1/controls")).json()
    assert (one["kind"], one["value"]) == ("mode", {"mode": "propose"})
    query = "/api/v1/modes?scope=pool&name=detectors&by=bob"
    assert (await edge.client.delete(query)).json() == {"lifted": 1}
    assert (await edge.client.get("/api/v1/controls")).json() == []


async def test_a_breaker_is_reset_for_the_targets_pool(edge: Edge) -> None:
    body = {"playbook": "throttle-slow-detector", "target": "detector-1"}
    made = await post(edge, "breakers/reset", **body)
    assert made.json()["value"] == {"class": "detectors"}
    at = await edge.db.read(overrides.breaker_reset_at, body["playbook"], "detectors")
    assert at == edge.clock()
    assert await edge.db.read(overrides.breaker_reset_at, body["playbook"], "others") is None
    assert (await edge.client.get("/api/v1/controls")).json() == []
