"""Sends films to a running detector and waits for what comes of them, as a client would.

Surprise: it waits on the service's own server-sent events and never polls, so every test that uses
it also proves that they arrive and end.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self

import httpx

PATIENCE_S = 150.0  # for one film; the slowest here takes about 20 s on two cores


View = dict[str, Any]


class Event(NamedTuple):
    """One server-sent event."""

    kind: str
    data: View


class Shown(NamedTuple):
    """What came of a film."""

    view: View
    result: dict[str, Any]


class Moviegoer:
    """A client of the detector at ``url``."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._http = httpx.Client(base_url=url, timeout=PATIENCE_S, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def send(self, film: Path, **options: object) -> str:
        """Upload a film; return the path of its job."""
        told = {name: str(value).lower() for name, value in options.items()}
        answer = self._http.post(
            "/v1/videos",
            params=told,
            content=film.read_bytes(),
            headers={"Content-Type": "video/mp4"},
        )
        assert answer.status_code == 202, answer.text
        return answer.headers["Location"]

    def view(self, job: str) -> View:
        view: View = json.loads(self.read(job))
        return view

    def events(self, job: str) -> Iterator[Event]:
        """Yield the events of a job until the service ends them."""
        kind = ""
        with self._http.stream("GET", f"{job}/events") as answer:
            assert answer.status_code == 200, answer.read()
            for line in answer.iter_lines():
                name, _, value = line.partition(": ")
                if name == "event":
                    kind = value
                elif name == "data":
                    yield Event(kind, json.loads(value))

    def wait(self, job: str, there: Callable[[View], bool] | None = None) -> View:
        """Return the first view for which ``there`` holds; by default: it is done."""
        wanted = there or (lambda view: view["state"] == "done")
        for event in self.events(job):
            if wanted(event.data):
                return event.data
            assert event.data["state"] not in {"done", "failed", "cancelled"}, event.data
        raise AssertionError(f"the events of {job} ended before it came true")

    def show(self, film: Path, **options: object) -> Shown:
        """Upload a film and wait until it is done."""
        job = self.send(film, **options)
        return Shown(self.wait(job), self.result(job))

    def result(self, job: str) -> dict[str, Any]:
        result: dict[str, Any] = json.loads(self.read(f"{job}/result"))
        return result

    def read(self, path: str) -> bytes:
        answer = self._http.get(path)
        assert answer.status_code == 200, answer.text
        return answer.content
