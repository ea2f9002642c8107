"""Commands that need no running controller: `serve`, `check`, `demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
import uvicorn

from remediator.app import build
from remediator.cli.terminal import NO, AsJson, Config, fail, out, plain, print_json
from remediator.demo import story
from remediator.demo.layout import shipped
from remediator.language.loader import load_files
from remediator.settings import load_settings
from remediator.telemetry import configure_logging


def serve(config: Config = None) -> None:
    """Run the controller until it is told to stop."""
    settings = load_settings(config)
    configure_logging(json=settings.log_json)
    uvicorn.run(
        build(settings),
        host=settings.host,
        port=settings.port,
        log_level="warning",
        access_log=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=10,
    )


def check(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="Files or folders; default: the shipped playbooks.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check playbooks: every problem with file:line:column and a hint."""
    wanted = paths or [shipped("playbooks")]
    missing = [str(path) for path in wanted if not path.exists()]
    if missing:
        fail(f"no such file or folder: {', '.join(missing)}")
    library = load_files(wanted)
    findings = [("error", p) for p in library.problems] + [("warning", w) for w in library.warnings]
    if as_json:
        print_json(
            [
                {
                    "severity": severity,
                    "path": p.path,
                    "line": p.line,
                    "column": p.column,
                    "message": p.message,
                    "hint": p.hint,
                }
                for severity, p in findings
            ]
        )
    else:
        for severity, finding in findings:
            out.print(plain(f"{finding}  [{severity}]"))
        count = len(library.files)
        out.print(
            f"{count} file{'s' if count != 1 else ''}: {len(library.problems)} problems, "
            f"{len(library.warnings)} warnings"
        )
    raise typer.Exit(NO if library.problems else 0)


def demo(
    once: Annotated[bool, typer.Option("--once", help="Do not stay up afterwards.")] = False,
    report: Annotated[
        Path | None, typer.Option(help="Write what was measured to this JSON file.")
    ] = None,
) -> None:
    """Play the two acts on a real stack of daemons: saturated, then dead."""
    raise typer.Exit(story.play(once=once, report=report))
