"""Tells what happens while it happens, from the journal: what fired, was asked, decided and done.

The story calls `tell` again and again; each call prints what is new since the last one.
"""

from __future__ import annotations

import json
import time
from typing import Any

from rich.console import Console
from rich.text import Text

from remediator.demo.evidence import Witness

STYLES = {
    "fired": "yellow",
    "asked": "cyan",
    "decided": "bold",
    "did": "bold magenta",
    "measured": "cyan",
    "verdict": "bold green",
    "told": "yellow",
}


class Narrator:
    """Prints the story with the time since it began."""

    def __init__(self, console: Console, witness: Witness) -> None:
        self._console = console
        self._witness = witness
        self._began = time.monotonic()
        self._seen: set[tuple[object, ...]] = set()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the story began."""
        return time.monotonic() - self._began

    def say(self, text: str, *, style: str = "") -> None:
        """Print one line of the story."""
        self._console.print(Text(f"{self.elapsed_s:6.1f}s  {text}", style=style))

    def headline(self, text: str) -> None:
        """Print the title of an act."""
        self._console.print()
        self._console.rule(Text(text, style="bold"), align="left")

    def tell(self) -> None:
        """Print what the journal has learnt since the last call."""
        for alert in reversed(self._witness.api("/alerts", limit=20)):
            decisions = self._witness.api("/decisions", alert_id=alert["id"], limit=20)
            # The article's own rules fire beside ours; what no playbook answers is on record, too,
            # but it is not this story.
            ours = [decision for decision in decisions if decision["playbook"]]
            if ours:
                self._alert(alert, ours)
        for run in reversed(self._witness.api("/runs", limit=10)):
            story = self._witness.api(f"/runs/{run['id']}")
            self._run(story)

    def _once(self, *key: object) -> bool:
        if key in self._seen:
            return False
        self._seen.add(key)
        return True

    def _line(self, word: str, text: str) -> None:
        head = Text(f"{self.elapsed_s:6.1f}s  ")
        head.append(f"{word:<9}", style=STYLES.get(word, ""))
        head.append(text)
        self._console.print(head)

    def _alert(self, alert: dict[str, Any], decisions: list[dict[str, Any]]) -> None:
        name = alert["labels"].get("alertname", "?")
        state = "firing" if alert["firing"] else "resolved"
        if self._once("alert", alert["id"], state):
            summary = alert["annotations"].get("summary", "")
            word = "fired" if alert["firing"] else "resolved"
            self._line(word, f"A{alert['id']} {name}" + (f": {summary}" if word == "fired" else ""))
        for decision in reversed(decisions):
            if self._once("decision", decision["id"]):
                self._decision(decision)

    def _decision(self, decision: dict[str, Any]) -> None:
        for reading in decision["evidence"].get("readings", []):
            self._line("asked", f"{shortened(reading['query'])} -> {reading['said']}")
        if decision["admitted"]:
            self._line("decided", f"run R{decision['run_id']}: {decision['playbook']}")
        else:
            self._line(
                "decided",
                f"not {decision['playbook']}: {decision['reason']}, {decision['detail']}",
            )

    def _run(self, run: dict[str, Any]) -> None:
        for step in run["steps"]:
            self._step(run, step)
        for m in run["measurements"]:
            if m["role"] == "baseline":
                continue
            if m["value"] is not None and self._once("m", run["id"], m["role"], m["at"]):
                self._line("measured", f"{m['role']} {m['value']:.3g}")
        if run["closed_at"] and self._once("closed", run["id"]):
            verdict = f", {run['verdict']}" if run["verdict"] else ""
            self._line("verdict", f"R{run['id']} {run['state']}{verdict}: {run['reason']}")
            for message in run["messages"]:
                if message["severity"] != "info":
                    self._line("told", f"[{message['severity']}] {message['title']}")

    def _step(self, run: dict[str, Any], step: dict[str, Any]) -> None:
        if step["status"] == "started":
            return
        key = ("step", run["id"], step["pc"], step["phase"], step["iteration"], step["call"])
        if self._once(*key, step["attempt"]):
            args = step["args"].get("values") or {}
            said = f" {json.dumps(args)}" if args else ""
            done = step["status"] if not step["error"] else f"{step['status']}: {step['error']}"
            self._line("did", f"{step['call']}{said}: {step['why']} => {done}")


def shortened(query: str) -> str:
    """Return a query short enough for a line."""
    flat = " ".join(query.split())
    limit = 90
    return flat if len(flat) <= limit else flat[: limit - 3] + "..."
