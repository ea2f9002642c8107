"""The ways of telling a person: the log, a file, a URL."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from remediator.errors import OutcomeUnknownError, PermanentError, TemporaryError
from remediator.model.effect import Message
from remediator.notifiers.log import LogNotifier
from remediator.notifiers.webhook import WebhookNotifier
from tests.actuators.contract import PLENTY_S, EffectContract
from tests.actuators.server import answer, closed_port, hang, hang_mid_body, serving

MESSAGE = Message(
    key="run/7/escalated",
    severity="critical",
    title="It did not help",
    body="a\nb",
    dedup="f00d/gpu-1",
)
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(verify=False) as client:
        yield client


class TestWebhookKeepsTheContract(EffectContract):
    good = staticmethod(answer(204))
    status_is_enough = True

    async def effect(self, url: str, client: httpx.AsyncClient, timeout_s: float) -> Any:
        await WebhookNotifier(url, client=client, timeout_s=timeout_s).notify(MESSAGE)


async def test_a_webhook_gets_the_message_its_key_and_the_newest_token(
    client: httpx.AsyncClient, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    async with serving(answer(200)) as server:
        notifier = WebhookNotifier(server.url + "/in?x=1", client=client, token_file=token)
        for secret in ("first\n", "second"):
            token.write_text(secret)
            await notifier.notify(MESSAGE)
    assert [seen.headers["authorization"] for seen in server.seen] == [
        "Bearer first",
        "Bearer second",
    ]
    seen = server.seen[0]
    assert (seen.method, seen.path) == ("POST", "/in?x=1")
    assert seen.headers["idempotency-key"] == MESSAGE.key
    assert seen.json() == {
        "key": MESSAGE.key,
        "severity": "critical",
        "title": "It did not help",
        "body": "a\nb",
        "dedup": "f00d/gpu-1",
    }


async def test_a_2xx_is_told_however_its_body_ends(client: httpx.AsyncClient) -> None:
    async with serving(hang_mid_body) as server:
        await WebhookNotifier(server.url, client=client, timeout_s=PLENTY_S).notify(MESSAGE)


@pytest.mark.parametrize(
    ("content", "error"),
    [(None, TemporaryError), (b"\n", TemporaryError), (b"\xff\xfe", TemporaryError)],
    ids=["missing", "empty", "no text"],
)
async def test_without_a_good_token_nobody_is_told_and_nothing_is_sent(
    client: httpx.AsyncClient, tmp_path: Path, content: bytes | None, error: type[Exception]
) -> None:
    token = tmp_path / "token"
    if content is not None:
        token.write_bytes(content)
    async with serving(answer(200)) as server:
        with pytest.raises(error, match="token"):
            await WebhookNotifier(server.url, client=client, token_file=token).notify(MESSAGE)
    assert server.seen == []


async def test_a_token_that_makes_no_header_is_permanent(
    client: httpx.AsyncClient, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    for content in ("é", "a\nb"):
        token.write_text(content)
        async with serving(answer(200)) as server:
            with pytest.raises(PermanentError):
                await WebhookNotifier(server.url, client=client, token_file=token).notify(MESSAGE)
        assert server.seen == []


async def test_a_secret_in_the_url_never_shows_in_an_error(client: httpx.AsyncClient) -> None:
    async with serving(hang) as slow:
        with closed_port() as away:
            for base in (away, slow.url):
                url = base.replace("http://", "http://me:hunter2@") + "/T0/hunter2?k=hunter2"
                with pytest.raises((TemporaryError, OutcomeUnknownError)) as caught:
                    await WebhookNotifier(url, client=client, timeout_s=0.3).notify(MESSAGE)
                assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("severity", "level"),
    [("info", "info"), ("warning", "warning"), ("critical", "critical"), ("odd", "info")],
)
async def test_the_log_gets_one_line_at_the_level_of_the_message(severity: str, level: str) -> None:
    with capture_logs() as lines:
        await LogNotifier().notify(Message("k", severity, "t", "b"))
    assert lines == [
        {
            "event": "notification",
            "log_level": level,
            "key": "k",
            "severity": severity,
            "title": "t",
            "body": "b",
            "dedup": "",
        }
    ]


async def test_the_file_gets_one_json_line_for_each_message(tmp_path: Path) -> None:
    path = tmp_path / "notifications.jsonl"
    notifier = LogNotifier(path=path, clock=lambda: NOW)
    with capture_logs():
        await notifier.notify(MESSAGE)
        await notifier.notify(Message("k", "info", "ü \ud800", "b"))
    first, second = (json.loads(line) for line in path.read_text("utf-8").splitlines())
    assert first == {
        "at": "2026-01-01T00:00:00+00:00",
        "key": MESSAGE.key,
        "severity": "critical",
        "title": "It did not help",
        "body": "a\nb",
        "dedup": "f00d/gpu-1",
    }
    assert second["title"].startswith("ü")


async def test_a_file_that_cannot_be_written_is_reported_after_the_log_has_it(
    tmp_path: Path,
) -> None:
    for path in (tmp_path / "no" / "such" / "folder.jsonl", Path("/dev/full")):
        with capture_logs() as lines, pytest.raises(TemporaryError, match=path.name):
            await LogNotifier(path=path).notify(MESSAGE)
        assert len(lines) == 1
