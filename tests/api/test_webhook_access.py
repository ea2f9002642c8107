"""Who may post, pause and look: tokens that rotate, loopback without one, safe at start."""

from __future__ import annotations

from pathlib import Path

import pytest

from remediator.errors import ConfigurationError
from tests.api.edge import Edge, a_payload, an_alert, controller

PAYLOAD = a_payload(an_alert())


def a_token_file(folder: Path, *tokens: str, name: str = "webhook.token") -> Path:
    path = folder / name
    path.write_text("".join(f"{token}\n" for token in tokens))
    return path


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def test_a_wrong_token_or_none_is_answered_401_and_stores_nothing(tmp_path: Path) -> None:
    path = a_token_file(tmp_path, "right")
    async with controller(tmp_path, webhook_token_file=path) as edge:
        for headers in ({}, bearer("wrong"), bearer(""), {"Authorization": "Basic right"}):
            answer = await edge.post(PAYLOAD, **headers)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"
        assert await edge.count() == (0, 0)
        assert await edge.metric('remediator_webhooks_total{outcome="unauthorized"}') == 4
        assert (await edge.post(PAYLOAD, **bearer("right"))).status_code == 200


async def test_the_body_of_a_stranger_is_not_even_read(tmp_path: Path) -> None:
    path = a_token_file(tmp_path, "right")
    async with controller(tmp_path, webhook_token_file=path, webhook_limit_bytes=1024) as edge:
        assert (await edge.post(b"x" * 5000, **bearer("wrong"))).status_code == 401


async def test_a_token_is_rotated_without_a_restart_and_without_a_refused_post(
    tmp_path: Path,
) -> None:
    path = a_token_file(tmp_path, "old")
    async with controller(tmp_path, webhook_token_file=path) as edge:
        assert (await edge.post(PAYLOAD, **bearer("old"))).status_code == 200
        a_token_file(tmp_path, "old", "new")
        assert (await edge.post(PAYLOAD, **bearer("old"))).status_code == 200
        assert (await edge.post(PAYLOAD, **bearer("new"))).status_code == 200
        a_token_file(tmp_path, "new")
        assert (await edge.post(PAYLOAD, **bearer("old"))).status_code == 401
        assert (await edge.post(PAYLOAD, **bearer("new"))).status_code == 200


@pytest.mark.parametrize("how", ["gone", "empty"])
async def test_a_token_file_that_is_lost_asks_alertmanager_to_try_again(
    tmp_path: Path, how: str
) -> None:
    path = a_token_file(tmp_path, "right")
    async with controller(tmp_path, webhook_token_file=path) as edge:
        path.unlink() if how == "gone" else path.write_text("\n")
        answer = await edge.post(PAYLOAD, **bearer("right"))
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
        assert str(tmp_path) not in answer.text
        assert await edge.metric('remediator_webhooks_total{outcome="unavailable"}') == 1
        a_token_file(tmp_path, "right")
        assert (await edge.post(PAYLOAD, **bearer("right"))).status_code == 200


@pytest.mark.parametrize("content", [None, b"", b"\n \n", b"\xff\xfe"], ids=repr)
async def test_a_token_file_that_holds_no_token_is_refused_at_start(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "webhook.token"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"token file .*webhook\.token"):
        async with controller(tmp_path, webhook_token_file=path):
            pass


@pytest.mark.parametrize("listen", ["0.0.0.0:8090", "[::]:8090", "10.1.2.3:8090", "host:8090"])
async def test_listening_where_others_can_reach_it_needs_both_tokens(
    tmp_path: Path, listen: str
) -> None:
    with pytest.raises(ConfigurationError, match="set webhook_token_file"):
        async with controller(tmp_path, listen=listen):
            pass
    path = a_token_file(tmp_path, "right")
    with pytest.raises(ConfigurationError, match="set api_token_file"):
        async with controller(tmp_path, listen=listen, webhook_token_file=path):
            pass


@pytest.mark.parametrize("listen", ["127.0.0.1:8090", "localhost:8090", "[::1]:8090"])
async def test_listening_on_loopback_needs_none(tmp_path: Path, listen: str) -> None:
    async with controller(tmp_path, listen=listen) as edge:
        assert (await edge.post(PAYLOAD)).status_code == 200


async def test_without_a_token_only_this_machine_may_post_or_change_anything(
    tmp_path: Path,
) -> None:
    async with controller(tmp_path, caller="10.1.2.3") as edge:
        assert (await edge.post(PAYLOAD)).status_code == 403
        wanted = {"reason": "r", "by": "b", "length_s": 60}
        assert (await edge.client.post("/api/v1/pauses", json=wanted)).status_code == 403
        assert await edge.count() == (0, 0)


async def exposed(edge: Edge, method: str, path: str, **headers: str) -> int:
    body = {"reason": "r", "by": "b", "length_s": 60} if method == "POST" else None
    answer = await edge.client.request(method, path, json=body, headers=headers)
    return answer.status_code


async def test_where_others_can_reach_it_looking_and_changing_need_the_api_token(
    tmp_path: Path,
) -> None:
    hook = a_token_file(tmp_path, "hook")
    api = a_token_file(tmp_path, "api", name="api.token")
    async with controller(
        tmp_path, listen="0.0.0.0:8090", webhook_token_file=hook, api_token_file=api
    ) as edge:
        for method, path in [("GET", f"/api/v1/{name}") for name in ("runs", "alerts", "targets")]:
            assert await exposed(edge, method, path) == 401
            assert await exposed(edge, method, path, **bearer("hook")) == 401
            assert await exposed(edge, method, path, **bearer("api")) == 200
        assert await exposed(edge, "POST", "/api/v1/pauses") == 401
        assert await exposed(edge, "POST", "/api/v1/pauses", **bearer("hook")) == 401
        assert await exposed(edge, "POST", "/api/v1/pauses", **bearer("api")) == 201
        # The webhook's token is Alertmanager's alone.
        assert (await edge.post(PAYLOAD, **bearer("api"))).status_code == 401
        assert await exposed(edge, "GET", "/livez") == 200


@pytest.mark.parametrize("host", ["controller.example.org", "x", "10.1.2.3:8090", "[::ffff]:1"])
async def test_without_a_token_it_answers_to_no_name_that_somebody_else_could_own(
    tmp_path: Path, host: str
) -> None:
    """A page in a browser on this machine can give its own name to our address."""
    async with controller(tmp_path) as edge:
        assert (await edge.post(PAYLOAD, host=host)).status_code == 403
        for own in ("localhost:8090", "127.0.0.1", "[::1]:8090"):
            assert (await edge.post(PAYLOAD, host=own)).status_code == 200
