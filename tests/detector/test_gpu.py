"""GPU readings through the real ``pynvml`` and a fake NVML library; the busy share without one."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import Future
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from detector_service.backends import Memory
from detector_service.errors import DeviceLostError
from detector_service.gpu import Reading, visible
from detector_service.gpu.sampler import BusyMeter, Sampler, Sources
from detector_service.gpu.series import STALE_S, GpuSeries
from tests.detector.nvml import (
    DRIVER_NOT_LOADED,
    FUNCTION_NOT_FOUND,
    GPU_IS_LOST,
    NOT_SUPPORTED,
    environment,
)

# One sample after each change of the environment; the time of a sample is its number, from 1.
READ = """
import json, os, sys
from prometheus_client import CollectorRegistry, generate_latest
from detector_service.gpu import Cards
from detector_service.gpu.series import GpuSeries
at, registry = 0, CollectorRegistry()
series = GpuSeries(registry, now=lambda: at)
cards = Cards(os.environ.get("CUDA_VISIBLE_DEVICES"), monotonic=lambda: at * 60)
shown = []
for at, changes in enumerate(json.loads(sys.argv[1]), 1):
    os.environ.update(changes)
    series.show(cards.read())
    shown.append(generate_latest(registry).decode())
print(json.dumps(shown))
"""
ARTICLE = {
    'gpu_utilization_percent{gpu_id="0"}': 97,
    'gpu_memory_used_mb{gpu_id="0"}': 3072,
    'gpu_memory_total_mb{gpu_id="0"}': 8192,
    'gpu_temperature_celsius{gpu_id="0"}': 71,
}
REASONS = (
    *("gpu_idle", "applications_clocks_setting", "sw_power_cap", "hw_slowdown", "sync_boost"),
    *("sw_thermal_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown"),
    "display_clock_setting",
)
ON = {"sw_power_cap", "hw_thermal_slowdown"}
OURS = {
    'detector_gpu_utilization_ratio{gpu="0",uuid="GPU-af00"}': 0.97,
    'detector_gpu_memory_used_bytes{gpu="0"}': 3 * 2**30,
    'detector_gpu_memory_total_bytes{gpu="0"}': 8 * 2**30,
    'detector_gpu_power_watts{gpu="0"}': 312.5,
    'detector_gpu_power_limit_watts{gpu="0"}': 700,
    'detector_gpu_ecc_errors_total{gpu="0",kind="corrected"}': 5,
    'detector_gpu_ecc_errors_total{gpu="0",kind="uncorrected"}': 1,
    'detector_gpu_xid_errors_total{gpu="0"}': 0,
} | {
    f'detector_gpu_throttle_reasons{{gpu="0",reason="{reason}"}}': float(reason in ON)
    for reason in REASONS
}
STAMP = 'detector_gpu_sample_timestamp_seconds{gpu="0"}'


def samples(text: str) -> dict[str, float]:
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines}


def read(*steps: dict[str, str], fake: bool = True, **told: str) -> list[dict[str, float]]:
    """Sample once after each of the steps, in a fresh process."""
    done = subprocess.run(
        [sys.executable, "-c", READ, json.dumps(steps or ({},))],
        env=environment(fake=fake, **told),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return [samples(text) for text in json.loads(done.stdout)]


def test_a_card_shows_its_figures_under_the_articles_names_and_ours() -> None:
    assert read() == [ARTICLE | OURS | {STAMP: 1}]


def test_every_figure_that_a_card_does_not_tell_leaves_all_others_alone() -> None:
    gone = {
        "UUID": set[str](),  # it is a label
        "RATES": {"gpu_utilization_percent", "detector_gpu_utilization_ratio"},
        "MEMORY": {name for name in (*ARTICLE, *OURS) if "_memory_" in name},
        "TEMPERATURE": {"gpu_temperature_celsius"},
        "POWER": {"detector_gpu_power_watts"},
        "LIMIT": {"detector_gpu_power_limit_watts"},
        "CORRECTED": {'detector_gpu_ecc_errors_total{gpu="0",kind="corrected"}'},
        "UNCORRECTED": {'detector_gpu_ecc_errors_total{gpu="0",kind="uncorrected"}'},
        "WAIT": set[str](),  # a count of ours: it stands still
    }
    everything = ARTICLE | OURS | {STAMP: 0}
    steps = []
    for name in gone:
        steps += [{f"FAKE_NVML_RC_{name}": NOT_SUPPORTED}, {f"FAKE_NVML_RC_{name}": ""}]
    shown = read(*steps)
    for name, (without, again) in zip(gone, zip(shown[::2], shown[1::2], strict=True), strict=True):
        left = {known for known in everything if not known.startswith(tuple(gone[name]) or "-")}
        named = {known.replace("GPU-af00", "") for known in left} if name == "UUID" else left
        assert without.keys() == named, name
        assert again.keys() == everything.keys(), name


def test_the_clocks_reasons_are_read_from_an_older_driver_too() -> None:
    (shown,) = read(FAKE_NVML_RC_REASONS=FUNCTION_NOT_FOUND)
    assert shown['detector_gpu_throttle_reasons{gpu="0",reason="gpu_idle"}'] == 1
    assert shown['detector_gpu_throttle_reasons{gpu="0",reason="sw_power_cap"}'] == 0
    neither = {"FAKE_NVML_RC_OLD_REASONS": NOT_SUPPORTED}
    (shown,) = read(neither, FAKE_NVML_RC_REASONS=FUNCTION_NOT_FOUND)
    assert not any(name.startswith("detector_gpu_throttle") for name in shown)


def test_a_card_that_is_lost_shows_nothing_and_its_timestamp_stands_still() -> None:
    before, lost, later, back = read(
        {"FAKE_NVML_COUNT": "2"}, {"FAKE_NVML_LOST": "0"}, {}, {"FAKE_NVML_LOST": ""}
    )
    assert ARTICLE.items() <= before.items()
    for shown in (lost, later):
        ours = {name: value for name, value in shown.items() if '"0"' in name}
        # It cannot tell how it is, but the driver may still tell why: XID 79 is such a fault.
        assert ours == {STAMP: 1, 'detector_gpu_xid_errors_total{gpu="0"}': 0}
        assert shown['gpu_utilization_percent{gpu_id="1"}'] == 96
    assert later['detector_gpu_sample_timestamp_seconds{gpu="1"}'] == 3
    assert (ARTICLE | {STAMP: 4}).items() <= back.items()


def test_a_card_whose_handle_is_refused_shows_nothing_rather_than_zero() -> None:
    (shown,) = read(FAKE_NVML_RC_HANDLE="15")
    assert shown == {}


def test_without_a_library_a_driver_or_a_card_nothing_is_shown() -> None:
    assert read(FAKE_NVML_RC_INIT=DRIVER_NOT_LOADED) == [{}]
    assert read(FAKE_NVML_COUNT="0") == [{}]
    assert read(fake=False) == [{}]


def test_a_driver_that_is_loaded_later_is_found() -> None:
    without, with_it = read({"FAKE_NVML_RC_INIT": DRIVER_NOT_LOADED}, {"FAKE_NVML_RC_INIT": ""})
    assert without == {}
    assert ARTICLE.items() <= with_it.items()


def test_faults_are_counted_and_the_last_code_is_told() -> None:
    none, two, same, many = read(
        {}, {"FAKE_NVML_XIDS": "2"}, {}, {"FAKE_NVML_XIDS": "102", "FAKE_NVML_COUNT": "1"}
    )
    count, last = 'detector_gpu_xid_errors_total{gpu="0"}', 'detector_gpu_xid_last{gpu="0"}'
    assert (none[count], last in none) == (0, False)
    assert (two[count], two[last]) == (same[count], same[last]) == (2, 101)
    assert (many[count], many[last]) == (102, 201)


@pytest.mark.parametrize("call", ["REGISTER", "WAIT"])
def test_a_driver_that_reports_no_faults_has_no_such_series(call: str) -> None:
    (shown,) = read(**{f"FAKE_NVML_RC_{call}": NOT_SUPPORTED})
    assert (ARTICLE | {STAMP: 1}).items() <= shown.items()
    assert not any("xid" in name for name in shown)


def test_the_faults_of_a_card_stay_when_it_is_lost_and_its_events_with_it() -> None:
    lost = {"FAKE_NVML_LOST": "0", "FAKE_NVML_RC_WAIT": GPU_IS_LOST}
    before, *after = read({"FAKE_NVML_XIDS": "1"}, lost, {"FAKE_NVML_RC_HANDLE": GPU_IS_LOST}, {})
    faults = {name: value for name, value in before.items() if "xid" in name}
    assert set(faults.values()) == {1, 100}
    assert after == [faults | {STAMP: 1}] * 3


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("GPU-b", ["1"]),
        ("GPU-df00,0", ["3", "0"]),
        ("MIG-abcd", ["2"]),
        ("MIG-abcd,GPU-cf00,1", ["2", "1"]),
        ("MIG-GPU-bf00/1/0", ["1"]),
        ("1,GPU-zz,2", ["1"]),
        ("MIG-unknown,1", []),
    ],
)
def test_cards_named_by_uuid_or_by_an_instance_on_them_are_shown(
    told: str, expected: list[str]
) -> None:
    (shown,) = read(CUDA_VISIBLE_DEVICES=told, FAKE_NVML_COUNT="4")
    cards = [name.split('"')[1] for name in shown if name.startswith("gpu_temperature")]
    assert cards == expected


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (None, [0, 1, 2, 3]),
        ("", []),
        ("-1", []),
        ("2", [2]),
        ("3, 1", [3, 1]),
        ("1,9,2", [1]),
        ("0,-1,2", [0]),
        ("1,1", [1]),
        ("NoDevFiles", []),
    ],
)
def test_only_cards_the_process_may_use_are_shown(told: str | None, expected: list[int]) -> None:
    assert list(visible(4, told)) == expected


def shown_by(registry: CollectorRegistry) -> dict[str, float]:
    return samples(generate_latest(registry).decode())


def test_readings_of_a_sampler_that_hangs_in_the_driver_go_away_but_not_time_and_faults() -> None:
    registry, steady = CollectorRegistry(), 0.0
    series = GpuSeries(registry, now=lambda: 7.0, monotonic=lambda: steady)
    card = Reading("0", temperature=60.0, throttle={"gpu_idle": True}, xid_errors=1, last_xid=79)
    series.show([card], busy=5.0)
    assert len(shown_by(registry)) == 6
    steady = STALE_S
    assert shown_by(registry) == {
        STAMP: 7.0,
        'detector_gpu_xid_errors_total{gpu="0"}': 1,
        'detector_gpu_xid_last{gpu="0"}': 79,
    }


class Service:
    """What the sampler asks, with answers to set."""

    def __init__(self, *, on_gpu: bool | None) -> None:
        self.busy_s = 0.0
        self.warm = False
        self.healthy = True
        self.asked: list[Future[Memory | None]] = []
        self.lost = False
        self.registry = CollectorRegistry()
        sources = Sources(
            busy_seconds=lambda: self.busy_s,
            on_gpu=lambda: on_gpu,
            warm=lambda: self.warm,
            healthy=lambda: self.healthy,
            device_memory=self._device_memory,
        )
        self.sampler = Sampler(self.registry, sources)

    def _device_memory(self) -> Future[Memory | None]:
        if self.lost:
            raise DeviceLostError("gone")
        self.asked.append(Future())
        return self.asked[-1]

    def sample(self) -> dict[str, float]:
        self.sampler.sample()
        return shown_by(self.registry)


def test_a_model_on_the_cpu_shows_its_own_busy_share_whatever_cards_there_are() -> None:
    service = Service(on_gpu=False)
    service.busy_s = 1000.0
    shown = service.sample()
    assert shown == {'gpu_utilization_percent{gpu_id="cpu_busy"}': 100.0}
    assert service.asked == []


def test_nothing_is_shown_before_it_is_known_where_the_model_runs() -> None:
    assert Service(on_gpu=None).sample() == {}


def test_memory_growth_is_counted_from_when_the_service_was_warm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    size: float | None = 100.0
    monkeypatch.setattr("detector_service.gpu.sampler.resident_bytes", lambda: size)
    service = Service(on_gpu=None)
    assert service.sample() == {}
    service.warm = True
    service.sample()
    size = 130.0
    grown: dict[str, Any] = service.sample()
    assert grown == {"detector_memory_baseline_bytes": 100, "detector_memory_growth_bytes": 30}
    size = None
    assert service.sample() == {"detector_memory_baseline_bytes": 100}


def test_the_devices_memory_is_asked_for_without_waiting_and_shown_when_it_was_told() -> None:
    service = Service(on_gpu=True)
    healthy = {"detector_cuda_healthy": 1.0}
    assert service.sample() == healthy
    assert service.sample() == healthy
    assert len(service.asked) == 1  # a long pass is not asked twice
    service.asked[0].set_result(Memory(allocated=5, reserved=8))
    told = {"detector_torch_memory_allocated_bytes": 5, "detector_torch_memory_reserved_bytes": 8}
    assert service.sample() == healthy | told
    service.asked[1].set_result(None)
    assert service.sample() == healthy


def test_a_lost_device_is_told_and_what_it_held_is_not() -> None:
    service = Service(on_gpu=True)
    service.sample()
    service.asked[0].set_exception(DeviceLostError("gone"))
    service.lost, service.healthy = True, False
    assert service.sample() == {"detector_cuda_healthy": 0.0}
    assert service.sample() == {"detector_cuda_healthy": 0.0}


def test_the_busy_share_is_over_the_last_two_samples() -> None:
    now, busy = 0.0, 0.0
    meter = BusyMeter(lambda: busy, lambda: now)
    assert meter.sample() is None
    seen = []
    for more in (1.0, 0.5, 0.5, 0.0, 0.0):
        now, busy = now + 1, busy + more
        seen.append(meter.sample())
    assert seen == [100.0, 75.0, 50.0, 25.0, 0.0]
