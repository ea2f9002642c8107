"""Who may do what: bearer tokens from files, and loopback where none is configured.

The surprise: a token file is read at every check and may hold several tokens, one a line, so that a
token is rotated by adding the new one, switching the caller and removing the old one.
"""

from __future__ import annotations

import hmac
from ipaddress import ip_address
from pathlib import Path

import structlog
from fastapi import HTTPException, Request

from remediator.errors import ConfigurationError

log = structlog.get_logger(__name__)


def read_tokens(path: Path) -> list[str]:
    """Return the tokens in a file, one a line.

    Raises:
        ConfigurationError: it cannot be read or holds none.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"token file {path} cannot be read: {error}") from error
    tokens = [line.strip() for line in lines if line.strip()]
    if not tokens:
        raise ConfigurationError(f"token file {path} is empty")
    return tokens


class Access:
    """Checks callers against one token file.

    Args:
        token_file: None lets loopback callers in and nobody else.
    """

    def __init__(self, token_file: Path | None) -> None:
        self._token_file = token_file
        if token_file is not None:
            read_tokens(token_file)

    def check(self, request: Request) -> None:
        """Let the caller in.

        Raises:
            HTTPException: 401 for a missing or wrong token, 403 from elsewhere without one, 503
                while the token file cannot be read.
        """
        if self._token_file is None:
            if not _from_loopback(request):
                raise HTTPException(403, "no token is configured, so only this machine may do that")
            # A page that a browser on this machine shows could reach us under its own name.
            if not _is_loopback(request.url.hostname or ""):
                raise HTTPException(403, "without a token, ask by 127.0.0.1 or localhost")
            return
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        offered = given.strip().encode() if kind.lower() == "bearer" else b""
        try:
            known = read_tokens(self._token_file)
        except ConfigurationError as error:
            # The caller has not shown a token yet, so it is not told where ours lies.
            log.exception("no caller can be checked")
            raise HTTPException(
                503, "the token file cannot be read just now", headers={"Retry-After": "1"}
            ) from error
        # Every token is compared, in constant time: the answer's timing tells nothing.
        matches = [hmac.compare_digest(offered, token.encode()) for token in known]
        if not any(matches):
            raise HTTPException(
                401, "a valid bearer token is needed", headers={"WWW-Authenticate": "Bearer"}
            )


def _from_loopback(request: Request) -> bool:
    return request.client is not None and _is_loopback(request.client.host)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
