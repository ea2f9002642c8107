"""Commands that need no running controller: `serve`, `check`, `schema`, `demo`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
import uvicorn

from remediator.app import build
from remediator.cli.terminal import NO, AsFormat, Config, Format, fail, out, plain, print_json
from remediator.demo import story
from remediator.demo.layout import shipped
from remediator.errors import PlaybookError
from remediator.language import reference
from remediator.language.loader import Library, load_files
from remediator.language.surroundings import NOWHERE
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
        list[Path] | None,
        typer.Argument(help="Files or folders; default: those of --config, else the shipped."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", "-c", help="Check names of targets, pools, endpoints, commands with this."
        ),
    ] = None,
    targets: Annotated[
        str, typer.Option(help="Targets there are, a,b,c; instead of those of --config.")
    ] = "",
    output: AsFormat = Format.TEXT,
) -> None:
    """Check playbooks: every problem with file:line:column and a hint."""
    settings = load_settings(config) if config else None
    wanted = paths or [settings.playbooks if settings else shipped("playbooks")]
    missing = [str(path) for path in wanted if not path.exists()]
    if missing:
        fail(f"no such file or folder: {', '.join(missing)}")
    surroundings = settings.surroundings() if settings else NOWHERE
    if targets:
        names = frozenset(name.strip() for name in targets.split(",")) - {""}
        surroundings = replace(surroundings, targets=names)
    library = load_files(wanted, surroundings=surroundings)
    if not library.files:
        fail(f"no *.yaml in {', '.join(map(str, wanted))}")
    if output is Format.JSON:
        print_json([_finding(severity, told) for severity, told in _findings(library)])
    else:
        for severity, told in _findings(library):
            out.print(plain(f"{told}  [{severity}]"))
        out.print(
            f"{_counted(len(library.files), 'file')}: "
            f"{_counted(len(library.problems), 'problem')}, "
            f"{_counted(len(library.warnings), 'warning')}"
        )
    raise typer.Exit(NO if library.problems else 0)


def schema(
    output: Annotated[
        Path | None, typer.Option(help="Write it to this file instead of printing it.")
    ] = None,
) -> None:
    """Print the JSON Schema of a playbook, with which an editor completes and checks."""
    document = reference.schema()
    if output is None:
        print_json(document)
        return
    try:
        output.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        fail(f"{output}: cannot be written: {error.strerror or error}")


def _findings(library: Library) -> Iterator[tuple[str, PlaybookError]]:
    yield from (("error", problem) for problem in library.problems)
    yield from (("warning", warning) for warning in library.warnings)


def _finding(severity: str, told: PlaybookError) -> dict[str, object]:
    return {
        "severity": severity,
        "path": told.path,
        "line": told.line,
        "column": told.column,
        "message": told.message,
        "hint": told.hint,
    }


def _counted(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def demo(
    once: Annotated[bool, typer.Option("--once", help="Do not stay up afterwards.")] = False,
    report: Annotated[
        Path | None, typer.Option(help="Write what was measured to this JSON file.")
    ] = None,
) -> None:
    """Play the two acts on a real stack of daemons: saturated, then dead."""
    raise typer.Exit(story.play(once=once, report=report))
