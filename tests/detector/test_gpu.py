"""GPU readings against a fake NVML library, and the busy share where there is none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from detector_service.gpu import BusyMeter, Reading, Sampler, show, visible
from detector_service.telemetry import Telemetry

SOURCE = Path(__file__).with_name("fake_nvml.c")
READ = """
from detector_service.gpu import count_gpus, read_gpu, show
from detector_service.telemetry import Telemetry
telemetry = Telemetry()
for index in range(count_gpus()):
    show(telemetry, read_gpu(index))
print(telemetry.render().decode())
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler to build the fake NVML library with")
    folder = tmp_path_factory.mktemp("nvml")
    name = "libnvidia-ml.so.1"
    options = ["-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", str(folder / name), str(SOURCE)]
    subprocess.run([compiler, *options], check=True)
    return folder


def gpu_samples(library: Path, **failing: int) -> dict[str, float]:
    """Read in a fresh process: the loader looks at its library path only at start."""
    environment = {"LD_LIBRARY_PATH": str(library), **{k: str(v) for k, v in failing.items()}}
    done = subprocess.run(
        [sys.executable, "-c", READ],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("gpu_")]
    return {line.split(" ")[0]: float(line.split(" ")[1]) for line in lines}


def test_a_card_shows_its_figures_under_the_articles_names(library: Path) -> None:
    assert gpu_samples(library) == {
        'gpu_utilization_percent{gpu_id="0"}': 97,
        'gpu_memory_used_mb{gpu_id="0"}': 3072,
        'gpu_memory_total_mb{gpu_id="0"}': 8192,
        'gpu_temperature_celsius{gpu_id="0"}': 71,
    }


def test_a_figure_the_card_does_not_tell_leaves_the_others_alone(library: Path) -> None:
    not_supported = 3
    shown = gpu_samples(library, FAKE_NVML_TEMPERATURE=not_supported)
    assert len(shown) == 3
    assert 'gpu_temperature_celsius{gpu_id="0"}' not in shown


def test_a_lost_card_or_a_missing_driver_shows_nothing_rather_than_zero(library: Path) -> None:
    gpu_is_lost, driver_not_loaded = 15, 9
    assert gpu_samples(library, FAKE_NVML_HANDLE=gpu_is_lost) == {}
    assert gpu_samples(library, FAKE_NVML_INIT=driver_not_loaded) == {}


def test_a_figure_that_fails_later_is_removed_and_not_left_at_its_last_value() -> None:
    telemetry = Telemetry()
    show(telemetry, Reading("0", 50.0, 1.0, 2.0, 60.0))
    show(telemetry, Reading("0", 40.0, None, 2.0, None))
    text = telemetry.render().decode()
    assert 'gpu_utilization_percent{gpu_id="0"} 40.0' in text
    assert "gpu_memory_used_mb{" not in text
    assert "gpu_temperature_celsius{" not in text


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
        ("GPU-5e2a", [0, 1, 2, 3]),
    ],
)
def test_only_cards_the_process_may_use_are_shown(told: str | None, expected: list[int]) -> None:
    assert list(visible(4, told)) == expected


def test_a_model_on_the_cpu_shows_its_own_busy_share_whatever_cards_there_are() -> None:
    telemetry, busy = Telemetry(), 0.0
    sampler = Sampler(telemetry, lambda: busy, lambda: False)
    busy = 1000.0
    sampler.sample(())
    text = telemetry.render().decode()
    assert 'gpu_utilization_percent{gpu_id="cpu_busy"} 100.0' in text
    assert 'gpu_id="0"' not in text


def test_the_busy_share_is_over_the_last_two_samples() -> None:
    now, busy = 0.0, 0.0
    meter = BusyMeter(lambda: busy, lambda: now)
    assert meter.sample() is None
    seen = []
    for more in (1.0, 0.5, 0.5, 0.0, 0.0):
        now, busy = now + 1, busy + more
        seen.append(meter.sample())
    assert seen == [100.0, 75.0, 50.0, 25.0, 0.0]
