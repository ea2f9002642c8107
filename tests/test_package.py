"""What an installed wheel gives: the controller without torch, and the shipped files."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    done = subprocess.run(
        [*pip, "--wheel-dir", str(folder), str(ROOT)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


pytestmark = [pytest.mark.real, pytest.mark.xdist_group("wheel")]


def requirements(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return Parser().parsestr(archive.read(name).decode()).get_all("Requires-Dist") or []


def test_installing_the_controller_alone_never_pulls_torch(wheel: Path) -> None:
    always = [line for line in requirements(wheel) if "extra ==" not in line]
    assert any(line.startswith("fastapi") for line in always)
    heavy = ("torch", "torchvision", "ultralytics", "nvidia", "av>", "opencv", "numpy")
    assert [line for line in always if line.startswith(heavy)] == []


def test_the_detector_is_an_extra_that_does(wheel: Path) -> None:
    detector = [line for line in requirements(wheel) if "extra == 'detector'" in line]
    assert any(line.startswith(("torch>", "torch<")) for line in detector)


def test_an_installed_wheel_finds_its_rules_playbooks_and_configurations(
    wheel: Path, tmp_path: Path
) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    program = (
        "from remediator.demo.stack import shipped\n"
        "for name in ('rules', 'playbooks', 'deploy'): print(shipped(name))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    places = [Path(line) for line in done.stdout.splitlines()]
    assert places == [tmp_path / "remediator" / "shipped" / p.name for p in places]
    assert (places[0] / "detector.yml").is_file()
    assert list(places[1].glob("*.yaml"))
    assert (places[2] / "prometheus" / "prometheus.yml").is_file()


def test_the_wheel_carries_both_licences(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    for licence in ("Apache-2.0.txt", "AGPL-3.0-only.txt"):
        assert any(name.endswith(licence) for name in names)
