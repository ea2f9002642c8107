"""The command line: `remediator serve`, `check`, `runs`, `explain`, `pause`, `resume`, `cancel`.

Talks to a running controller through its API, as `amtool` does. Exit codes: 0 done, 1 the answer is
no (problems found, not there), 2 it could not be done (configuration, unreachable). The surprise:
no traceback ever reaches a person for a mistake of theirs, and no control character of a label
ever reaches their terminal (`plain`).
"""

from __future__ import annotations

import getpass
import json
import os
import re
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn

import httpx
import typer
import uvicorn
from rich.console import Console
from rich.table import Table
from rich.text import Text

from remediator.app import build
from remediator.demo import story
from remediator.demo.layout import shipped
from remediator.errors import ConfigurationError, RemediatorError
from remediator.language.loader import load_files
from remediator.model.duration import parse_duration
from remediator.settings import load_settings
from remediator.telemetry import configure_logging

NO = 1
CANNOT = 2
DEFAULT_URL = "http://127.0.0.1:8090"

app = typer.Typer(
    help="Alert-driven auto-remediation: re-checks, acts, proves the effect, puts it back.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
out = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)
err = Console(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False)

# What a terminal obeys instead of showing it (C0, DEL, C1), what reorders or breaks a line, and
# halves of surrogate pairs, which cannot be printed at all.
OBEYED = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
LONGEST_LABEL = 200
LONGEST_LINE = 4000


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
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Reason = Annotated[str, typer.Option(help="Why; it goes on record.")]
By = Annotated[str, typer.Option(help="Who; it goes on record.", default_factory=whoever_runs_this)]
Scope = Annotated[str, typer.Option(help="all, playbook:NAME or target:NAME.")]

VERDICTS = {"improved": "green", "unchanged": "yellow", "worse": "red", "unknown": "magenta"}


@app.command()
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


@app.command()
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


@app.command()
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
        out.print("no runs yet")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("run", "opened", "kind", "playbook", "target", "state", "verdict", "reason"):
        table.add_column(column, no_wrap=column != "reason")
    for run in found:
        verdict = run["verdict"] or ""
        table.add_row(
            f"R{run['id']}",
            clock_time(run["opened_at"]),
            plain(run["kind"]),
            plain(run["playbook"]),
            plain(run["target"]),
            plain(run["state"]),
            plain(verdict, VERDICTS.get(verdict, "")),
            plain(run["reason"]),
        )
    out.print(table)


@app.command()
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


@app.command()
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


@app.command()
def resume(by: By, scope: Scope = "all", url: Url = DEFAULT_URL) -> None:
    """Lift the pauses of a scope."""
    kind, _, name = scope.partition(":")
    lifted = ask(url, "/api/v1/resume", body={"scope": kind, "name": name, "by": by})["lifted"]
    out.print(plain(f"lifted {lifted} pause{'s' if lifted != 1 else ''} of {scope}"))
    raise typer.Exit(0 if lifted else NO)


@app.command()
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


@app.command()
def demo(
    once: Annotated[bool, typer.Option("--once", help="Do not stay up afterwards.")] = False,
    report: Annotated[
        Path | None, typer.Option(help="Write what was measured to this JSON file.")
    ] = None,
) -> None:
    """Play the two acts on a real stack of daemons: saturated, then dead."""
    raise typer.Exit(story.play(once=once, report=report))


def ask(
    url: str,
    path: str,
    query: dict[str, Any] | None = None,
    *,
    body: dict[str, Any] | None = None,
) -> Any:
    """Return the controller's answer, or end with one line that says why there is none."""
    try:
        with httpx.Client(base_url=url, timeout=30, trust_env=False, headers=token()) as client:
            answer = (
                client.get(path, params=query) if body is None else client.post(path, json=body)
            )
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        fail(f"the controller at {url} does not answer: {error}. Is it running? Set --url.")
    try:
        document = answer.json()
    except ValueError:
        fail(f"{url} does not answer like a controller (HTTP {answer.status_code})")
    if answer.is_error:
        detail = document.get("detail") if isinstance(document, dict) else None
        fail(f"{detail or document}", code=NO if answer.status_code == httpx.codes.NOT_FOUND else 2)
    return document


