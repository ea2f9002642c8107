"""Films by URL: what is allowed, what is never called, and how a download ends."""

from __future__ import annotations

import asyncio
import posixpath
import subprocess
from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha256
from pathlib import Path
from ssl import PROTOCOL_TLS_SERVER, SSLContext
from typing import Any
from urllib.parse import unquote

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector_service.errors import MediaError, RefusedError, StartError, StateWriteError
from detector_service.jobs.fetch import Fetcher, is_public, read_allowed, redacted
from detector_service.jobs.incoming import Incoming
from tests.detector.sites import Answer, says, site, stalls

FILM = bytes(range(256)) * 10_000


def fetcher(*allowed: str, **told: Any) -> Fetcher:
    told = {"max_bytes": 2**24, "backoff_s": 0.0, **told}
    return Fetcher(read_allowed(allowed), **told)


def left_in(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def failure(fetch: Fetcher, url: str, path: Path) -> MediaError:
    """Fetch in vain; returns why, after nothing was left behind."""
    with pytest.raises(MediaError) as caught:
        await fetch.fetch(url, path)
    assert path not in left_in(path.parent)
    return caught.value


@pytest.mark.parametrize(
    ("prefix", "url"),
    [
        ("https://films.test", "https://films.test/"),
        ("https://films.test", "https://films.test"),
        ("https://films.test/", "https://films.test:443/a/b.mp4?X-Sig=%2F..%2F"),
        ("https://films.test/a", "https://films.test/a"),
        ("https://films.test/a", "https://films.test/a/b"),
        ("https://films.test/a/", "HTTPS://FILMS.test/a/b"),
        ("http://films.test:8080", "http://films.test:8080/x;v=1/%C3%A9"),
        ("http://[::1]:90/a", "http://[::1]:90/a/b"),
    ],
)
def test_a_url_at_or_under_an_allowed_prefix_is_allowed(prefix: str, url: str) -> None:
    assert fetcher(prefix).require(url).port


@pytest.mark.parametrize(
    "url",
    [
        "http://films.test/a/b",
        "https://films.test:444/a/b",
        "https://films.test/ab",
        "https://films.test/",
        "https://films.test.evil.test/a/b",
        "https://films.test./a/b",
        "https://evil.test/https://films.test/a/b",
        "https://films.test@evil.test/a/b",
        "https://me:secret@films.test/a/b",
        "https://films.test/a/../b",
        "https://films.test/a/./../b",
        "https://films.test/a/..;x=1/b",
        "https://films.test/a/%2e%2e/b",
        "https://films.test/a/%2E./b",
        "https://films.test/a/..%2fb",
        "https://films.test/a/%5c..%5cb",
        "https://films.test/a/%252e%252e/b",
        "https://films.test/a/%00",
        "https://films.test/a/%0d%0aX: y",
        "https://films.test/a/\\..\\b",
        "https:\\\\films.test\\a",
        "https://films.test\\@evil.test/a/b",
        "https://films.test/a/b#fragment",
        "https://films.test/a/ b",
        "https://films.test/a/b\n",
        "https://films.test/a/é",
        "https://films.test/a/%",
        "https://films.test/a/?x=%zz",
        "https://films.test:99999/a/b",
        "https://films.test:0/a/b",
        "https://[films.test/a/b",
        "https:///a/b",
        "https:films.test/a/b",
        "//films.test/a/b",
        "file:///etc/passwd",
        "ftp://films.test/a/b",
        "gopher://films.test/a/b",
        "",
        "a/b",
        "https://films.test/a/" + "x" * 2048,
    ],
)
def test_a_url_that_is_not_plainly_under_the_prefix_is_refused(url: str) -> None:
    with pytest.raises(RefusedError) as caught:
        fetcher("https://films.test/a").require(url)
    refused = (caught.value.status, caught.value.reason)
    assert refused in {(403, "url_not_allowed"), (422, "invalid")}


@given(
    st.sampled_from(["http://films.test", "http://films.test/a", "http:/", "http://films.test:80"]),
    st.text(alphabet="/.%2eEfFcC5\\@#?:;[]ab \t", max_size=24),
)
def test_what_is_allowed_is_read_alike_by_everybody(start: str, rest: str) -> None:
    url = start + rest
    try:
        address = fetcher("http://films.test/a").require(url)
    except RefusedError:
        return
    read = httpx.URL(url)
    assert (read.host, read.port or 80, read.userinfo) == ("films.test", 80, b"")
    assert httpx.URL(f"http://127.0.0.1{address.target}").raw_path.decode() == address.target
    reached = posixpath.normpath(unquote(unquote(read.path)))
    assert reached == "/a" or reached.startswith("/a/")


def test_without_an_allowlist_no_url_is_allowed_and_the_words_say_what_to_do() -> None:
    with pytest.raises(RefusedError, match="DETECTOR_VIDEO_URLS") as caught:
        fetcher().require("https://films.test/a")
    assert (caught.value.status, caught.value.reason) == (403, "url_not_allowed")


@pytest.mark.parametrize(
    "prefix", ["films.test", "ftp://films.test", "https://u@films.test", "https://films.test/?a=1"]
)
def test_an_allowlist_entry_that_is_no_plain_prefix_stops_the_start(prefix: str) -> None:
    with pytest.raises(StartError, match="DETECTOR_VIDEO_URLS"):
        read_allowed([prefix])


def test_no_words_show_the_query_of_a_signed_url() -> None:
    url = "https://other.test/a?X-Signature=secret"
    assert redacted(url) == "https://other.test/a?..."
    assert redacted("https://other.test/a") == "https://other.test/a"
    with pytest.raises(RefusedError) as caught:
        fetcher("https://films.test").require(url)
    assert "secret" not in str(caught.value.body())


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "100.100.100.200",
        "168.63.129.16",
        "0.0.0.0",
        "255.255.255.255",
        "224.0.0.1",
        "::",
        "::1",
        "fe80::1%eth0",
        "fd00:ec2::254",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::127.0.0.1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::1",
        "2002:7f00:1::1",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    ],
)
def test_addresses_of_this_machine_and_its_networks_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "93.184.216.34", "2606:4700::1111", "64:ff9b::808:808"]
)
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public(address)


