"""What a person sees: lines, colours, times, and the options that several commands share.

Used by every command. The surprise: no control character of a label ever reaches a terminal
(`plain`).
"""

from __future__ import annotations

import getpass
import json
import os
import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.text import Text

from remediator.model.duration import parse_duration

NO = 1
CANNOT = 2
DEFAULT_URL = "http://127.0.0.1:8090"
VERDICTS = {"improved": "green", "unchanged": "yellow", "worse": "red", "unknown": "magenta"}

out = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)
err = Console(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False)

# What a terminal obeys instead of showing it (C0, DEL, C1), what reorders or breaks a line, and
# halves of surrogate pairs, which cannot be printed at all.
OBEYED = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
LONGEST_LABEL = 200
LONGEST_LINE = 4000
INDENT = 4
SCOPES = ("all", "playbook:NAME", "target:NAME", "pool:NAME", "action:KIND")


def plain(text: str, style: str = "") -> Text:
    """Return text from anywhere as one line that a terminal only shows."""
    shown = shortened(text, LONGEST_LINE)
    return Text(OBEYED.sub(lambda m: m[0].encode("unicode_escape").decode(), shown), style=style)


def shortened(text: str, longest: int = LONGEST_LABEL) -> str:
    """Return `text`, cut where nobody would read on; `--json` has all of it."""
    return text if len(text) <= longest else f"{text[:longest]}... ({len(text)} characters)"


def whoever_runs_this() -> str:
    """Return the user's name, or its number where it has none, as in many containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


Config = Annotated[
    Path | None, typer.Option("--config", "-c", help="YAML file; REMEDIATOR_* variables win.")
]
Url = Annotated[str, typer.Option(envvar="REMEDIATOR_URL", help="Where the controller listens.")]


class Format(StrEnum):
    """How results are printed."""

    TEXT = "text"
    JSON = "json"


AsFormat = Annotated[Format, typer.Option("--format", help="What is printed.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Reason = Annotated[str, typer.Option(help="Why; it goes on record.")]
By = Annotated[
    str,
    typer.Option(
        help="Who; it goes on record.", default_factory=whoever_runs_this, show_default="you"
    ),
]
Scope = Annotated[
    str, typer.Option(help="all, or playbook:NAME, target:NAME, pool:NAME, action:KIND.")
]


def scope_of(text: str) -> dict[str, str]:
    """Return a scope as the API takes it, from `all` or `kind:name`, or end with one line."""
    kind, _, name = text.partition(":")
    if kind not in {scope.partition(":")[0] for scope in SCOPES}:
        fail(f"{text!r} is no scope; it looks like {', '.join(SCOPES)}")
    return {"scope": kind, "name": name}


def seconds(length: str) -> float:
    """Return a length such as 30m in seconds, or end with one line."""
    try:
        return parse_duration(length).total_seconds()
    except (ValueError, OverflowError) as error:
        fail(f"--for: {error}")


def run_number(text: str) -> str:
    """Return the number of a run written as R12, or end with one line."""
    number = text.lstrip("rR")
    if not (number.isascii() and number.isdigit()):
        fail(f"{text!r} is not a run; it looks like R12")
    return number


def clock_time(text: str | None) -> str:
    """Return a moment as local time of day, with the date when it is not today."""
    if text is None:
        return "-"
    try:
        moment = datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        # At the ends of the calendar there is no local time.
        return text
    today = datetime.now(tz=moment.tzinfo).date()
    return f"{moment:%H:%M:%S}" if moment.date() == today else f"{moment:%Y-%m-%d %H:%M:%S}"


def counted(number: int, word: str) -> str:
    """Return a number with its word: 1 run, 2 runs."""
    return f"{number} {word}{'' if number == 1 else 's'}"


def print_rows(head: Sequence[str], rows: Iterable[tuple[Sequence[Text], Text]]) -> None:
    """Print aligned columns; below each row its sentence, which may be long, has all the width."""
    found = list(rows)
    lines = [[Text(one) for one in head], *(cells for cells, _ in found)]
    widths = [max(cell.cell_len for cell in column) for column in zip(*lines, strict=True)]
    out.print(_aligned(lines[0], widths), style="bold")
    for cells, sentence in found:
        out.print(_aligned(cells, widths))
        for line in sentence.wrap(out, max(out.width - INDENT, INDENT)):
            line.rstrip()
            out.print(Text(" " * INDENT).append_text(line))


def _aligned(cells: Sequence[Text], widths: Sequence[int]) -> Text:
    line = Text()
    for cell, width in zip(cells, widths, strict=True):
        line.append_text(cell).append(" " * (width - cell.cell_len + 2))
    line.rstrip()
    return line


def print_json(document: Any) -> None:
    """Print JSON, and nothing else, to standard output."""
    typer.echo(json.dumps(document, indent=2))


def fail(message: str, *, code: int = CANNOT) -> NoReturn:
    """End with one line for a person."""
    err.print(plain(f"remediator: {message}", "red"))
    raise typer.Exit(code)
