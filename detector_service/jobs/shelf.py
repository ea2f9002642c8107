"""The files of video jobs: ``videos/JOB/{source,000001.mp4,...,annotated.mp4}``; all their paths.

Surprise: what a folder may hold follows from its job's row alone (``keep``), so that whatever a
crash left between a file and its row is swept away by the same line that tidies an ended job.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Final

from detector_service.disk import sync, writing
from detector_service.jobs.video import is_id

SOURCE: Final = "source"
ANNOTATED: Final = "annotated.mp4"


class Shelf:
    """One folder per job."""

    def __init__(self, folder: Path) -> None:
        """Use ``folder``, which ``make`` makes."""
        self.folder = folder

    def make(self, name: str | None = None) -> None:
        """Make the shelf itself, or the folder of one job.

        Raises:
            StateWriteError: it cannot be made.
        """
        path = self.folder if name is None else self._of(name)
        with writing(path):
            path.mkdir(parents=True, exist_ok=True)

    def source(self, name: str) -> Path:
        """Return where the video as sent lies."""
        return self._of(name) / SOURCE

    def segment(self, name: str, number: int) -> Path:
        """Return where the annotated segment of a chunk lies."""
        return self._of(name) / segment_name(number)

    def annotated(self, name: str) -> Path:
        """Return where the annotated film lies."""
        return self._of(name) / ANNOTATED

    def seal(self, name: str) -> None:
        """Make the source and the way to it durable.

        Raises:
            StateWriteError: they are not.
        """
        path = self.source(name)
        with writing(path):
            for each in (path, path.parent, self.folder, self.folder.parent):
                sync(each)

    def keep(self, name: str, files: Collection[str]) -> None:
        """Remove all files of a job but these; without any, the folder too."""
        folder = self._of(name)
        if not files:
            shutil.rmtree(folder, ignore_errors=True)
            return
        with suppress(FileNotFoundError):
            for each in os.scandir(folder):
                if each.name not in files:
                    Path(each).unlink(missing_ok=True)

    def sweep(self, known: Collection[str]) -> list[str]:
        """Remove folders of no known job; returns their names."""
        lost = [each.name for each in os.scandir(self.folder) if each.name not in known]
        for name in lost:
            # Only what we could have made; anything else here is somebody's, and stays.
            if is_id(name):
                self.keep(name, ())
        return [name for name in lost if is_id(name)]

    def used(self) -> int:
        """Return the bytes of all files of all jobs."""
        total = 0
        for folder, _, files in os.walk(self.folder):
            for name in files:
                with suppress(FileNotFoundError):  # it may go while we look
                    total += (Path(folder) / name).stat().st_size
        return total

    def _of(self, name: str) -> Path:
        if not is_id(name):
            raise ValueError(f"{name!r} is no job id")
        return self.folder / name


def segment_name(number: int) -> str:
    """Return the file name of a chunk's segment."""
    return f"{number:06}.mp4"
