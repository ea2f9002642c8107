"""The detector actuator against the real detector, with its real model."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from remediator.actuators.detector import DetectorActuator
from remediator.errors import RefusedError, TemporaryError
from remediator.model.effect import Call
from remediator.model.target import Target
from tests.prometheus.daemon import free_port, running, until

pytestmark = pytest.mark.real

TARGET = Target(name="detector-1")
WHO = {"owner": "remediator", "reason": "test"}
TOKEN = "a-control-token"


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("detector")
    (folder / "token").write_text(TOKEN)
    port = free_port()
    environment = {
        **os.environ,
        "DETECTOR_STATE_DIR": str(folder / "state"),
        "DETECTOR_TOKEN_FILE": str(folder / "token"),
        "DETECTOR_TORCH_THREADS": "1",
        "DETECTOR_BACKEND": "torch",
        "YOLO_CONFIG_DIR": str(folder),
    }
    argv = [sys.executable, "-m", "detector_service", "--port", str(port)]
    root = Path(__file__).parents[2]
    with running(argv, folder, environment=environment, cwd=root):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(verify=False) as client:
        yield client


@pytest.fixture
async def actuator(detector: str, client: httpx.AsyncClient, tmp_path: Path) -> DetectorActuator:
    token = tmp_path / "token"
    token.write_text(TOKEN + "\n")
    actuator = DetectorActuator(detector, client=client, token_file=token)

    async def is_ready() -> bool:
        try:
            return bool((await actuator.read(TARGET))["ready"]["ready"])
        except TemporaryError:
            return False

    await until(is_ready, timeout_s=120)
    return actuator


def setting(key: str, value: int, token: int, **more: Any) -> Call:
    args = {"values": {"max_concurrency": value}, "lease_s": 600, **WHO, **more}
    return Call("set", args, idempotency_key=key, fencing_token=token)


async def test_a_lease_is_set_found_renewed_and_given_back(actuator: DetectorActuator) -> None:
    before = await actuator.read(TARGET)
    base = before["settings"]["values"]["max_concurrency"]
    first = setting("r1/f/0/0/set", base + 3, 1, if_generation=before["settings"]["generation"])
    assert await actuator.probe(TARGET, first, before) is False

    done = await actuator.send(TARGET, first)
    assert done["values"]["max_concurrency"] == base + 3
    assert await actuator.probe(TARGET, first, before) is True
    assert (await actuator.send(TARGET, first))["generation"] == done["generation"]

    held = await actuator.read(TARGET)
    renewal = setting("r1/renew/1", base + 3, 1)
    assert await actuator.probe(TARGET, renewal, held) is False
    await actuator.send(TARGET, renewal)
    assert await actuator.probe(TARGET, renewal, held) is True

    release = Call("release", {"knob": "max_concurrency", **WHO}, idempotency_key="r1/release")
    release_now = Call(release.verb, release.args, "r1/release", fencing_token=1)
    assert await actuator.probe(TARGET, release_now, held) is False
    assert (await actuator.send(TARGET, release_now))["values"]["max_concurrency"] == base
    assert await actuator.probe(TARGET, release_now, held) is True
    again = Call(release.verb, release.args, "r1/release/2", fencing_token=1)
    assert await actuator.send(TARGET, again) == {"already": True}


async def test_every_refusal_is_told_by_its_own_reason(
    actuator: DetectorActuator, detector: str, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    await actuator.send(TARGET, setting("r2/a", 4, 5))
    stranger = {"owner": "somebody"}
    refused = {
        "fencing": setting("r2/b", 5, 4),
        "generation": setting("r2/c", 5, 5, if_generation=0),
        "leased": setting("r2/d", 5, 5, **stranger),
        "invalid": setting("r2/e", -1, 5),
        "idempotency_key_reused": setting("r2/a", 6, 5),
    }
    for reason, call in refused.items():
        with pytest.raises(RefusedError) as caught:
            await actuator.send(TARGET, call)
        assert caught.value.reason == reason

    wrong = tmp_path / "wrong"
    wrong.write_text("wrong")
    intruder = DetectorActuator(detector, client=client, token_file=wrong)
    with pytest.raises(RefusedError) as caught:
        await intruder.send(TARGET, setting("r2/f", 5, 5))
    assert caught.value.reason == "unauthorized"


async def test_a_drain_shows_and_ends(actuator: DetectorActuator) -> None:
    drain = Call("drain", {**WHO, "lease_s": 60}, "r3/drain", fencing_token=9)
    undrain = Call("undrain", WHO, "r3/undrain", fencing_token=9)
    assert await actuator.probe(TARGET, drain, {}) is False
    await actuator.send(TARGET, drain)
    assert await actuator.probe(TARGET, drain, {}) is True
    assert await actuator.probe(TARGET, undrain, {}) is False
    ready = (await actuator.read(TARGET))["ready"]
    assert (ready["ready"], ready["draining"], ready["inflight"]) == (False, True, 0)
    await actuator.send(TARGET, undrain)
    assert await actuator.probe(TARGET, undrain, {}) is True
    assert (await actuator.read(TARGET))["ready"]["ready"] is True


async def test_the_canary_is_seen(actuator: DetectorActuator) -> None:
    seen = await actuator.send(TARGET, Call("canary", timeout_s=60.0))
    assert seen["ok"] is True
    assert seen["iou"] > 0.5
