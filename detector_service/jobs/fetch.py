"""A film by its URL: which addresses are allowed, and fetching it. Used by the desk and the routes.

A URL is a request to make *this machine* call somebody, so: only what the allowlist names, only
URLs that every parser reads alike, no redirects, no proxy of the environment, and the connection
goes to an address that was checked (a name that changes its address between check and connect
gains nothing), while ``Host`` and the certificate stay those of the name.
Surprise: an entry that names an address or ``localhost`` itself may be private; a *name* that
resolves to a private address is refused, also where the allowlist has that name.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx

from detector_service.errors import MediaError, RefusedError, StartError
from detector_service.jobs.incoming import Arrived, Incoming, too_large

log = logging.getLogger(__name__)

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

PORTS: Final = {"http": 80, "https": 443}
TRIES: Final = 3
CONNECT_S: Final = 10.0
STALL_S: Final = 30.0
MAX_URL: Final = 2048
OK: Final = 200
RETRIED: Final = frozenset({408, 429, 500, 502, 503, 504})

# RFC 3986 section 2: all a URL may consist of. A backslash, which some parsers take for a slash,
# is not among it.
_URL = re.compile(r"(?:[A-Za-z0-9\-._~:/?\[\]@!$&'()*+,;=]|%[0-9A-Fa-f]{2})+")
# Dots, slashes, backslashes, percent signs and control characters in disguise.
_DISGUISED = re.compile(r"%(?:2[ef5]|5c|7f|[01][0-9a-f])", re.IGNORECASE)
# Addresses that are no part of the internet, though `ipaddress` (on some versions) calls them
# global: Azure's host agent, and the local translation prefix of RFC 8215.
_NEVER = tuple(ipaddress.ip_network(net) for net in ("168.63.129.16/32", "64:ff9b:1::/48"))
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address


@dataclass(frozen=True)
class Address:
    """A URL taken apart; ``host`` is lower case, ``target`` is the path and query as sent."""

    scheme: str
    host: str
    port: int
    path: str
    target: str

    @property
    def literal(self) -> bool:
        """Say whether the host is an address or ``localhost`` rather than a name."""
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            return self.host == "localhost"
        return True

    @property
    def authority(self) -> str:
        """Return what the ``Host`` header says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    def covers(self, other: Address) -> bool:
        """Say whether ``other`` is on the same server, at or under this path."""
        if (self.scheme, self.host, self.port) != (other.scheme, other.host, other.port):
            return False
        return other.path == self.path or other.path.startswith(self.path.rstrip("/") + "/")


class _LaterError(Exception):
    """It failed in a way that another try may mend."""


