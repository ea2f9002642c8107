"""``python -m detector_service.exporter``: the GPU series alone, for a machine without a detector.

Exit codes: 0 ended as asked, 2 refused to start (one line on stderr says why). Surprise: a machine
without a GPU is no failure. It serves names without samples, and looks again now and then, since
a driver may be loaded after it.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading

from prometheus_client import CollectorRegistry, start_http_server

from detector_service.gpu import Cards
from detector_service.gpu.series import STALE_S, GpuSeries

log = logging.getLogger("detector_service.exporter")

REFUSED = 2
MIN_INTERVAL_S = 0.1


def main(argv: list[str] | None = None) -> int:
    """Serve until told to end; returns the exit code."""
    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stdout,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )
    arguments = _parser().parse_args(argv)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _signal, _frame: ended.set())
    registry = CollectorRegistry()
    series = GpuSeries(registry)
    try:
        server, _ = start_http_server(arguments.port, arguments.host, registry)
    except OSError as exc:
        where = f"{arguments.host}:{arguments.port}"
        sys.stderr.write(f"exporter: cannot listen on {where}: {exc.strerror or exc}\n")
        return REFUSED
    log.info("listening on http://%s:%d/metrics", arguments.host, server.server_port)
    # Not this thread: a driver that hangs must not keep the process from ending.
    sampling = (series, ended, arguments.interval)
    threading.Thread(target=_sample, args=sampling, name="sampler", daemon=True).start()
    ended.wait()
    server.shutdown()
    server.server_close()
    return 0


def _sample(series: GpuSeries, ended: threading.Event, interval_s: float) -> None:
    cards = Cards(os.environ.get("CUDA_VISIBLE_DEVICES"))
    series.show(cards.read())
    while not ended.wait(interval_s):
        series.show(cards.read())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m detector_service.exporter",
        description="Serve the GPU metrics of this machine to Prometheus. With CUDA_VISIBLE_DEVICES"
        " set, only those cards are shown.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=port, default=8000, help="port (%(default)s; 0: any free)")
    parser.add_argument(
        "--interval", type=seconds, default=1.0, help="seconds between samples (%(default)s)"
    )
    return parser


def port(told: str) -> int:
    """Read a port number; argparse says the name of this function where it is none."""
    number = int(told)
    if not 0 <= number <= 65535:  # noqa: PLR2004 - what 16 bits hold
        raise argparse.ArgumentTypeError(f"must be between 0 and 65535, got {number}")
    return number


def seconds(told: str) -> float:
    """Read the time between two samples."""
    interval_s = float(told)
    # From STALE_S on, readings would be taken away before the next ones come.
    if not MIN_INTERVAL_S <= interval_s < STALE_S:
        words = f"must be from {MIN_INTERVAL_S} to less than {STALE_S:g} seconds, got {told}"
        raise argparse.ArgumentTypeError(words)
    return interval_s


if __name__ == "__main__":
    sys.exit(main())
