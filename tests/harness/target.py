"""A detector as a program: the real service with a toy for a model. Started by `world`.

It listens on any free port and writes it to `FOLDER/port`; every start adds its process id to
`FOLDER/starts`, which is how a restart done twice is seen. State outlives it in `FOLDER/state`.
"""

from __future__ import annotations

import argparse
import logging
import os
import socket
from pathlib import Path

import uvicorn

from detector_service.app import build
from detector_service.settings import Settings
from detector_service.tunables import StateFile
from tests.detector.toys import ToyBackend, write_canary


def main() -> None:
    """Serve until told to end."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    logging.basicConfig(level=logging.INFO)
    with (folder / "starts").open("a") as starts:
        starts.write(f"{os.getpid()}\n")
    file = StateFile(folder / "state")
    file.folder.mkdir(exist_ok=True)
    file.hold()
    settings = Settings(
        canary_dir=write_canary(folder / "canary"), max_concurrency=10, instance="detector-1"
    )
    app = build(settings, file, ToyBackend)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    told = folder / "port.new"
    told.write_text(str(listener.getsockname()[1]))
    told.rename(folder / "port")
    config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=2)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
