"""``python -m detector_service``: start, serve, end; the process edge of the detector.

Exit codes: 0 ended as asked, 2 refused to start (one line on stderr says why), anything else is a
crash, such as a device lost while serving. Surprise: a thread that hangs in a driver call, or is
deep inside a stranger's film, would keep the interpreter from ending, so the process then leaves
without it.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import socket
import sys
import threading
import time
from types import FrameType

import uvicorn
from fastapi import FastAPI

from detector_service.app import build, open_default
from detector_service.backends.checkpoint import require_checkpoint
from detector_service.batcher import DeviceState
from detector_service.errors import StartError
from detector_service.routes import Parts
from detector_service.settings import Settings, read_settings, unknown_variables
from detector_service.tunables import StateFile

log = logging.getLogger("detector_service")

CRASHED = 1
REFUSED = 2
LEAVE_S = 2  # for threads that end by themselves
GRACE_S = 25  # supervisors commonly kill after 30; requests end by their own deadline before


def main(argv: list[str] | None = None) -> int:
    """Run the detector; returns the exit code."""
    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stdout,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)
    arguments = _parser().parse_args(argv)
    try:
        settings = read_settings(host=arguments.host, port=arguments.port)
        return _serve(settings)
    except StartError as exc:
        sys.stderr.write(f"detector_service: {exc}\n")
        return REFUSED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m detector_service",
        description="Serve detections. Further settings are read from DETECTOR_* variables.",
    )
    parser.add_argument("--host", help="address to listen on (default 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to listen on (default 7860; 0: any free)")
    return parser


def _serve(settings: Settings) -> int:
    for name in unknown_variables(dict(os.environ)):
        log.warning("%s is no setting of this service; is it misspelt?", name)
    require_checkpoint(settings.model)
    with contextlib.ExitStack() as held:
        listener = held.enter_context(_listen(settings))
        host, port = listener.getsockname()[:2]
        settings = settings.model_copy(update={"port": port})
        file = StateFile(settings.folder)
        held.callback(os.close, file.hold())
        app = build(
            settings,
            file,
            open_default(settings, settings.folder / "ultralytics"),
            instance=settings.instance or f"{host}:{port}",
        )
        log.info("listening on http://%s:%d, state in %s", host, port, settings.folder)
        return _run(app, listener)


class _Server(uvicorn.Server):
    """Tells the parts of a signal at once; the lifespan hears of it only after the last answer."""

    def __init__(self, parts: Parts, config: uvicorn.Config) -> None:
        """Serve ``parts``."""
        super().__init__(config)
        self._parts = parts

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end."""
        self._parts.stop()
        super().handle_exit(sig, frame)


def _run(app: FastAPI, listener: socket.socket) -> int:
    parts: Parts = app.state.parts
    server = _Server(
        parts,
        uvicorn.Config(
            app,
            lifespan="on",  # so that a background failure is logged, not swallowed
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=GRACE_S,
        ),
    )
    parts.end = lambda: setattr(server, "should_exit", True)
    # uvicorn raises the signal again once it is down; this turns it into an ordinary end.
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGINT, _leave)
    code = CRASHED  # unless a signal asked for the end: something in the background failed
    try:
        server.run(sockets=[listener])
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else CRASHED
    finally:
        _end(parts, code)
    return code


def _listen(settings: Settings) -> socket.socket:
    try:
        family = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0][0]
        # Named, since asyncio sets TCP_NODELAY only where it reads TCP: 40 ms a request without.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    except OSError as exc:
        raise _deaf(settings, exc) from exc
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((settings.host, settings.port))
    except OSError as exc:
        listener.close()
        raise _deaf(settings, exc) from exc
    return listener


def _deaf(settings: Settings, exc: OSError) -> StartError:
    words = f"cannot listen on {settings.host}:{settings.port}: {exc.strerror or exc}"
    return StartError(words)


def _leave(_signal: int, _frame: FrameType | None) -> None:
    sys.exit(0)


def _end(parts: Parts, code: int) -> None:
    if parts.failure is not None:
        raise StartError(str(parts.failure)) from parts.failure
    log.info("ended with %s", parts.load())
    hung = parts.batcher.state not in {DeviceState.STOPPED, DeviceState.FAILED}
    left = ["the device thread"] if hung else _still_busy()
    if left:
        log.warning("leaving without %s, which did not end", ", ".join(left))
        sys.stdout.flush()
        os._exit(code)


def _still_busy() -> list[str]:
    """Wait a little for the threads; return those that do not end, such as one inside a film."""
    until, own = time.monotonic() + LEAVE_S, threading.current_thread()
    others = [each for each in threading.enumerate() if each is not own and not each.daemon]
    for thread in others:
        thread.join(max(until - time.monotonic(), 0))
    return [thread.name for thread in others if thread.is_alive()]


if __name__ == "__main__":
    sys.exit(main())
