"""Commands by which a person stops it: `pause`, `resume`, `cancel`, `stop`, `kill`, `controls`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from remediator.cli.client import ask, ask_list
from remediator.cli.terminal import (
    DEFAULT_URL,
    NO,
    AsJson,
    By,
    Reason,
    Scope,
    Url,
    clock_time,
    fail,
    out,
    plain,
    print_json,
    run_number,
    scope_of,
    seconds,
)
from remediator.store.controls import Kind
from remediator.store.overrides import Ruling

RunOrScope = Annotated[
    str, typer.Argument(help="A run such as R12, or all, playbook:NAME, target:NAME, pool:NAME.")
]


def pause(
    reason: Reason,
    length: Annotated[str, typer.Option("--for", help="How long, such as 30m or 2h.")],
    by: By,
    scope: Scope = "all",
    url: Url = DEFAULT_URL,
) -> None:
    """Start no new forward action; what is half-done is unwound, what is held stays held."""
    body = {**scope_of(scope), "reason": reason, "by": by, "length_s": seconds(length)}
    made = ask(url, "/api/v1/pauses", body=body)
    out.print(plain(f"paused {scope} until {clock_time(made['until'])}: {reason}"))


def resume(by: By, scope: Scope = "all", url: Url = DEFAULT_URL) -> None:
    """Lift the pauses of a scope."""
    lifted = ask(url, "/api/v1/resume", body={**scope_of(scope), "by": by})["lifted"]
    out.print(plain(f"lifted {lifted} pause{'s' if lifted != 1 else ''} of {scope}"))
    raise typer.Exit(0 if lifted else NO)


def cancel(
    run: Annotated[str, typer.Argument(help="The run, such as R12.")],
    reason: Reason,
    by: By,
    url: Url = DEFAULT_URL,
) -> None:
    """Stop a run at its next step boundary and take back what can be taken back."""
    number = run_number(run)
    ask(url, f"/api/v1/runs/{number}/cancel", body={"reason": reason, "by": by})
    out.print(f"run R{number} stops at its next step boundary")


def stop(what: RunOrScope, reason: Reason, by: By, url: Url = DEFAULT_URL) -> None:
    """Roll back now, also what is held after its run. It may begin again: pause it first."""
    said = {"reason": reason, "by": by}
    if what[:1] in {"r", "R"} and what[1:].isdigit():
        stopped = ask(url, f"/api/v1/runs/{run_number(what)}/stop", body=said)
    else:
        stopped = ask(url, "/api/v1/stop", body={**scope_of(what), **said})
    _tell_stopped(stopped)


def kill(
    by: By,
    on: Annotated[bool, typer.Option("--on/--off", help="Pull it, or put it back.")],
    reason: Annotated[str, typer.Option(help="Why, with --on; it goes on record.")] = "",
    url: Url = DEFAULT_URL,
) -> None:
    """The kill switch: nothing forward anywhere, everything is rolled back now."""
    if not on:
        lifted = ask(url, "/api/v1/kill", {"by": by}, method="DELETE")["lifted"]
        out.print("the kill switch is off" if lifted else "the kill switch was not on")
        raise typer.Exit(0 if lifted else NO)
    if not reason:
        fail("--on needs --reason: whoever finds it must know why")
    stopped = ask(url, "/api/v1/kill", body={"reason": reason, "by": by})
    out.print("the kill switch is on: nothing forward begins on any replica")
    _tell_stopped(stopped)


def controls(as_json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """List what people set and that is in force: pauses, kill switch, overrides, pins, modes."""
    found = ask_list(url, "/api/v1/controls", {})
    if as_json:
        print_json(found)
        return
    for one in found:
        out.print(plain(_line(one)))
    if not found:
        out.print("nothing is held back")


def _tell_stopped(stopped: dict[str, Any]) -> None:
    for run in stopped["runs"]:
        out.print(f"run R{run} turns back at its next step boundary")
    for change in stopped["changes"]:
        out.print(f"change {change} is given back now")
    if not stopped["runs"] and not stopped["changes"]:
        out.print("nothing was open, and nothing is held")


def _line(one: dict[str, Any]) -> str:
    place = one["scope"] if one["scope"] == "all" else f"{one['scope']}:{one['name']}"
    said = _said(one["kind"], one["value"] or {})
    until = f", until {clock_time(one['until'])}" if one["until"] else ", until it is lifted"
    return f"{one['id']}  {one['kind']}  {place}{said}  by {one['by']}{until}: {one['reason']}"


def _said(kind: str, value: dict[str, Any]) -> str:
    """Return what a control decides, beside its scope."""
    if value.get("decision") == Ruling.WAIVE:
        return f"  waives {', '.join(value['guards'])}"
    words: dict[str, str] = {
        Kind.OVERRIDE: "hands off",
        Kind.MODE: f"{value.get('mode')} at most",
        Kind.PIN: str(value.get("knob")),
    }
    return f"  {words[kind]}" if kind in words else ""