async def test_a_film_arrives_whole_with_its_size_and_digest(tmp_path: Path) -> None:
    async with site(film=says(FILM)) as films:
        path = tmp_path / "film"
        arrived = await fetcher(films.url).fetch(f"{films.url}/films/film?sig=a%2Fb", path)
    assert path.read_bytes() == FILM
    assert (arrived.size, arrived.sha256) == (len(FILM), sha256(FILM).hexdigest())
    (asked,) = films.asked
    assert asked.startswith("GET /films/film?sig=a%2Fb HTTP/1.1\r\n")
    assert f"Host: 127.0.0.1:{films.port}\r\n" in asked
    assert "Accept-Encoding: identity\r\n" in asked


async def test_a_redirect_is_not_followed(tmp_path: Path) -> None:
    async with site(secret=says(FILM)) as inner, site() as films:
        films.answers["/films/film"] = says(
            status="302 Found", Location=f"{inner.url}/films/secret"
        )
        wrong = await failure(fetcher(films.url), f"{films.url}/films/film", tmp_path / "film")
    assert wrong.reason == "fetch_failed"
    assert "redirects" in str(wrong)
    assert inner.asked == []


@pytest.mark.parametrize(
    ("answer", "reason", "tries"),
    [
        (says(b"x", "404 Not Found"), "fetch_failed", 1),
        (says(b"x", "206 Partial Content"), "fetch_failed", 1),
        (says(b"x", "503 Busy"), "fetch_failed", 3),
        (says(b"<html>", Content_Type="text/html; charset=utf-8"), "fetch_failed", 1),
        (says(b"x", Content_Encoding="gzip"), "fetch_failed", 1),
        (says(b"x", Content_Length="99999999"), "too_large", 1),
        (says(b"short", Content_Length="50"), "fetch_failed", 3),
        (says(b"", "garbage"), "fetch_failed", 3),
    ],
)
async def test_an_answer_that_is_no_film_fails_and_is_tried_again_only_where_that_may_help(
    tmp_path: Path, answer: Answer, reason: str, tries: int
) -> None:
    async with site(film=answer) as films:
        url = f"{films.url}/films/film?sig=secret"
        wrong = await failure(fetcher(films.url), url, tmp_path / "film")
    assert wrong.reason == reason
    assert "secret" not in str(wrong)
    assert len(films.asked) == tries


async def test_a_server_that_recovers_is_asked_again(tmp_path: Path) -> None:
    async with site() as films:

        async def recovering(writer: asyncio.StreamWriter) -> None:
            busy = len(films.asked) < 3
            await (says(b"", "502 Bad Gateway") if busy else says(FILM))(writer)

        films.answers["/films/film"] = recovering
        arrived = await fetcher(films.url).fetch(f"{films.url}/films/film", tmp_path / "film")
    assert (arrived.size, len(films.asked)) == (len(FILM), 3)


async def test_an_endless_body_is_cut_at_the_limit(tmp_path: Path) -> None:
    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        while True:
            writer.write(bytes(65536))
            await writer.drain()

    async with site(film=endless) as films:
        wrong = await failure(
            fetcher(films.url, max_bytes=2**22), f"{films.url}/films/film", tmp_path / "film"
        )
    assert wrong.reason == "too_large"


