"""The stack without the story, until Ctrl-C: ``python -m remediator.demo.up``, by ``make up``."""

from __future__ import annotations

import signal
import sys

from rich.console import Console

from remediator.demo.stack import Stack, StackError


def main() -> int:
    """Start everything, say where it is, wait for Ctrl-C or TERM, stop everything."""
    console = Console(highlight=False)
    try:
        with Stack() as stack:
            for part, url in stack.urls.items():
                console.print(f"{part:<14}{url}")
            console.print(f"{'files, logs':<14}{stack.folder}")
            console.print("Ctrl-C stops everything.")
            signal.pause()
    except StackError as error:
        console.print(f"make up: {error}", style="red", markup=False)
        return 1
    except KeyboardInterrupt:
        console.print("stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