def token() -> dict[str, str]:
    """Return the header that lets us in where the controller asks for a token."""
    path = os.environ.get("REMEDIATOR_API_TOKEN_FILE")
    if not path:
        return {}
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
        first = lines[0].strip() if lines else ""
        first.encode("ascii")
    except (OSError, UnicodeError) as error:
        fail(f"REMEDIATOR_API_TOKEN_FILE {path}: {error}")
    return {"Authorization": f"Bearer {first}"}


def ask_list(url: str, path: str, query: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the list the controller answers with; anything else is no controller's answer."""
    found = ask(url, path, query)
    if not isinstance(found, list):
        fail(f"{url} does not answer like a controller; what listens there?")
    return found


def tell_alert(alert: dict[str, Any]) -> None:
    """Print an alert and what was decided about it."""
    labels = alert["labels"]
    name = labels.get("alertname", alert["fingerprint"])
    state = "firing" if alert["firing"] else f"resolved {clock_time(alert['resolved_at'])}"
    out.print(plain(f"A{alert['id']}  {name}  {state}", "bold"))
    rest = " ".join(f'{k}="{shortened(v)}"' for k, v in sorted(labels.items()) if k != "alertname")
    out.print(plain(f"    {rest}"))
    seen = f"first seen {clock_time(alert['first_seen_at'])} by {alert['source']}"
    out.print(plain(f"    {seen}, received {alert['seen']} times"))
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
    verdict = run["verdict"] or "none yet"
    head = f"R{run['id']}  {run['kind']} {run['playbook']} on {run['target']}  {run['state']}"
    out.print(plain(head, style="bold"), plain(verdict, VERDICTS.get(verdict, "")))
    parent = f", after R{run['parent_id']}" if run["parent_id"] else ""
    mode = f"mode {run['mode']}, playbook {run['playbook_sha'][:12]}{parent}"
    out.print(plain(f"    opened {clock_time(run['opened_at'])}, {mode}"))
    for decision in run["decisions"]:
        tell_decision(decision)
    told = [(s["started_at"], step_line(s)) for s in run["steps"]]
    told += [(m["at"], measurement_line(m)) for m in run["measurements"]]
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


def step_line(step: dict[str, Any]) -> str:
    """Return one attempt as a line."""
    back = "<- " if step["phase"] == "rollback" else ""
    tries = f" (attempt {step['attempt']})" if step["attempt"] > 1 else ""
    error = f": {step['error']}" if step["error"] else ""
    return (
        f"    {clock_time(step['started_at'])}  {back}{step['call']}{tries}: {step['why']} "
        f"=> {step['status']}{error}"
    )


def measurement_line(measurement: dict[str, Any]) -> str:
    """Return one measurement as a line."""
    value = measurement["value"]
    said = f"{value:.4g}" if value is not None else measurement["status"]
    return f"    {clock_time(measurement['at'])}  measured ({measurement['role']}): {said}"


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


def print_json(document: Any) -> None:
    """Print JSON, and nothing else, to standard output."""
    typer.echo(json.dumps(document, indent=2))


def fail(message: str, *, code: int = CANNOT) -> NoReturn:
    """End with one line for a person."""
    err.print(plain(f"remediator: {message}", "red"))
    raise typer.Exit(code)


def main() -> None:
    """Run the command line; a mistake of ours or theirs ends in one line."""
    try:
        app()
    except ConfigurationError as error:
        # A configuration may have several things wrong with it: one line each.
        for line in str(error).splitlines():
            err.print(plain(f"remediator: {line}", "red"))
        raise SystemExit(CANNOT) from error
    except RemediatorError as error:
        err.print(plain(f"remediator: {error}", "red"))
        raise SystemExit(NO) from error
