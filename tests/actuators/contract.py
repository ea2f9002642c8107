"""What every adapter that causes an effect over HTTP promises, whatever it is for.

A test class inherits `EffectContract`, says how to cause one effect, and gets these tests. They run
against a real server on loopback, because "was it sent?" is decided in the socket.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, ClassVar

import httpx
import pytest

from remediator.errors import (
    EffectError,
    OutcomeUnknownError,
    PermanentError,
    RefusedError,
    TemporaryError,
)
from tests.actuators.server import (
    Behaviour,
    answer,
    closed_port,
    cut,
    deaf_port,
    flood,
    hang,
    hang_mid_body,
    hang_up,
    reset,
    serving,
)

# Long enough for a busy machine, short enough for a test that waits it out.
SOON_S = 0.4
PLENTY_S = 10.0

REFUSED = {
    401: "unauthorized",
    403: "forbidden",
    409: "conflict",
    412: "precondition",
    413: "too_large",
    422: "invalid",
}
STATUSES: dict[int, type[Exception]] = {
    300: PermanentError,
    301: OutcomeUnknownError,
    302: OutcomeUnknownError,
    303: OutcomeUnknownError,
    304: PermanentError,
    307: PermanentError,
    400: PermanentError,
    **dict.fromkeys(REFUSED, RefusedError),
    404: PermanentError,
    405: PermanentError,
    408: OutcomeUnknownError,
    418: PermanentError,
    499: OutcomeUnknownError,
    500: OutcomeUnknownError,
    501: OutcomeUnknownError,
    502: OutcomeUnknownError,
    504: OutcomeUnknownError,
    507: OutcomeUnknownError,
    599: OutcomeUnknownError,
}


class EffectContract:
    """Inherit, set `good` and write `effect`."""

    # What a target that does it answers.
    good: ClassVar[Behaviour]
    # Whether this kind of target gives a 503 before it changes anything.
    refuses_before_applying: ClassVar[bool] = True
    # Whether a 2xx with a body that cannot be read is still a success.
    status_is_enough: ClassVar[bool] = False

    async def effect(self, url: str, client: httpx.AsyncClient, timeout_s: float) -> Any:
        raise NotImplementedError

    @pytest.fixture
    async def client(self) -> AsyncIterator[httpx.AsyncClient]:
        # It would follow redirects, to prove that no adapter lets it. `verify` is off because
        # loading certificates for plain HTTP is half the time of these tests.
        async with httpx.AsyncClient(follow_redirects=True, verify=False) as client:
            yield client

    async def test_a_success_is_a_success(self, client: httpx.AsyncClient) -> None:
        async with serving(type(self).good) as server:
            await self.effect(server.url, client, PLENTY_S)
        assert server.seen

    @pytest.mark.parametrize(("status", "error"), STATUSES.items())
    async def test_a_status_says_whether_it_was_applied(
        self, client: httpx.AsyncClient, status: int, error: type[Exception]
    ) -> None:
        async with serving(answer(status, b"words, not JSON")) as server:
            with pytest.raises(error) as caught:
                await self.effect(server.url, client, PLENTY_S)
        assert type(caught.value) is error
        assert str(status) in str(caught.value)
        assert len(server.seen) == 1

    @pytest.mark.parametrize(("status", "reason"), REFUSED.items())
    async def test_a_refusal_without_a_reason_is_named_after_its_status(
        self, client: httpx.AsyncClient, status: int, reason: str
    ) -> None:
        async with serving(answer(status)) as server:
            with pytest.raises(RefusedError) as caught:
                await self.effect(server.url, client, PLENTY_S)
        assert caught.value.reason == reason

    @pytest.mark.parametrize("status", [429, 503])
    async def test_try_later_is_not_applied_a_503_only_where_that_is_promised(
        self, client: httpx.AsyncClient, status: int
    ) -> None:
        async with serving(answer(status, Retry_After="7")) as server:
            if status == 429 or type(self).refuses_before_applying:
                with pytest.raises(TemporaryError) as caught:
                    await self.effect(server.url, client, PLENTY_S)
                assert caught.value.retry_after == 7.0
            else:
                with pytest.raises(OutcomeUnknownError):
                    await self.effect(server.url, client, PLENTY_S)
        assert len(server.seen) == 1

    @pytest.mark.parametrize(
        ("header", "seconds"),
        [("nonsense", 0.0), ("-5", 0.0), ("1e308", 0.0), ("9" * 400, 3600.0), ("nan", 0.0)],
    )
    async def test_a_wild_retry_after_never_becomes_a_wild_wait(
        self, client: httpx.AsyncClient, header: str, seconds: float
    ) -> None:
        async with serving(answer(429, Retry_After=header)) as server:
            with pytest.raises(TemporaryError) as caught:
                await self.effect(server.url, client, PLENTY_S)
        assert caught.value.retry_after == seconds

    async def test_a_refused_connection_was_definitely_not_applied(
        self, client: httpx.AsyncClient
    ) -> None:
        with closed_port() as url, pytest.raises(TemporaryError, match="cannot reach"):
            await self.effect(url, client, PLENTY_S)

    async def test_a_connection_that_never_comes_about_was_definitely_not_applied(
        self, client: httpx.AsyncClient
    ) -> None:
        with deaf_port() as url, pytest.raises(TemporaryError, match="cannot reach"):
            await self.effect(url, client, SOON_S)

    @pytest.mark.parametrize("behaviour", [hang, hang_mid_body])
    async def test_silence_after_sending_is_an_unknown_outcome(
        self, client: httpx.AsyncClient, behaviour: Behaviour
    ) -> None:
        if type(self).status_is_enough and behaviour is hang_mid_body:
            return
        async with serving(behaviour) as server:
            with pytest.raises(OutcomeUnknownError, match="not answered within"):
                await self.effect(server.url, client, SOON_S)
        assert len(server.seen) == 1

    @pytest.mark.parametrize("behaviour", [reset, hang_up])
    async def test_a_connection_lost_after_sending_is_an_unknown_outcome(
        self, client: httpx.AsyncClient, behaviour: Behaviour
    ) -> None:
        async with serving(behaviour) as server:
            with pytest.raises(OutcomeUnknownError, match="answer was lost"):
                await self.effect(server.url, client, PLENTY_S)
        assert len(server.seen) == 1

    @pytest.mark.parametrize(
        "behaviour",
        [cut(200), flood(3 << 20), answer(200, b"<html>"), answer(200, b"[" * 200_000)],
        ids=["cut", "flood", "html", "deep"],
    )
    async def test_a_success_that_cannot_be_read_is_an_unknown_outcome(
        self, client: httpx.AsyncClient, behaviour: Behaviour
    ) -> None:
        async with serving(behaviour) as server:
            if type(self).status_is_enough:
                await self.effect(server.url, client, PLENTY_S)
            else:
                with pytest.raises(OutcomeUnknownError):
                    await self.effect(server.url, client, PLENTY_S)
        assert len(server.seen) == 1

    async def test_a_refusal_that_is_cut_short_is_still_a_refusal(
        self, client: httpx.AsyncClient
    ) -> None:
        async with serving(cut(409)) as server:
            with pytest.raises(RefusedError):
                await self.effect(server.url, client, PLENTY_S)

    async def test_a_redirect_is_never_followed(self, client: httpx.AsyncClient) -> None:
        async with serving(type(self).good) as elsewhere:
            there = answer(302, Location=elsewhere.url)
            async with serving(there) as server:
                with pytest.raises(EffectError):
                    await self.effect(server.url, client, PLENTY_S)
        assert elsewhere.seen == []

    async def test_a_cancelled_call_hangs_up_and_leaves_the_client_usable(
        self, client: httpx.AsyncClient
    ) -> None:
        async with serving(hang) as server:
            calling = asyncio.create_task(self.effect(server.url, client, PLENTY_S))
            await asyncio.wait_for(server.arrived.wait(), PLENTY_S)
            calling.cancel()
            with pytest.raises(asyncio.CancelledError):
                await calling
            await asyncio.wait_for(server.client_left.wait(), PLENTY_S)
            server.behaviour = type(self).good
            await self.effect(server.url, client, PLENTY_S)

    async def test_a_url_that_makes_no_request_is_permanent(
        self, client: httpx.AsyncClient
    ) -> None:
        with pytest.raises(PermanentError):
            await self.effect("ftp://127.0.0.1", client, PLENTY_S)
