"""Commands that tell what happened and why: `runs`, `trust`, `explain`.

The surprise: a run that only observed did nothing, so nothing here reads as if it had.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.text import Text

from remediator.cli.client import ask, ask_list
from remediator.cli.terminal import (
    DEFAULT_URL,
    NO,
    VERDICTS,
    AsJson,
    Url,
    clock_time,
    counted,
    fail,
    out,
    plain,
    print_json,
    print_rows,
    shortened,
)
from remediator.model.playbook import Mode
from remediator.model.run import StepStatus
from remediator.model.verdict import Verdict

# How the reason of an observed run begins whose trouble ended without anybody acting.
NATURAL = "natural recovery"
BY_ITSELF = {
    Verdict.UNCHANGED: "no recovery by itself",
    Verdict.WORSE: "worse by itself",
}


def runs(
    url: Url = DEFAULT_URL,
    target: Annotated[str | None, typer.Option(help="Only this target.")] = None,
    playbook: Annotated[str | None, typer.Option(help="Only this playbook.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many at most.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List runs, newest first."""
    wanted = {"target": target, "playbook": playbook, "limit": limit}
    found = ask_list(url, "/api/v1/runs", {k: v for k, v in wanted.items() if v is not None})
    if as_json:
        print_json(found)
        return
    if not found:
        check_names(url, target=target, playbook=playbook)
        asked = f" of {playbook}" if playbook else ""
        asked += f" on {target}" if target else ""
        out.print(plain(f"no runs yet{asked}"))
        return
    columns = ("opened_at", "kind", "mode", "playbook", "target")
    print_rows(
        ("run", "opened", "kind", "mode", "playbook", "target"),
        (
            (
                [plain(f"R{run['id']}"), plain(clock_time(run["opened_at"]))]
                + [plain(run[name]) for name in columns[1:]],
                outcome(run),
            )
            for run in found
        ),
    )


def check_names(url: str, *, target: str | None, playbook: str | None) -> None:
    """End with one line when nobody knows the target or the playbook that was asked about."""
    if target:
        names = {one["name"] for one in ask_list(url, "/api/v1/targets", {})}
        _check_name("target", target, names)
    if playbook:
        served = ask(url, "/api/v1/playbooks")["playbooks"]
        _check_name("playbook", playbook, {one["name"] for one in served})


def _check_name(kind: str, name: str, known: set[str]) -> None:
    if name not in known:
        told = ", ".join(sorted(known)) or "none"
        fail(f"no run is on record, and there is no {kind} {name!r}; known: {told}", code=NO)


def outcome(run: dict[str, Any]) -> Text:
    """Return how a run stands or ended, what it did, and why."""
    told = plain(run["state"])
    verdict = run["verdict"]
    if verdict:
        told.append(", ").append_text(shown_verdict(run))
    reason = str(run["reason"]).removeprefix(f"{NATURAL}: ")
    return told.append(": ").append_text(plain(reason)) if reason else told


def shown_verdict(run: dict[str, Any]) -> Text:
    """Return what a run did; one that only observed did nothing, whatever happened meanwhile."""
    verdict = run["verdict"]
    if run["mode"] == Mode.OBSERVE and verdict:
        mended = str(run["reason"]).startswith(NATURAL)
        return plain(NATURAL if mended else BY_ITSELF.get(verdict, verdict))
    none = "no verdict" if run["closed_at"] else "no verdict yet"
    return plain(verdict or none, VERDICTS.get(verdict or "", ""))


