"""The demo's two acts on a real stack: saturated, then dead.

Called by `remediator demo` and `make demo`. The surprise: its exit status is not the script's
opinion. Both loops count as closed only when the journal and Prometheus say so (`evidence`).
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table
from rich.text import Text

from remediator.demo.evidence import JOB, Report, Witness, moment
from remediator.demo.layout import Options, StackError
from remediator.demo.narrator import Narrator
from remediator.demo.stack import Stack
from remediator.demo.traffic import Second, Traffic, per_second

INSTANCE = "detector-1"
OBJECTIVE_S = 0.25
CEILING = 10
# Everything the shipped rules and playbooks call a minute takes five seconds here.
SCALE = 12.0
# The input size is fitted to the device so that it carries about this many frames a second: then a
# ceiling of ten (twenty in the house, about 1 s) is too much and a ceiling of two (0.2 s) is not.
# At 24 a second the throttle would come to rest at three, which is the objective to a hair.
FRAMES_PER_S = 20.5
FIRST_SIZE, SMALLEST, LARGEST, MULTIPLE = 320, 160, 960, 32
BURST = 150.0
# A machine that is busy with something else may need more than one try.
FITTINGS = 4
LIGHT = 0.3
# How many seconds before the first action are compared with those after the verdict.
BEFORE_S, AFTER_S = 4, 6
# The overload is raised by this until clients see refusals and twice the objective.
RAISE, RAISES = 1.5, 7

THROTTLE, RESTART = "throttle-slow-detector", "restart-dead-detector"


def options() -> Options:
    """Return the stack of the story."""
    return Options(
        instance=INSTANCE,
        scale=SCALE,
        detector_stop_s=3,
        detector_env={
            # One thread: torch, the load and the daemons share this machine's cores.
            "DETECTOR_TORCH_THREADS": "1",
            "DETECTOR_MAX_CONCURRENCY": str(CEILING),
            "DETECTOR_IMGSZ": str(FIRST_SIZE),
            "DETECTOR_BATCH_SIZE": "4",
            "DETECTOR_CANARY_EVERY_S": "5",
        },
        controller={"tick_s": 0.5},
    )


def play(*, once: bool, report: Path | None) -> int:
    """Play both acts; return 0 only if both loops closed.

    Args:
        once: stop everything afterwards instead of staying up.
        report: file for what was measured, as JSON; whatever happens, it says how far it came.
    """
    console = Console(highlight=False, soft_wrap=True)
    outcome = Report()
    try:
        # A path that cannot be written is told before the story and not after it.
        _keep(outcome, report)
        console.print("starting detector, Prometheus, Alertmanager, controller ...")
        with Stack(options()) as stack:
            witness = Witness(stack.urls)
            try:
                _introduce(console, stack)
                _acts(console, stack, witness, outcome)
            except StackError as error:
                outcome.check("the story came to its end", ok=False, seen=error)
            finally:
                witness.close()
            _conclude(console, outcome)
            _keep(outcome, report)
            if report is not None:
                console.print(f"report: {report}")
            if not once:
                _stay(console, stack)
    except StackError as error:
        console.print(Text(f"demo: {error}", style="red"))
        outcome.check("the stack ran", ok=False, seen=error)
        with contextlib.suppress(StackError):
            _keep(outcome, report)
        return 1
    return 0 if outcome.closed else 1


def _keep(outcome: Report, report: Path | None) -> None:
    if report is None:
        return
    try:
        report.write_text(json.dumps(outcome.document(), indent=2) + "\n")
    except OSError as error:
        raise StackError(f"cannot write the report {report}: {error.strerror or error}") from error


def _introduce(console: Console, stack: Stack) -> None:
    console.print(
        f"Every time in the shipped rules and playbooks is divided by {SCALE:g} here "
        f"(1m is {60 / SCALE:g}s); scrape and evaluation every {stack.options.scrape_s:g}s.\n"
        "The detector's own adaptive limit is off here: only the ceiling acts."
    )
    _places(console, stack)


def _places(console: Console, stack: Stack) -> None:
    table = Table(box=None, show_header=False, pad_edge=False)
    for part, url in stack.urls.items():
        hint = {"controller": "/docs, /api/v1/runs, /metrics", "detector": "/v1/settings"}
        table.add_row(part, url, hint.get(part, ""))
    table.add_row("files, logs", str(stack.folder), "")
    console.print(table)


def _acts(console: Console, stack: Stack, witness: Witness, outcome: Report) -> None:
    narrator = Narrator(console, witness)
    carries = _calibrate(stack, narrator, outcome)
    with _traffic(stack, LIGHT * carries) as traffic:
        _act_saturated(witness, narrator, traffic, outcome, carries)
        _act_dead(stack, witness, narrator, outcome)
    outcome.figures["story_s"] = round(narrator.elapsed_s, 1)


def _traffic(stack: Stack, rate: float) -> Traffic:
    return Traffic(stack.url("detector"), rate=rate, log=stack.log("traffic"))


def _calibrate(stack: Stack, narrator: Narrator, outcome: Report) -> float:
    """Fit the input size to this device; return how many frames a second it then carries."""
    # Prometheus must not see these bursts: it would be right to call them an overload.
    stack.stop_part("prometheus")
    size, carries = FIRST_SIZE, _carries(stack)
    for _ in range(FITTINGS):
        wanted = size * math.sqrt(carries / FRAMES_PER_S)
        fitting = min(LARGEST, max(SMALLEST, MULTIPLE * round(wanted / MULTIPLE)))
        if fitting == size:
            break
        size = fitting
        _set_size(stack, size)
        carries = _carries(stack)
    stack.start_part("prometheus")
    narrator.say(f"at {size} px this device carries {carries:.0f} real video frames a second")
    outcome.figures["frames_per_s"] = round(carries, 1)
    outcome.figures["imgsz"] = size
    return carries


def _carries(stack: Stack) -> float:
    with _traffic(stack, BURST) as traffic:
        seconds = traffic.wait(3, after=time.time() + 1)
    answered = per_second(seconds, "answered")
    if answered < 1:
        raise StackError("the detector answers no real video frame; look at its log")
    return answered


def _set_size(stack: Stack, size: int) -> None:
    token = stack.site.secret("detector").read_text()
    try:
        answer = httpx.patch(
            stack.url("detector") + "/v1/settings",
            json={"values": {"imgsz": size}, "owner": "operator", "reason": "fits this device"},
            headers={"Authorization": f"Bearer {token}"},
            timeout=10,
            trust_env=False,
        )
    except httpx.HTTPError as error:
        raise StackError(f"the detector does not take imgsz {size}: {error!r}") from error
    if answer.is_error:
        raise StackError(f"the detector refuses imgsz {size}: {answer.text}")


def _act_saturated(
    witness: Witness, narrator: Narrator, traffic: Traffic, outcome: Report, carries: float
) -> None:
    narrator.headline("Act 1: saturated")
    traffic.rate(LIGHT * carries)
    narrator.say(f"light load, {LIGHT * carries:.0f} requests/s of real video frames")
    light = traffic.wait(4, after=time.time() + 1)
    narrator.say(f"{per_second(light, 'in_objective'):.1f}/s inside {OBJECTIVE_S:g} s")
    began = _overload(narrator, traffic, carries)
    run = witness.until(
        "a throttle run",
        lambda: witness.newest_run(THROTTLE),
        within_s=60,
        also=narrator.tell,
    )
    # Taken now: an episode that re-fires later begins anew under the same number.
    alert = witness.api(f"/alerts/{run['alert_id']}")
    run = witness.until(
        "the verdict of the throttle",
        lambda: _closed(witness.newest_run(THROTTLE)),
        within_s=90,
        also=narrator.tell,
    )
    after = traffic.wait(AFTER_S, after=time.time())
    acted = moment(run["acted_at"])
    before = [second for second in traffic.since(began) if second.at <= acted][-BEFORE_S:]
    _figures_of_act_1(narrator, witness, outcome, Mitigation(alert, run, before, after))
    traffic.rate(LIGHT * carries)
    narrator.say("load falls; capacity is given back step by step", style="bold")
    witness.until(
        "the restore",
        lambda: (
            witness.settings()["values"]["max_concurrency"] == CEILING
            and not witness.api(f"/targets/{INSTANCE}")["changes"]
        ),
        within_s=120,
        also=narrator.tell,
    )
    _check_act_1(witness, outcome, run["id"])


def _overload(narrator: Narrator, traffic: Traffic, carries: float) -> float:
    """Raise the load until the device cannot carry it; return since when (epoch seconds)."""
    rate = RAISE * carries
    first = time.time()
    for _ in range(RAISES):
        traffic.rate(rate)
        narrator.say(
            f"{rate:.0f} requests/s against the article's fixed ceiling of {CEILING}",
            style="bold red",
        )
        began = time.time()
        seen = traffic.wait(2, after=began + 1)
        worst = max((second.p95 or 0.0 for second in seen), default=0.0)
        if per_second(seen, "rejected") > 0 and worst > 1.5 * OBJECTIVE_S:
            narrator.say(f"saturated: clients see p95 {worst:.2f} s and refusals", style="bold red")
            return first
        rate *= RAISE
    raise StackError(f"{rate / RAISE:.0f} requests/s do not saturate this device")


def _closed(run: dict[str, Any] | None) -> dict[str, Any] | None:
    return run if run and run["closed_at"] else None


@dataclass(frozen=True)
class Mitigation:
    """Act 1 in rows and in what clients saw."""

    alert: dict[str, Any]
    run: dict[str, Any]
    before: list[Second]
    after: list[Second]


def _figures_of_act_1(
    narrator: Narrator, witness: Witness, outcome: Report, story: Mitigation
) -> None:
    run, before, after = story.run, story.before, story.after
    fired, received = moment(story.alert["starts_at"]), moment(story.alert["first_seen_at"])
    acted, closed = moment(run["acted_at"]), moment(run["closed_at"])
    # The median over the seconds after the verdict: one slow second on a busy machine is no news.
    p95 = witness.prometheus(
        "quantile_over_time(0.5, histogram_quantile(0.95, sum by (le) (rate("
        f'detector_request_duration_seconds_bucket{{job="{JOB}",instance="{INSTANCE}"}}[5s])))'
        f"[{AFTER_S}s:1s])"
    )
    useful = (per_second(before, "in_objective"), per_second(after, "in_objective"))
    figures = {
        "alert_fired_to_webhook_s": round(received - fired, 2),
        "webhook_to_action_s": round(acted - received, 2),
        "alert_to_action_s": round(acted - fired, 2),
        "time_to_mitigate_s": round(closed - fired, 1),
        "in_objective_before_per_s": round(useful[0], 1),
        "in_objective_after_per_s": round(useful[1], 1),
        "answered_before_per_s": round(per_second(before, "answered"), 1),
        "answered_after_per_s": round(per_second(after, "answered"), 1),
        "p95_after_s": None if p95 is None else round(p95, 3),
    }
    outcome.figures["saturated"] = figures
    narrator.say(
        f"inside the objective: {figures['in_objective_before_per_s']}/s -> "
        f"{figures['in_objective_after_per_s']}/s; answered at all: "
        f"{figures['answered_before_per_s']}/s -> {figures['answered_after_per_s']}/s",
        style="bold green",
    )
    outcome.check(
        "Prometheus: p95 is under the objective while the overload lasts",
        ok=p95 is not None and p95 < OBJECTIVE_S,
        seen=f"{p95} s",
    )
    outcome.check(
        "clients: more requests a second are inside the objective than before",
        ok=useful[1] > useful[0],
        seen=f"{useful[0]:.1f} -> {useful[1]:.1f}",
    )


def _check_act_1(witness: Witness, outcome: Report, run_id: int) -> None:
    run = witness.api(f"/runs/{run_id}")
    outcome.check(
        "journal: the throttle run succeeded and its verdict is improved",
        ok=(run["state"], run["verdict"]) == ("succeeded", "improved"),
        seen=f"R{run['id']} {run['state']}, {run['verdict']}: {run['reason']}",
    )
    restore = witness.newest_run(THROTTLE, kind="restore")
    # A light load may end the restore run a moment after the change is closed.
    steps = [s for s in (restore or {}).get("steps", []) if s["status"] == "ok"]
    outcome.check(
        "journal: the capacity was given back in steps",
        ok=len(steps) > 1,
        seen=[s["args"].get("values") or s["verb"] for s in steps],
    )
    document = witness.settings()
    outcome.check(
        "detector: the ceiling is back at its base and nothing is leased",
        ok=document["values"]["max_concurrency"] == CEILING and not document["leases"],
        seen=f"{document['values']['max_concurrency']}, leases {document['leases']}",
    )
    fired = witness.prometheus(
        'count_over_time(ALERTS{alertname="DetectorSlow",alertstate="firing"}[10m])'
    )
    firing = witness.prometheus('count(ALERTS{alertname="DetectorSlow",alertstate="firing"})')
    outcome.check(
        "Prometheus: DetectorSlow fired, and fires no longer",
        ok=bool(fired) and firing is None,
        seen=f"{fired} samples firing, now {firing}",
    )


def _act_dead(stack: Stack, witness: Witness, narrator: Narrator, outcome: Report) -> None:
    narrator.headline("Act 2: dead")
    settings = witness.settings()["values"]
    pid = stack.pid("detector")
    began = time.time()
    os.kill(pid, signal.SIGSTOP)
    narrator.say(
        f"the detector (pid {pid}) hangs: it is there and answers nothing", style="bold red"
    )
    run = witness.until(
        "a restart run", lambda: witness.newest_run(RESTART), within_s=60, also=narrator.tell
    )
    alert = witness.api(f"/alerts/{run['alert_id']}")
    run = witness.until(
        "the verdict of the restart",
        lambda: _closed(witness.newest_run(RESTART)),
        within_s=120,
        also=narrator.tell,
    )
    fired = moment(alert["starts_at"])
    outcome.figures["dead"] = {
        "hang_to_alert_s": round(fired - began, 1),
        "alert_to_action_s": round(moment(run["acted_at"]) - fired, 2),
        "time_to_mitigate_s": round(moment(run["closed_at"]) - fired, 1),
    }
    labels = f'job="{JOB}",instance="{INSTANCE}"'
    up = witness.prometheus(f"up{{{labels}}}")
    canary = witness.prometheus(f"detector_canary_success{{{labels}}}")
    starts = witness.prometheus(f"changes(process_start_time_seconds{{{labels}}}[5m])")
    outcome.check(
        "journal: the restart run succeeded and its verdict is improved",
        ok=(run["state"], run["verdict"]) == ("succeeded", "improved"),
        seen=f"R{run['id']} {run['state']}, {run['verdict']}: {run['reason']}",
    )
    outcome.check(
        "Prometheus: up, and the canary is seen",
        ok=up == 1 and canary == 1,
        seen=f"up {up}, canary {canary}",
    )
    outcome.check("Prometheus: it was restarted exactly once", ok=starts == 1, seen=starts)
    outcome.check(
        "supervisord: another process serves now",
        ok=stack.pid("detector") != pid,
        seen=f"pid {pid} -> {stack.pid('detector')}",
    )
    now = witness.settings()["values"]
    outcome.check("detector: the old settings are back", ok=now == settings, seen=now)
    narrator.say("alive, seeing, with its old settings", style="bold green")


def _conclude(console: Console, outcome: Report) -> None:
    console.print()
    console.rule(Text("What was proved", style="bold"), align="left")
    for check in outcome.checks:
        mark = Text("  yes  ", style="green") if check.ok else Text("  NO   ", style="bold red")
        console.print(mark + Text(f"{check.what}\n         {check.seen}"))
    console.print()
    for act in ("saturated", "dead"):
        figures = outcome.figures.get(act, {})
        said = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in figures.items())
        console.print(Text(f"{act}: {said or 'not reached'}"))
    closing = "Both loops closed." if outcome.closed else "A loop did not close."
    console.print(Text(closing, style="bold green" if outcome.closed else "bold red"))


def _stay(console: Console, stack: Stack) -> None:
    console.print()
    _places(console, stack)
    url = stack.url("controller")
    console.print(f"Why? remediator explain R1 --url {url}   (and: remediator runs --url {url})")
    console.print("Everything stays up until Ctrl-C.")
    try:
        signal.pause()
    except KeyboardInterrupt:
        console.print("stopped")
