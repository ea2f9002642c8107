"""A silence in a real Alertmanager, and the hole that it tears into the webhooks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from sqlalchemy import select

from remediator.actuators.silences import SilencesActuator
from remediator.clock import system_clock
from remediator.engine import intake
from remediator.errors import PermanentError
from remediator.model.effect import Call
from remediator.model.run import RunState
from remediator.model.target import Target
from remediator.prometheus.alertmanager import AlertmanagerClient
from remediator.store.tables import alerts
from tests.builders import GPU1, INSTANCE, a_playbook
from tests.fakes import FakeClock
from tests.journals import a_journal
from tests.prometheus.daemon import free_port, running, until
from tests.world import World

pytestmark = pytest.mark.real

TARGET = Target(name=GPU1)
LABELS = {"alertname": "Slow", "instance": INSTANCE[GPU1]}
OTHER = {"alertname": "Slow", "instance": "somewhere else"}
CONFIGURATION = """
route: {receiver: remediator, group_wait: 0s, group_interval: 1s}
receivers: [{name: remediator, webhook_configs: [{url: "http://127.0.0.1:1/"}]}]
"""


@pytest.fixture
def url(daemon: Callable[..., str], tmp_path: Path) -> Iterator[str]:
    address = f"127.0.0.1:{free_port()}"
    (tmp_path / "a.yml").write_text(CONFIGURATION)
    argv = [
        daemon("prometheus-alertmanager", "alertmanager"),
        "--config.file=a.yml",
        "--storage.path=data",
        "--cluster.listen-address=",
        f"--web.listen-address={address}",
    ]
    with running(argv, tmp_path):
        yield f"http://{address}"


@pytest.fixture
async def http(url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(verify=False) as client:

        async def is_ready() -> bool:
            try:
                return (await client.get(f"{url}/-/ready")).is_success
            except httpx.ConnectError:
                return False

        await until(is_ready)
        yield client


class Site:
    """An Alertmanager, and a controller whose level reconcile is the only one to listen to it."""

    def __init__(self, url: str, http: httpx.AsyncClient, folder: Path) -> None:
        self.url, self.http = url, http
        self.alertmanager = AlertmanagerClient([url], client=http)
        self.silences = SilencesActuator([url], client=http)
        self.world = World(url=a_journal(folder), clock=FakeClock(system_clock()))
        self.world.silencer = self.silences  # type: ignore[assignment] # the real one
        self.world.serve(a_playbook(name="hush", steps=[{"silence": {}}, {"wait": "1h"}]))

    async def tell(self, *, firing: bool) -> None:
        """Tell Alertmanager of both alerts, as Prometheus does."""
        now = system_clock()
        ends = now + timedelta(hours=1) if firing else now
        body = [
            {"labels": one, "startsAt": (now - timedelta(minutes=1)).isoformat()}
            | {"endsAt": ends.isoformat()}
            for one in (LABELS, OTHER)
        ]
        (await self.http.post(f"{self.url}/api/v2/alerts", json=body)).raise_for_status()

    async def listed(self) -> set[str]:
        """Return the instances of the alerts that the level reconcile is shown."""
        found, failed = await self.alertmanager.active_alerts("remediator")
        assert not failed
        return {alert.labels["instance"] for alert in found}

    async def lists(self, *wanted: str) -> None:
        async def so() -> bool:
            return await self.listed() == set(wanted)

        await until(so)

    async def suppressed(self) -> set[str]:
        """Return the instances of the alerts that Alertmanager keeps quiet."""
        found = (await self.http.get(f"{self.url}/api/v2/alerts?active=false")).json()
        return {one["labels"]["instance"] for one in found if one["status"]["silencedBy"]}

    async def reconcile(self) -> None:
        """Do what the level reconcile does, when nobody has called for long."""
        self.world.clock.advance(self.world.pace.absent_for.total_seconds() + 1)
        found, failed = await self.alertmanager.active_alerts("remediator")
        listing = intake.Listing(
            alerts=tuple(found), asked_at=self.world.clock(), heard_at=None, complete=not failed
        )
        await intake.observe(self.world.db, listing, self.world.pace)
        await self.world.tick()

    def firing(self) -> set[str]:
        """Return the instances that the journal believes to be firing."""

        def body(tx):  # type: ignore[no-untyped-def] # a transaction of the test
            rows = tx.conn.execute(select(alerts.c.labels).where(alerts.c.firing))
            return {row.labels["instance"] for row in rows}

        return self.world.db.transact(body, writing=False)


@pytest.fixture
async def site(url: str, http: httpx.AsyncClient, tmp_path: Path) -> AsyncIterator[Site]:
    site = Site(url, http, tmp_path)
    yield site
    site.world.close()


async def test_what_happens_to_a_silenced_alert_is_known_without_any_webhook(site: Site) -> None:
    us, them = INSTANCE[GPU1], OTHER["instance"]
    await site.tell(firing=True)
    await site.lists(us, them)
    await site.reconcile()
    (run,) = site.world.runs()
    assert run.state is RunState.WAITING

    async def silenced() -> bool:
        return await site.suppressed() == {us}

    await until(silenced)
    # Our own silence is no end of the alert: it is listed, and goes on in the journal.
    await site.reconcile()
    assert site.firing() == {us, them}
    # Over while silenced: no webhook says so, now or later.
    await site.tell(firing=False)
    await site.lists()
    await site.reconcile()
    assert site.firing() == set()
    # It fires again under the silence, and the silence ends: no webhook either.
    await site.tell(firing=True)
    await site.lists(us, them)
    await site.reconcile()
    assert site.firing() == {us, them}
    await site.world.cancel(run)
    await site.world.tick()
    assert await site.suppressed() == set()
    assert await site.listed() == {us, them}


async def test_a_silence_is_made_once_found_again_and_ended(site: Site) -> None:
    now = system_clock()
    args = {
        "tag": "run-1-abc/0",
        "matchers": [{"name": "alertname", "value": 'a"b=~.*', "isRegex": False, "isEqual": True}],
        "ends_at": (now + timedelta(minutes=5)).isoformat(),
        "comment": "R1 (hush)",
    }
    begin, end = Call("silence", args), Call("expire", {"tag": args["tag"]})
    assert await site.silences.probe(TARGET, begin, {}) is False
    made = await site.silences.send(TARGET, begin)
    assert await site.silences.send(TARGET, begin) == {"id": made["id"], "already": True}
    assert await site.silences.probe(TARGET, begin, {}) is True
    (known,) = await site.alertmanager.silences()
    assert known.is_ours
    assert known.matchers[0].value == 'a"b=~.*'
    assert (await site.silences.send(TARGET, end))["ended"] == [made["id"]]
    assert (await site.silences.send(TARGET, end))["already"]
    assert await site.silences.probe(TARGET, end, {}) is True


async def test_a_pattern_that_alertmanager_cannot_read_is_refused_for_good(site: Site) -> None:
    now = system_clock()
    args = {
        "tag": "run-1-abc/0",
        "matchers": [{"name": "a", "value": "(?<=b)c", "isRegex": True, "isEqual": True}],
        "ends_at": (now + timedelta(minutes=5)).isoformat(),
        "comment": "R1 (hush)",
    }
    with pytest.raises(PermanentError, match="400"):
        await site.silences.send(TARGET, Call("silence", args))
