"""Commands about guards, knobs and modes: `override`, `pin`, `unpin`, `mode`, `reset-breaker`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Annotated

import typer

from remediator.cli.client import ask, ask_list
from remediator.cli.terminal import (
    DEFAULT_URL,
    NO,
    By,
    Reason,
    Url,
    clock_time,
    fail,
    out,
    plain,
    scope_of,
    seconds,
)
from remediator.model.playbook import Mode

Where = Annotated[str, typer.Argument(help="playbook:NAME, target:NAME or pool:NAME.")]
Anywhere = Annotated[str, typer.Argument(help="all, playbook:NAME, target:NAME or pool:NAME.")]
OfTarget = Annotated[str, typer.Argument(help="The target.")]
Knob = Annotated[str, typer.Argument(help="The tunable, such as max_concurrency.")]
Length = Annotated[str, typer.Option("--for", help="How long, such as 30m; default: for good.")]
OptionalReason = Annotated[str, typer.Option(help="Why; it goes on record.")]


def override(
    where: Where,
    reason: Reason,
    length: Annotated[str, typer.Option("--for", help="How long, such as 30m or 2h.")],
    by: By,
    waive: Annotated[
        list[str] | None, typer.Option(help="A guard that is not asked; may be given often.")
    ] = None,
    url: Url = DEFAULT_URL,
) -> None:
    """Do nothing in a scope (hands off), or do not ask some of its guards (--waive)."""
    body = {
        **scope_of(where),
        "decision": "waive" if waive else "hands_off",
        "guards": waive or [],
        "reason": reason,
        "by": by,
        "length_s": seconds(length),
    }
    made = ask(url, "/api/v1/overrides", body=body)
    told = f"waived {', '.join(waive)}" if waive else "hands off"
    until = clock_time(made["until"])
    out.print(plain(f"{told} for {where} until {until}; end it: remediator lift {made['id']}"))


def lift(
    override_id: Annotated[int, typer.Argument(help="Its number, as `controls` shows it.")],
    by: By,
    url: Url = DEFAULT_URL,
) -> None:
    """End an override before its time."""
    ask(url, f"/api/v1/overrides/{override_id}", {"by": by}, method="DELETE")
    out.print(f"override {override_id} is over")


def pin(
    target: OfTarget,
    knob: Knob,
    reason: Reason,
    by: By,
    length: Length = "",
    url: Url = DEFAULT_URL,
) -> None:
    """Let no run move a knob; what is held on it is left to you as it is."""
    body = {
        "target": target,
        "knob": knob,
        "reason": reason,
        "by": by,
        "length_s": seconds(length) if length else None,
    }
    warning = ask(url, "/api/v1/pins", body=body).get("warning", "")
    out.print(plain(f"{knob} of {target} is pinned" + (f", but {warning}" if warning else "")))


def unpin(target: OfTarget, knob: Knob, by: By, url: Url = DEFAULT_URL) -> None:
    """Let runs move a knob again."""
    query = {"target": target, "knob": knob, "by": by}
    lifted = ask(url, "/api/v1/pins", query, method="DELETE")["lifted"]
    told = "is not pinned any more" if lifted else "was not pinned"
    out.print(plain(f"{knob} of {target} {told}"))
    raise typer.Exit(0 if lifted else NO)


def mode(
    where: Anywhere,
    mode: Annotated[
        str, typer.Argument(help="observe, propose, auto; or own: what its playbook says.")
    ],
    by: By,
    reason: OptionalReason = "",
    length: Length = "",
    url: Url = DEFAULT_URL,
) -> None:
    """Allow no bolder mode than this in a scope."""
    if mode == "own":
        query = {**scope_of(where), "by": by}
        lifted = ask(url, "/api/v1/modes", query, method="DELETE")["lifted"]
        told = "its playbooks' own modes hold" if lifted else "no mode was set there"
        out.print(plain(f"{where}: {told}"))
        raise typer.Exit(0 if lifted else NO)
    if not reason:
        fail(f"{mode} needs --reason: whoever finds it must know why")
    body = {
        **scope_of(where),
        "mode": mode,
        "reason": reason,
        "by": by,
        "length_s": seconds(length) if length else None,
    }
    ask(url, "/api/v1/modes", body=body, method="PUT")
    out.print(plain(f"{where}: {mode} at most"))
    for line in _more_careful(url, where, Mode(mode)):
        out.print(plain(line))


def _more_careful(url: str, where: str, wanted: Mode) -> list[str]:
    """Return, a line for each reason, what goes less far than the wanted mode all the same."""
    found: dict[str, list[str]] = defaultdict(list)
    for who, cap, why in _caps(url, where):
        if wanted.at_most(cap) is not wanted:
            found[f"{cap} at most, because of {why}"].append(who)
    return [f"    {', '.join(names)}: {why}" for why, names in found.items()]


def _caps(url: str, where: str) -> Iterator[tuple[str, Mode, str]]:
    """Yield who goes how far, and what says so: the configuration, or the file of a playbook."""
    scope, _, name = where.partition(":")
    for target in ask_list(url, "/api/v1/targets", {}):
        if scope in {"target", "pool"} and target["name" if scope == "target" else "pool"] != name:
            continue
        for setting, cap in target["caps"].items():
            yield target["name"], Mode(cap), f"{setting} in the configuration"
    for one in ask(url, "/api/v1/playbooks")["playbooks"]:
        if scope != "playbook" or one["name"] == name:
            yield one["name"], Mode(one["mode"]), "its own file"


def reset_breaker(
    playbook: Annotated[str, typer.Argument(help="The playbook.")],
    target: OfTarget,
    reason: Reason,
    by: By,
    url: Url = DEFAULT_URL,
) -> None:
    """Forget what failed before now, for a playbook on the target's whole pool."""
    body = {"playbook": playbook, "target": target, "reason": reason, "by": by}
    made = ask(url, "/api/v1/breakers/reset", body=body)
    out.print(plain(f"the breaker of {playbook} is reset for {made['value']['class']}"))
