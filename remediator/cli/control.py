"""Commands by which a person decides: `pause`, `resume`, `cancel`."""

from __future__ import annotations

from typing import Annotated

import typer

from remediator.cli.client import ask
from remediator.cli.terminal import (
    DEFAULT_URL,
    NO,
    By,
    Reason,
    Scope,
    Url,
    clock_time,
    fail,
    out,
    plain,
)
from remediator.model.duration import parse_duration


def pause(
    reason: Reason,
    length: Annotated[str, typer.Option("--for", help="How long, such as 30m or 2h.")],
    by: By,
    scope: Scope = "all",
    url: Url = DEFAULT_URL,
) -> None:
    """Start no new forward action; what is half-done is unwound, what is held stays held."""
    kind, _, name = scope.partition(":")
    try:
        seconds = parse_duration(length).total_seconds()
    except (ValueError, OverflowError) as error:
        fail(f"--for: {error}")
    body = {"scope": kind, "name": name, "reason": reason, "by": by, "length_s": seconds}
    made = ask(url, "/api/v1/pauses", body=body)
    out.print(plain(f"paused {scope} until {clock_time(made['until'])}: {reason}"))


def resume(by: By, scope: Scope = "all", url: Url = DEFAULT_URL) -> None:
    """Lift the pauses of a scope."""
    kind, _, name = scope.partition(":")
    lifted = ask(url, "/api/v1/resume", body={"scope": kind, "name": name, "by": by})["lifted"]
    out.print(plain(f"lifted {lifted} pause{'s' if lifted != 1 else ''} of {scope}"))
    raise typer.Exit(0 if lifted else NO)


def cancel(
    run: Annotated[str, typer.Argument(help="The run, such as R12.")],
    reason: Reason,
    by: By,
    url: Url = DEFAULT_URL,
) -> None:
    """Stop a run at its next step boundary and take back what can be taken back."""
    number = run.lstrip("rR")
    if not number.isdigit():
        fail(f"{run!r} is not a run; it looks like R12")
    ask(url, f"/api/v1/runs/{number}/cancel", body={"reason": reason, "by": by})
    out.print(f"run R{number} stops at its next step boundary")