async def test_a_body_that_never_ends_to_arrive_is_given_up(tmp_path: Path) -> None:
    async with site(film=stalls(asyncio.Event())) as films:
        wrong = await failure(
            fetcher(films.url, max_seconds=0.2), f"{films.url}/films/film", tmp_path / "film"
        )
    assert "took longer than 0.2 s" in str(wrong)


async def test_nobody_there_is_told_in_words(tmp_path: Path) -> None:
    async with site() as films:
        pass
    wrong = await failure(fetcher(films.url), f"{films.url}/films/film", tmp_path / "film")
    assert wrong.reason == "fetch_failed"
    assert "tried 3 times" in str(wrong)


def resolving(*addresses: str) -> Callable[[str, int], Awaitable[Sequence[str]]]:
    async def resolve(host: str, port: int) -> Sequence[str]:
        return addresses

    return resolve


@pytest.mark.parametrize("addresses", [("127.0.0.1",), ("8.8.8.8", "127.0.0.1"), ("::1",), ()])
async def test_an_allowed_name_with_a_private_address_is_not_called(
    tmp_path: Path, addresses: tuple[str, ...]
) -> None:
    async with site(film=says(FILM)) as films:
        allowed = f"http://films.test:{films.port}"
        fetch = fetcher(allowed, resolve=resolving(*addresses))
        wrong = await failure(fetch, f"{allowed}/films/film", tmp_path / "film")
    assert wrong.reason == "url_not_allowed"
    assert films.asked == []


async def test_localhost_is_this_machine_and_nothing_else(tmp_path: Path) -> None:
    async with site(film=says(FILM)) as films:
        allowed = f"http://localhost:{films.port}"
        url = f"{allowed}/films/film"
        poisoned = fetcher(allowed, resolve=resolving("169.254.169.254"))
        assert (await failure(poisoned, url, tmp_path / "x")).reason == "url_not_allowed"
        fine = fetcher(allowed, resolve=resolving("127.0.0.1"))
        assert (await fine.fetch(url, tmp_path / "film")).size == len(FILM)


async def test_a_name_that_does_not_resolve_is_told_in_words(tmp_path: Path) -> None:
    async def resolve(host: str, port: int) -> Sequence[str]:
        raise OSError(-2, "Name or service not known")

    fetch = fetcher("https://films.test", resolve=resolve)
    wrong = await failure(fetch, "https://films.test/a", tmp_path / "film")
    assert "films.test cannot be resolved: Name or service not known" in str(wrong)


def identity(folder: Path, name: str) -> tuple[SSLContext, Path]:
    """Make a certificate for ``name``; returns what a server needs of it, and the file."""
    key, certificate = folder / "key.pem", folder / "cert.pem"
    kind = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1")
    names = ("-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}")
    argv = ["openssl", "req", "-x509", *kind, *names, "-keyout", key, "-out", certificate]
    subprocess.run(argv, check=True, capture_output=True)
    tls = SSLContext(PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    return tls, certificate


async def test_the_checked_address_is_called_with_the_name_in_host_and_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls, certificate = identity(tmp_path, "films.test")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    # The one public-looking thing about this address is that the test says so.
    monkeypatch.setattr("detector_service.jobs.fetch.is_public", lambda address: True)
    async with site(tls, film=says(FILM)) as films:
        for name, fits in (("films.test", True), ("other.test", False)):
            allowed = f"https://{name}:{films.port}"
            fetch = fetcher(allowed, resolve=resolving("127.0.0.1"))
            path = tmp_path / name
            if fits:
                assert (await fetch.fetch(f"{allowed}/films/film", path)).size == len(FILM)
            else:
                wrong = await failure(fetch, f"{allowed}/films/film", path)
                assert "certificate" in str(wrong).lower()
    assert f"Host: films.test:{films.port}\r\n" in films.asked[0]
    assert len(films.asked) == 1


async def test_an_url_no_longer_allowed_fails_the_job_and_not_the_worker(tmp_path: Path) -> None:
    wrong = await failure(fetcher("https://a.test"), "https://b.test/x", tmp_path / "film")
    assert wrong.reason == "url_not_allowed"


async def test_a_full_disk_is_told_as_such_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("detector_service.jobs.incoming.os.fsync", full)

    async def receive() -> None:
        async with Incoming(tmp_path / "film", 10) as film:
            await film.add(b"abc")
            await film.finish()

    with pytest.raises(StateWriteError, match="No space left") as caught:
        await receive()
    assert caught.value.disk_full
    assert left_in(tmp_path) == []


async def test_a_cancelled_download_leaves_nothing(tmp_path: Path) -> None:
    begun = asyncio.Event()
    async with site(film=stalls(begun)) as films:
        fetch = fetcher(films.url)
        fetching = asyncio.create_task(fetch.fetch(f"{films.url}/films/film", tmp_path / "film"))
        await begun.wait()
        fetching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await fetching
    assert left_in(tmp_path) == []
