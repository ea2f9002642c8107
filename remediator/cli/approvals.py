"""Commands by which a person answers: `approvals`, `approve`, `reject`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from remediator.cli.client import ask, ask_list
from remediator.cli.terminal import (
    DEFAULT_URL,
    AsJson,
    By,
    Reason,
    Url,
    clock_time,
    out,
    plain,
    print_json,
    run_number,
)

OfRun = Annotated[str, typer.Argument(help="The run that asks, such as R12.")]


def approvals(as_json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """List what waits for a person's yes or no."""
    found = ask_list(url, "/api/v1/approvals", {})
    if as_json:
        print_json(found)
        return
    for one in found:
        until = clock_time(one["expires_at"])
        head = f"R{one['run_id']}  {one['playbook']} on {one['target']}, until {until}"
        out.print(plain(head, "bold"))
        for line in _asked(url, one):
            out.print(plain(f"    {line}"))
    if not found:
        out.print("nothing waits for a person")


def _asked(url: str, one: dict[str, Any]) -> list[str]:
    """Return the lines that the person was sent; the bare question where nobody was."""
    messages = ask(url, f"/api/v1/runs/{one['run_id']}")["messages"]
    key = f"run/{one['run_id']}/ask/{one['pc']}"
    body = next((str(m["body"]) for m in messages if m["key"] == key), str(one["message"]))
    return body.splitlines()


def approve(
    run: OfRun,
    by: By,
    reason: Annotated[str, typer.Option(help="Why; it goes on record.")] = "",
    url: Url = DEFAULT_URL,
) -> None:
    """Say yes to what a run asks; its guards are asked again before it goes on."""
    number = run_number(run)
    ask(url, f"/api/v1/runs/{number}/approve", body={"by": by, "reason": reason})
    out.print(f"run R{number} is approved; it goes on if its guards still say yes")


def reject(run: OfRun, reason: Reason, by: By, url: Url = DEFAULT_URL) -> None:
    """Say no to what a run asks."""
    number = run_number(run)
    ask(url, f"/api/v1/runs/{number}/reject", body={"by": by, "reason": reason})
    out.print(f"run R{number} is rejected")
