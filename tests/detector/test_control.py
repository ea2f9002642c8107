"""The control endpoints over HTTP: who may, what they answer, what they never wait for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from detector_service.tunables import KNOBS
from detector_service.tunables.statefile import UnsyncedError, write_durably
from tests.detector.toys import Clock, running, until


@pytest.fixture(autouse=True)
def _quick_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detector_service.app.TICK_S", 0.02)


def reason(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json().get("reason")


async def test_the_document_has_every_part_of_the_contract(tmp_path: Path) -> None:
    async with running(tmp_path, instance="d1") as detector:
        answer = await detector.client.get("/v1/settings")
        body = answer.json()
    assert answer.headers["etag"] == '"1"'
    for part in ("values", "base", "ranges", "effective", "owners"):
        assert set(body[part]) == set(KNOBS), part
    assert body["ranges"]["max_concurrency"] == {"min": 1, "max": 256}
    assert body["effective"]["iou_threshold"] is True
    assert body["effective"]["frame_stride"] is True
    assert (body["leases"], body["pins"], body["fencing_token"]) == ({}, {}, 0)
    assert body["instance"] == "d1"
    assert body["started_at"].endswith("Z")


async def test_a_leased_patch_shows_the_lease_and_a_new_generation(tmp_path: Path) -> None:
    clock = Clock(1_800_000_000.0)
    async with running(tmp_path, clock=clock) as detector:
        answer = await detector.patch({"max_concurrency": 4}, lease_s=900)
    assert answer.status_code == 200
    assert answer.headers["etag"] == '"2"'
    assert answer.json()["leases"]["max_concurrency"] == {
        "owner": "controller",
        "value": 4,
        "base": 10,
        "expires_at": "2027-01-15T08:15:00.000Z",
        "state": "held",
        "revert_step": 1,
        "revert_every_s": 60.0,
        "reason": "a test",
    }


async def test_a_lease_lapses_by_itself_and_the_ceiling_ramps_back(tmp_path: Path) -> None:
    async with running(tmp_path) as detector:
        await detector.patch({"max_concurrency": 8}, lease_s=30, revert_every_s=5)
        ceiling = lambda: detector.parts.document.values["max_concurrency"]  # noqa: E731 - read often
        for expected in (9, 10):
            detector.clock.forward(30 if expected == 9 else 5)
            await until(lambda wanted=expected: ceiling() == wanted)
        assert (await detector.settings())["leases"] == {}
        changes = 'detector_config_changes_total{field="max_concurrency",owner_kind="expiry"}'
        assert await detector.metric(changes) == 2


async def test_a_restart_comes_back_as_throttled_as_it_was(tmp_path: Path) -> None:
    clock = Clock()
    async with running(tmp_path, clock=clock) as detector:
        await detector.patch({"max_concurrency": 2}, lease_s=30)
        await detector.client.post("/v1/drain", json={"owner": "c", "reason": "r"})
        await detector.client.put("/v1/pins/imgsz", json={"owner": "ann", "reason": "r"})
    clock.forward(10)
    async with running(tmp_path, clock=clock, max_concurrency=10) as detector:
        body = await detector.settings()
        assert body["values"]["max_concurrency"] == 2
        assert body["pins"]["imgsz"]["owner"] == "ann"
        assert (await detector.client.get("/v1/drain")).json()["draining"] is True
        assert (await detector.detect()).status_code == 503
        clock.forward(100_000)
        await until(lambda: detector.parts.document.values["max_concurrency"] == 3)
        assert not detector.parts.draining


async def test_headers_guard_a_patch(tmp_path: Path) -> None:
    async with running(tmp_path) as detector:
        ok = await detector.patch(
            {"max_concurrency": 5}, headers={"If-Match": '"1"', "X-Fencing-Token": "7"}
        )
        assert ok.json()["fencing_token"] == 7
        stale = await detector.patch({"max_concurrency": 6}, headers={"If-Match": '"1"'})
        assert reason(stale) == (412, "generation")
        fenced = await detector.patch({"max_concurrency": 6}, headers={"X-Fencing-Token": "6"})
        assert reason(fenced) == (412, "fencing")
        for token in ("seven", "-1", "", "٣"):
            headers = {"X-Fencing-Token": token.encode()}
            answer = await detector.patch({"max_concurrency": 6}, headers=headers)
            assert reason(answer) == (422, "invalid"), token
        assert (await detector.settings())["values"]["max_concurrency"] == 5


async def test_a_replayed_key_answers_the_same_and_applies_nothing(tmp_path: Path) -> None:
    async with running(tmp_path) as detector:
        headers = {
            "Idempotency-Key": "run/forward/1/1/1",
            "If-Match": '"1"',
            "X-Fencing-Token": "3",
        }
        first = await detector.patch({"max_concurrency": 5}, lease_s=60, headers=headers)
        await detector.patch({"imgsz": 480}, headers={"X-Fencing-Token": "9"})
        detector.clock.forward(10)
        again = await detector.patch({"max_concurrency": 5}, lease_s=60, headers=headers)
        assert again.headers["idempotent-replayed"] == "true"
        assert "idempotent-replayed" not in first.headers
        assert again.json() == first.json()
        assert again.headers["etag"] == first.headers["etag"] == '"2"'
        assert (await detector.settings())["generation"] == 3
        other = await detector.patch({"max_concurrency": 6}, headers=headers)
        assert reason(other) == (409, "idempotency_key_reused")
        elsewhere = await detector.client.post(
            "/v1/drain", json={"owner": "c", "reason": "r"}, headers=headers
        )
        assert reason(elsewhere) == (409, "idempotency_key_reused")


async def test_a_drain_honours_fencing_and_replays(tmp_path: Path) -> None:
    async with running(tmp_path) as detector:
        body = {"owner": "controller", "reason": "restart", "lease_s": 60}
        headers = {"Idempotency-Key": "k", "X-Fencing-Token": "5"}
        first = await detector.client.post("/v1/drain", json=body, headers=headers)
        again = await detector.client.post("/v1/drain", json=body, headers=headers)
        assert again.json() == first.json()
        assert again.headers["idempotent-replayed"] == "true"
        stale = await detector.client.delete(
            "/v1/drain",
            params={"owner": "controller", "reason": "r"},
            headers={"X-Fencing-Token": "4"},
        )
        assert reason(stale) == (412, "fencing")


async def test_draining_refuses_detections_and_readiness_but_not_the_canary(tmp_path: Path) -> None:
    async with running(tmp_path) as detector:
        body = {"owner": "controller", "reason": "restart", "lease_s": 60}
        answer = await detector.client.post("/v1/drain", json=body)
        assert answer.json()["draining"] is True
        assert set(answer.json()) >= {
            "draining",
            "inflight",
            "queued",
            "oldest_age_s",
            "expires_at",
        }
        refused = await detector.detect()
        assert reason(refused) == (503, "draining")
        assert int(refused.headers["retry-after"]) > 0
        ready = await detector.client.get("/readyz")
        assert (ready.status_code, ready.json()["draining"]) == (503, True)
        assert (await detector.client.get("/livez")).status_code == 200
        assert (await detector.client.post("/v1/canary")).json()["ok"] is True
        other = await detector.client.delete("/v1/drain", params={"owner": "x", "reason": "r"})
        assert reason(other) == (409, "drained")
        own = await detector.client.delete(
            "/v1/drain", params={"owner": "controller", "reason": "r"}
        )
        assert own.json()["draining"] is False
        assert (await detector.detect()).status_code == 200


async def test_a_drain_of_a_dead_controller_ends_by_itself(tmp_path: Path) -> None:
    async with running(tmp_path) as detector:
        await detector.client.post("/v1/drain", json={"owner": "c", "reason": "r", "lease_s": 60})
        detector.clock.forward(60)
        await until(lambda: not detector.parts.draining)
        assert (await detector.detect()).status_code == 200


async def test_a_drain_that_finds_a_lapsed_lease_lets_those_who_wait_start(tmp_path: Path) -> None:
    async with running(tmp_path, max_concurrency=2) as detector:
        await detector.patch({"max_concurrency": 1}, lease_s=60)
        detector.backend.gate.clear()
        inside = await detector.held_up(1, 2)
        assert detector.parts.limiter.running == 1
        detector.clock.forward(60)
        await detector.client.post("/v1/drain", json={"owner": "c", "reason": "r"})
        assert detector.parts.limiter.running == 2
        detector.backend.gate.set()
        assert [(await task).status_code for task in inside] == [200, 200]


async def test_a_pin_keeps_the_controller_and_the_article_out(tmp_path: Path) -> None:
    async with running(tmp_path) as detector:
        pin = {"owner": "ann", "reason": "I watch it", "value": 3}
        assert (await detector.client.put("/v1/pins/max_concurrency", json=pin)).status_code == 200
        answer = await detector.patch({"imgsz": 320, "max_concurrency": 9})
        assert reason(answer) == (409, "pinned")
        assert (answer.json()["knob"], answer.json()["owner"]) == ("max_concurrency", "ann")
        legacy = await detector.client.post("/adjust-concurrency", json={"max_concurrency": 9})
        assert reason(legacy) == (409, "pinned")
        assert (await detector.settings())["values"]["imgsz"] == 640
        gone = await detector.client.request(
            "DELETE", "/v1/pins/max_concurrency", json={"owner": "ann", "reason": "done"}
        )
        assert gone.json()["pins"] == {}
        assert gone.json()["values"]["max_concurrency"] == 3


async def test_giving_back_a_lease_takes_the_owner_from_body_or_query(tmp_path: Path) -> None:
    async with running(tmp_path) as detector:
        for request in (
            {"json": {"owner": "controller", "reason": "r"}},
            {"params": {"owner": "controller", "reason": "r"}},
        ):
            await detector.patch({"max_concurrency": 4}, lease_s=60)
            answer = await detector.client.request(
                "DELETE", "/v1/leases/max_concurrency", **request
            )
            assert answer.json()["values"]["max_concurrency"] == 10
        nobody = await detector.client.delete("/v1/leases/max_concurrency")
        assert reason(nobody) == (422, "invalid")


@pytest.mark.parametrize(
    "request_options",
    [
        {"json": {"conf_threshold": 0.5, "iou_threshold": 0.6}},
        {"data": {"conf_threshold": "0.5", "iou_threshold": "0.6"}},
        {"params": {"confidence_threshold": "0.5", "iou_threshold": "0.6"}},
    ],
)
async def test_the_articles_update_params_takes_json_form_and_query(
    tmp_path: Path, request_options: dict[str, Any]
) -> None:
    async with running(tmp_path) as detector:
        answer = await detector.client.post("/update-params", **request_options)
        assert answer.status_code == 200
        body = await detector.settings()
        assert (body["base"]["conf_threshold"], body["base"]["iou_threshold"]) == (0.5, 0.6)
        assert body["owners"]["conf_threshold"] == "legacy"
        assert body["pins"] == {}
        assert await detector.metric("confidence_threshold") == 0.5


@pytest.mark.parametrize("name", ["max_concurrency", "concurrency", "max_concurrent"])
async def test_the_articles_adjust_concurrency_changes_the_base(tmp_path: Path, name: str) -> None:
    async with running(tmp_path) as detector:
        answer = await detector.client.post("/adjust-concurrency", json={name: 4})
        assert answer.json()["base"]["max_concurrency"] == 4
        assert await detector.metric("detector_concurrency_ceiling") == 4


async def test_the_articles_endpoints_refuse_a_leased_knob_and_nonsense(tmp_path: Path) -> None:
    async with running(tmp_path) as detector:
        await detector.patch({"max_concurrency": 4, "conf_threshold": 0.5}, lease_s=60)
        leased = await detector.client.post("/adjust-concurrency", params={"concurrency": 9})
        assert reason(leased) == (409, "leased")
        params = await detector.client.post("/update-params", json={"conf_threshold": 0.9})
        assert reason(params) == (409, "leased")
        for body in (
            b"[]",
            b"{",
            b'{"conf_threshold": "high"}',
            b'{"speed": 1}',
            b'{"imgsz": true}',
            b"",
        ):
            answer = await detector.client.post("/update-params", content=body)
            assert reason(answer) == (422, "invalid"), body
        other = await detector.client.post("/adjust-concurrency", json={"imgsz": 320})
        assert reason(other) == (422, "invalid")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", "values"),
        (b"{", "body"),
        (b'{"values": {"imgsz": 320}, "reason": "r"}', "owner"),
        (b'{"values": {"imgsz": "320"}, "owner": "o", "reason": "r"}', "values.imgsz"),
        (b'{"values": {"imgsz": true}, "owner": "o", "reason": "r"}', "values.imgsz"),
        (b'{"values": {"imgsz": 320}, "owner": "o", "reason": "r", "lease": 3}', "lease"),
        (b'{"values": {"imgsz": 320}, "owner": "o", "reason": "r", "lease_s": NaN}', "lease_s"),
        (b'{"values": {"imgsz": 320}, "owner": "o", "reason": "r", "lease_s": -1}', "lease_s"),
        (b'{"values": {"imgsz": 321}, "owner": "o", "reason": "r"}', "imgsz"),
        (b'{"values": {}, "owner": "o", "reason": "r"}', "values"),
    ],
)
async def test_a_patch_that_is_wrong_says_which_field(
    tmp_path: Path, body: bytes, field: str
) -> None:
    async with running(tmp_path) as detector:
        answer = await detector.client.patch("/v1/settings", content=body)
        assert reason(answer) == (422, "invalid")
        assert any(where.startswith(field) for where in answer.json()["problems"])
        assert (await detector.settings())["generation"] == 1


async def test_a_dry_run_shows_the_document_and_changes_nothing(tmp_path: Path) -> None:
    async with running(tmp_path) as detector:
        answer = await detector.patch({"max_concurrency": 4}, lease_s=60, dry_run=True)
        assert answer.json()["dry_run"] is True
        assert answer.json()["values"]["max_concurrency"] == 4
        body = await detector.settings()
        assert (body["generation"], body["values"]["max_concurrency"]) == (1, 10)
    assert not (tmp_path / "state" / "settings.json").exists()


async def test_a_control_body_over_the_limit_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path) as detector:
        answer = await detector.client.patch("/v1/settings", content=b" " * 70_000)
        assert reason(answer) == (413, "too_large")


async def test_a_full_disk_answers_507_and_changes_nothing(tmp_path: Path) -> None:
    def full(_path: Path, _data: bytes) -> None:
        raise OSError(28, "No space left on device")

    def broken(_path: Path, _data: bytes) -> None:
        raise OSError(5, "Input/output error")

    for writer, expected in ((full, (507, "disk_full")), (broken, (503, "state_unwritable"))):
        async with running(tmp_path, writer=writer) as detector:
            answer = await detector.patch({"max_concurrency": 4})
            assert reason(answer) == expected
            assert (await detector.settings())["values"]["max_concurrency"] == 10


async def test_a_write_that_is_in_force_but_perhaps_not_durable_is_500_and_never_503(
    tmp_path: Path,
) -> None:
    def unsynced(path: Path, data: bytes) -> None:
        write_durably(path, data)
        raise UnsyncedError(5, "Input/output error")

    async with running(tmp_path, writer=unsynced) as detector:
        answer = await detector.patch({"max_concurrency": 4})
        assert reason(answer) == (500, "state_unsynced")
        assert (await detector.settings())["values"]["max_concurrency"] == 4


CONTROL = [
    ("PATCH", "/v1/settings"),
    ("DELETE", "/v1/leases/imgsz"),
    ("PUT", "/v1/pins/imgsz"),
    ("DELETE", "/v1/pins/imgsz"),
    ("POST", "/v1/drain"),
    ("DELETE", "/v1/drain"),
    ("POST", "/v1/canary"),
    ("POST", "/v1/cache/clear"),
    ("POST", "/update-params"),
    ("POST", "/adjust-concurrency"),
]
OPEN = [
    *("/livez", "/readyz", "/metrics", "/v1/settings", "/v1/settings/history", "/v1/drain"),
    *("/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/cursor"),
]


async def test_with_a_token_every_control_endpoint_asks_for_it(tmp_path: Path) -> None:
    async with running(tmp_path, token="s3cret", client_host="10.1.2.3") as detector:
        for method, path in CONTROL:
            for given in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic s3cret"}):
                answer = await detector.client.request(method, path, headers=given)
                assert reason(answer) == (401, "unauthorized"), (method, path)
                assert answer.headers["www-authenticate"] == "Bearer"
        for path in OPEN:
            assert (await detector.client.get(path)).status_code == 200
        ok = await detector.patch({"imgsz": 320}, headers={"Authorization": "Bearer s3cret"})
        assert ok.status_code == 200


async def test_a_token_may_have_any_letters(tmp_path: Path) -> None:
    async with running(tmp_path, token="pässwörd") as detector:
        for given, status in (("pässwörd", 200), ("passwörd", 401), ("p\xff", 401)):
            headers = {"Authorization": f"Bearer {given}".encode()}
            assert (await detector.patch({"imgsz": 320}, headers=headers)).status_code == status


async def test_without_a_token_control_is_for_loopback_only(tmp_path: Path) -> None:
    async with running(tmp_path, client_host="10.1.2.3") as detector:
        for method, path in CONTROL:
            answer = await detector.client.request(method, path)
            assert reason(answer) == (403, "forbidden"), (method, path)
        for path in OPEN:
            assert (await detector.client.get(path)).status_code == 200
        assert (await detector.detect()).status_code == 200


async def test_a_web_page_of_another_origin_cannot_steer_a_local_detector(tmp_path: Path) -> None:
    async with running(tmp_path) as detector:
        body = {"values": {"imgsz": 320}, "owner": "o", "reason": "r"}
        for origin, expected in (("http://evil.example", 403), ("http://127.0.0.1", 200)):
            answer = await detector.client.patch(
                "/v1/settings", content=json.dumps(body), headers={"Origin": origin}
            )
            assert answer.status_code == expected


OWN_NAMES = ("127.0.0.1:7860", "localhost", "LOCALHOST:7860", "[::1]:7860")
OTHER_NAMES = (
    "rebound.example",
    "rebound.example:7860",
    "127.0.0.1.rebound.example",
    "localhost@rebound.example",
    "[::1",
    "10.0.0.1",
    "",
)


async def test_a_page_whose_name_was_given_our_address_cannot_steer_a_local_detector(
    tmp_path: Path,
) -> None:
    async def answer(method: str, path: str, host: str) -> tuple[int, str]:
        headers = {"Host": host, "Origin": f"http://{host}"}
        return reason(await detector.client.request(method, path, headers=headers))

    async with running(tmp_path) as detector:
        for host in OTHER_NAMES:
            assert await answer("PATCH", "/v1/settings", host) == (403, "forbidden"), host
        for host in OWN_NAMES:
            assert await answer("PATCH", "/v1/settings", host) == (422, "invalid"), host
        for method, path in CONTROL:
            assert await answer(method, path, "rebound.example") == (403, "forbidden"), path


async def test_with_a_token_a_detector_may_be_called_by_any_name(tmp_path: Path) -> None:
    async with running(tmp_path, token="s3cret") as detector:
        headers = {"Host": "detector.example", "Authorization": "Bearer s3cret"}
        assert (await detector.patch({"imgsz": 320}, headers=headers)).status_code == 200


async def test_control_answers_while_the_device_is_stuck_and_the_room_is_full(
    tmp_path: Path,
) -> None:
    async with running(tmp_path, max_concurrency=2) as detector:
        detector.backend.gate.clear()
        stuck = await detector.held_up(1, 2, 3, 4)
        assert (await detector.detect(5)).status_code == 429
        for path in OPEN:
            assert (await detector.client.get(path)).status_code == 200
        assert (await detector.patch({"max_concurrency": 1})).status_code == 200
        drain = (await detector.client.get("/v1/drain")).json()
        assert (drain["inflight"], drain["queued"]) == (2, 2)
        detector.backend.gate.set()
        assert [(await task).status_code for task in stuck] == [200] * 4
