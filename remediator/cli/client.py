"""Asks a running controller through its API, as `amtool` asks Alertmanager."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import httpx

from remediator.cli.terminal import NO, fail


def ask(
    url: str,
    path: str,
    query: dict[str, Any] | None = None,
    *,
    body: dict[str, Any] | None = None,
    method: str | None = None,
) -> Any:
    """Return the controller's answer, or end with one line that says why there is none.

    Without a `method` it is a POST when there is a body, else a GET.
    """
    verb = method or ("GET" if body is None else "POST")
    try:
        with httpx.Client(base_url=url, timeout=30, trust_env=False, headers=token()) as client:
            answer = client.request(verb, path, params=query, json=body)
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