async def resolve_name(host: str, port: int) -> Sequence[str]:
    """Return the addresses of a name, the system's preferred one first."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


@dataclass(frozen=True)
class Fetcher:
    """What may be fetched, and how.

    Attributes:
        allowed: URL prefixes; a path ends at a segment boundary.
        max_bytes: size of a film.
        max_seconds: for one film, all tries together.
        backoff_s: before the second try; twice as long before the third.
    """

    allowed: Sequence[Address]
    max_bytes: int
    max_seconds: float = 3600.0
    backoff_s: float = 1.0
    resolve: Resolve = resolve_name

    def require(self, url: str) -> Address:
        """Return the URL taken apart.

        Raises:
            RefusedError: 403 ``url_not_allowed``, 422 ``invalid`` for one that parsers may read
                differently, or that has credentials or a fragment.
        """
        if not self.allowed:
            words = (
                "no URL is allowed here; upload the film, or have DETECTOR_VIDEO_URLS name its site"
            )
            raise RefusedError(403, "url_not_allowed", words)
        try:
            address = take_apart(url)
        except ValueError as exc:
            words = f"url: {exc}"
            raise RefusedError(
                422, "invalid", words, evidence={"problems": {"url": str(exc)}}
            ) from exc
        if not any(prefix.covers(address) for prefix in self.allowed):
            words = f"{redacted(url)} is under none of the URLs that DETECTOR_VIDEO_URLS allows"
            raise RefusedError(403, "url_not_allowed", words)
        return address

    async def fetch(self, url: str, path: Path) -> Arrived:
        """Download ``url`` to ``path``, synced; nothing stays there if it fails or is cancelled.

        Raises:
            MediaError: ``fetch_failed``, ``url_not_allowed`` or ``too_large``.
            StateWriteError: the disk is full or fails.
        """
        try:
            address = self.require(url)
        except RefusedError as exc:  # the allowlist may have changed since it was accepted
            raise MediaError(exc.reason, str(exc)) from exc
        try:
            async with asyncio.timeout(self.max_seconds):
                return await self._try(address, redacted(url), path)
        except TimeoutError as exc:
            words = f"{redacted(url)} took longer than {self.max_seconds:g} s"
            raise MediaError("fetch_failed", words) from exc

    async def _try(self, address: Address, shown: str, path: Path) -> Arrived:
        reached = await self._addresses(address)
        trust = await asyncio.to_thread(httpx.create_ssl_context)
        why = ""
        for number in range(TRIES):
            try:
                return await self._download(address, reached[number % len(reached)], trust, path)
            except _LaterError as exc:
                why = str(exc)
                log.warning("fetching %s: %s (try %d of %d)", shown, why, number + 1, TRIES)
            if number + 1 < TRIES:
                await asyncio.sleep(self.backoff_s * 2**number)
        raise MediaError("fetch_failed", f"{shown} cannot be fetched: {why}; tried {TRIES} times")

    async def _addresses(self, address: Address) -> Sequence[str]:
        try:
            found = await self.resolve(address.host, address.port)
        except OSError as exc:
            words = f"the name {address.host} cannot be resolved: {exc.strerror or exc}"
            raise MediaError("fetch_failed", words) from exc
        # One bad address refuses the name: which of them would be called is not ours to guess.
        wanted = _is_loopback if address.host == "localhost" else is_public
        trusted = address.literal and address.host != "localhost"
        if not found or not (trusted or all(wanted(one) for one in found)):
            words = f"{address.host} has an address that is not public; it is not called"
            raise MediaError("url_not_allowed", words)
        return found

    async def _download(
        self, address: Address, reached: str, trust: ssl.SSLContext, path: Path
    ) -> Arrived:
        host = f"[{reached}]" if ":" in reached else reached
        timeout = httpx.Timeout(STALL_S, connect=CONNECT_S)
        try:
            async with (
                httpx.AsyncClient(trust_env=False, verify=trust, timeout=timeout) as client,
                client.stream(
                    "GET",
                    f"{address.scheme}://{host}:{address.port}{address.target}",
                    headers={"Host": address.authority, "Accept-Encoding": "identity"},
                    extensions={"sni_hostname": address.host},
                ) as answer,
            ):
                self._require_film(answer)
                async with Incoming(path, self.max_bytes) as incoming:
                    async for data in answer.aiter_raw():
                        await incoming.add(data)
                    return await incoming.finish()
        except httpx.HTTPError as exc:
            raise _LaterError(f"{str(exc) or type(exc).__name__}") from exc

    def _require_film(self, answer: httpx.Response) -> None:
        if answer.status_code in RETRIED:
            raise _LaterError(f"the server answers {answer.status_code}")
        if answer.is_redirect:
            raise _no_film("the server redirects, which is not followed; give the final URL")
        if answer.status_code != OK:
            raise _no_film(f"the server answers {answer.status_code}")
        if answer.headers.get("content-encoding", "identity") != "identity":
            raise _no_film("the server sends it compressed, though asked not to")
        # Other types are believed to be wrong sooner than the film: .ts is often sent as text.
        if answer.headers.get("content-type", "").lower().startswith("text/html"):
            raise _no_film("the server sends a page, perhaps to log in, and no film")
        told = answer.headers.get("content-length", "")
        if told.isdigit() and int(told) > self.max_bytes:
            raise too_large(self.max_bytes)


def read_allowed(urls: Iterable[str]) -> tuple[Address, ...]:
    """Return the allowlist.

    Raises:
        StartError: an entry is no plain ``http(s)://host[:port][/path]``.
    """
    allowed = []
    for url in urls:
        try:
            address = take_apart(url)
        except ValueError as exc:
            raise StartError(f"DETECTOR_VIDEO_URLS: {url}: {exc}") from exc
        if address.target != address.path:
            raise StartError(f"DETECTOR_VIDEO_URLS: {url}: a prefix has no query")
        allowed.append(address)
    return tuple(allowed)


def take_apart(url: str) -> Address:
    """Return the parts of a URL that every parser reads alike.

    Raises:
        ValueError: it is none; the words say why.
    """
    if len(url) > MAX_URL:
        raise ValueError(f"has more than {MAX_URL} characters")
    if "#" in url:
        raise ValueError("has a fragment; remove what follows #")
    if not _URL.fullmatch(url):
        raise ValueError("has characters that a URL cannot have; percent-encode them")
    split = urlsplit(url)
    if split.scheme not in PORTS:
        raise ValueError("must begin with http:// or https://")
    if "@" in split.netloc:
        raise ValueError("has a user or password before the host; remove it")
    if not split.hostname or split.port == 0:
        raise ValueError("names no host, or port 0")
    path = split.path or "/"
    _require_plain(path)
    target = f"{path}?{split.query}" if split.query else path
    return Address(split.scheme, split.hostname, split.port or PORTS[split.scheme], path, target)


def redacted(url: str) -> str:
    """Return the URL without its query, which in a signed URL is the secret."""
    bare, mark, _secret = url.partition("?")
    return f"{bare}?..." if mark else bare


def is_public(address: str) -> bool:
    """Say whether an IP address is one of the internet, and not of this machine or network."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.sixtofour
        if found in _NAT64:
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if inner is not None and not is_public(str(inner)):
            return False
    # Documented as the opposite of private, yet multicast counts as global.
    return found.is_global and not found.is_multicast and not any(found in net for net in _NEVER)


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address).is_loopback


def _require_plain(path: str) -> None:
    if _DISGUISED.search(path):
        raise ValueError("has an encoded dot, slash, backslash or percent sign in its path")
    # Some servers cut `;...` off a segment before they follow its dots.
    if any(segment.partition(";")[0] in {".", ".."} for segment in path.split("/")):
        raise ValueError("has . or .. in its path; write it without them")


def _no_film(words: str) -> MediaError:
    return MediaError("fetch_failed", words)