def trust(url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Say of each playbook what its runs came to, and which mode that supports."""
    found = ask_list(url, "/api/v1/trust", {})
    if as_json:
        print_json(found)
        return
    if not found:
        out.print("no playbook is served")
        return
    head = ("playbook", "mode", "improved", "95% interval", "advice")
    print_rows(head, ((_trust_cells(one), plain(one["reason"])) for one in found))


def _trust_cells(one: dict[str, Any]) -> list[Text]:
    improved = one["improved"]
    moves = one["advice"] != one["mode"]
    return [
        plain(one["playbook"]),
        plain(one["mode"]),
        plain(f"{improved['count']} of {improved['of']}" if improved["of"] else "no run yet"),
        plain(f"{improved['low']:.0%} to {improved['high']:.0%}" if improved["of"] else "-"),
        plain(f"-> {one['advice']}" if moves else "stay", "yellow" if moves else ""),
    ]


def explain(
    what: Annotated[str, typer.Argument(help="R12, A5, an alert's name or its fingerprint.")],
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Say why it did, or did not: the evidence, the decisions, every step and its outcome."""
    if what[:1] in "rR" and what[1:].isdigit():
        run = ask(url, f"/api/v1/runs/{what[1:]}")
        print_json(run) if as_json else tell_run(run)
        return
    alert_id = what[1:] if what[:1] in "aA" and what[1:].isdigit() else find_alert(url, what)
    alert = ask(url, f"/api/v1/alerts/{alert_id}")
    if as_json:
        print_json(alert)
        return
    tell_alert(alert)
    for run in reversed(alert["runs"]):
        tell_run(ask(url, f"/api/v1/runs/{run['id']}"))


def find_alert(url: str, what: str) -> str:
    """Return the id of the newest alert with this name or fingerprint."""
    for key in ("name", "fingerprint"):
        found = ask_list(url, "/api/v1/alerts", {key: what, "limit": 1})
        if found:
            return str(found[0]["id"])
    fail(f"no alert is called {what!r}, and none has that fingerprint", code=NO)


def tell_alert(alert: dict[str, Any]) -> None:
    """Print an alert and what was decided about it."""
    labels = alert["labels"]
    name = labels.get("alertname", alert["fingerprint"])
    state = "firing" if alert["firing"] else f"resolved {clock_time(alert['resolved_at'])}"
    out.print(plain(f"A{alert['id']}  {name}  {state}", "bold"))
    rest = " ".join(f'{k}="{shortened(v)}"' for k, v in sorted(labels.items()) if k != "alertname")
    out.print(plain(f"    {rest}"))
    seen = f"first seen {clock_time(alert['first_seen_at'])} by {alert['source']}"
    out.print(plain(f"    {seen}, received {counted(alert['seen'], 'time')}"))
    for decision in reversed(alert["decisions"]):
        tell_decision(decision)


def tell_decision(decision: dict[str, Any]) -> None:
    """Print one decision with its evidence."""
    if decision["admitted"]:
        line = f"  + {clock_time(decision['first_at'])}  admitted: {decision['playbook']} "
        line += f"on {decision['target']} as R{decision['run_id']}"
    else:
        who = decision["playbook"] or "nothing"
        line = f"  - {clock_time(decision['first_at'])}  {who} denied: {decision['reason']}"
        line += f": {decision['detail']}" if decision["detail"] else ""
        line += f"  (x{decision['count']})" if decision["count"] > 1 else ""
    out.print(plain(line))
    readings = decision["evidence"].get("readings", [])
    for reading in readings:
        out.print(plain(f"      asked {reading['query']}"), plain(f"-> {reading['said']}"))
    if "query" in decision["evidence"]:
        out.print(plain(f"      asked {decision['evidence']['query']}"))


def tell_run(run: dict[str, Any]) -> None:
    """Print a run: why, every attempt and its outcome, the measurements, the end."""
    observed = run["mode"] == Mode.OBSERVE
    head = f"R{run['id']}  {run['kind']} {run['playbook']} on {run['target']}  {run['state']}"
    out.print(plain(head, style="bold"), shown_verdict(run))
    parent = f", after R{run['parent_id']}" if run["parent_id"] else ""
    hands = " (nothing is sent)" if observed else ""
    mode = f"mode {run['mode']}{hands}, playbook {run['playbook_sha'][:12]}{parent}"
    out.print(plain(f"    opened {clock_time(run['opened_at'])}, {mode}"))
    for decision in run["decisions"]:
        tell_decision(decision)
    told = [(s["started_at"], step_line(s, observed=observed)) for s in run["steps"]]
    told += [(m["at"], measurement_line(m)) for m in run["measurements"]]
    told += [(look["at"], diagnosis_line(look)) for look in run["diagnoses"]]
    told += [
        (asked["asked_at"], question_line(asked, closed=bool(run["closed_at"])))
        for asked in run["approvals"]
    ]
    for _, line in sorted(told, key=lambda item: item[0]):
        out.print(plain(line))
    for change in run["changes"]:
        out.print(
            plain(
                f"    change: {change['knob']} at {change['value']:g}, base {change['base']:g}: "
                f"{change['state']}"
            )
        )
    if run["closed_at"]:
        out.print(plain(f"    closed {clock_time(run['closed_at'])}: {run['reason']}"))
    else:
        out.print(plain(f"    next at {clock_time(run['due_at'])}: {run['reason']}"))
    for message in run["messages"]:
        sent = "told" if message["sent_at"] else f"not told yet ({message['error'] or 'queued'})"
        out.print(plain(f"    {sent}: [{message['severity']}] {message['title']}"))


def step_line(step: dict[str, Any], *, observed: bool = False) -> str:
    """Return one attempt as a line; where only observed, as what would have been sent."""
    back = "<- " if step["phase"] == "rollback" else ""
    tries = f" (attempt {step['attempt']})" if step["attempt"] > 1 else ""
    error = f": {step['error']}" if step["error"] else ""
    would = "would " if observed else ""
    status = "not sent" if observed and step["status"] == StepStatus.OK else step["status"]
    return (
        f"    {clock_time(step['started_at'])}  {back}{would}{step['call']}{tries}: {step['why']} "
        f"=> {status}{error}"
    )


def diagnosis_line(diagnosis: dict[str, Any]) -> str:
    """Return what a run saw as a line; `--json` has all of it."""
    parts = ", ".join(_glance(name, part) for name, part in diagnosis["seen"].items())
    return f"    {clock_time(diagnosis['at'])}  looked at {parts or 'nothing'}"


def question_line(asked: dict[str, Any], *, closed: bool = False) -> str:
    """Return what a person was asked, and what they said, as a line.

    A question that its run ended without an answer is withdrawn, whatever time it had left.
    """
    answer = "withdrawn" if closed else f"open until {clock_time(asked['expires_at'])}"
    if asked["decision"]:
        who = f" by {asked['by']}" if asked["by"] else ""
        why = f": {asked['reason']}" if asked["reason"] else ""
        answer = f"{asked['decision']}{who} at {clock_time(asked['decided_at'])}{why}"
    return f"    {clock_time(asked['asked_at'])}  asked a person => {answer}"


def _glance(name: str, part: Any) -> str:
    # An error or the answer to a query fits into a line; a document does not.
    said = part.get("error") or part.get("said") if isinstance(part, dict) else None
    return f"{name} ({shortened(str(said))})" if said else name


def measurement_line(measurement: dict[str, Any]) -> str:
    """Return one measurement as a line."""
    value = measurement["value"]
    said = f"{value:.4g}" if value is not None else measurement["status"]
    return f"    {clock_time(measurement['at'])}  measured ({measurement['role']}): {said}"
