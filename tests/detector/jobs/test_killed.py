"""kill -9 at any moment: an accepted video ends as if nothing had been."""

from __future__ import annotations

import asyncio
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from tests.detector.jobs.cinema import cinema, done, harvest, make_film, shown_in, worked_off

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

FRAMES = 240
SMALL = {"chunk_frames": 4, "batch_size": 2}
PROGRAM = """
import asyncio, sys
from pathlib import Path
from tests.detector.jobs.cinema import cinema, done, submit
async def main(folder, film):
    async with cinema(folder, chunk_frames=4, batch_size=2) as detector:
        desk = detector.parts.desk
        known = await desk.listing()
        job = known[0].job if known else (await submit(desk, film))[0].job
        print(job.id, flush=True)
        await done(desk, job.id)
asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2])))
"""


@contextmanager
def program(folder: Path, film: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-W", "error", "-c", PROGRAM, str(folder), str(film)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        try:
            yield child
        finally:
            child.kill()


def killed(child: subprocess.Popen[str], folder: Path, luck: random.Random) -> str:
    """Kill it some time after it has finished a further chunk; return the job's id."""
    assert child.stdout is not None
    name = child.stdout.readline().strip()
    before = chunks(folder)
    while chunks(folder) == before and not gone(child, within_s=0.01):
        pass
    gone(child, within_s=luck.uniform(0, 0.2))
    child.send_signal(signal.SIGKILL)
    child.wait()
    return name


def gone(child: subprocess.Popen[str], *, within_s: float) -> bool:
    with suppress(subprocess.TimeoutExpired):
        child.wait(within_s)
    return child.returncode is not None


def chunks(folder: Path) -> int:
    path = folder / "state" / "videos.db"
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("SELECT count(*) FROM chunks").fetchone()[0])


@pytest.mark.parametrize("seed", [1, 2])
def test_a_film_killed_at_random_moments_has_the_result_of_one_that_was_not(
    tmp_path: Path, seed: int
) -> None:
    film = make_film(tmp_path / "film.mkv", frames=FRAMES, options={"bf": "2", "g": "50"})
    folder, luck, kills = tmp_path / "killed", random.Random(seed), 0
    while True:
        with program(folder, film) as child:
            name = killed(child, folder, luck)
        if child.returncode == 0:
            break
        kills += 1
        assert kills < 40
    assert kills >= 2
    asyncio.run(compare(tmp_path, folder, film, name))


async def compare(tmp_path: Path, folder: Path, film: Path, name: str) -> None:
    whole = await worked_off(tmp_path / "whole", film, **SMALL)
    async with cinema(folder, **SMALL) as detector:
        assert await harvest(detector.parts.desk, name) == whole
        assert await shown_in(detector.parts.desk, name) == list(range(FRAMES))


def test_accepted_means_kept_even_if_the_power_goes_with_the_answer(tmp_path: Path) -> None:
    film = make_film(tmp_path / "film.mp4", frames=20)
    with program(tmp_path / "killed", film) as child:
        assert child.stdout is not None
        name = child.stdout.readline().strip()
        child.send_signal(signal.SIGKILL)
        child.wait()

    async def afterwards() -> None:
        async with cinema(tmp_path / "killed") as detector:
            await done(detector.parts.desk, name)
            assert await shown_in(detector.parts.desk, name) == list(range(20))

    asyncio.run(afterwards())
