"""The composition root: settings in, a running controller out. Read it top to bottom.

Called by `cli serve` and by tests. It is the only file that sees every room, and nothing else
builds anything.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import structlog
from fastapi import FastAPI, Request

from remediator import telemetry
from remediator.actuators.commands import CommandsActuator, Program
from remediator.actuators.detector import DetectorActuator
from remediator.actuators.endpoints import Endpoint, EndpointsActuator
from remediator.actuators.observed import ObservedActuator
from remediator.actuators.silences import SilencesActuator
from remediator.actuators.supervisor import SupervisorActuator, client_for
from remediator.api import (
    approvals,
    control,
    health,
    overrides,
    problems,
    stories,
    trust,
    webhook,
)
from remediator.api.access import Access
from remediator.engine import intake
from remediator.engine.admission import Admission
from remediator.engine.dispatch import WATCHDOG
from remediator.engine.effects import Effects
from remediator.engine.moves import COMMANDS, ENDPOINTS, PROCESS, SETTINGS, SILENCES
from remediator.engine.ports import Actuator, Notifier
from remediator.engine.reconcile import Reconciler
from remediator.engine.runner import Runner
from remediator.errors import ConfigurationError, EffectError, TemporaryError
from remediator.language.loader import SERVING, Library, load_files
from remediator.model.effect import Message
from remediator.model.playbook import Mode, Pinned
from remediator.model.step import ACTION_KINDS
from remediator.model.target import Inventory, Target
from remediator.notifiers.log import LogNotifier
from remediator.notifiers.webhook import WebhookNotifier
from remediator.prometheus.alertmanager import AlertmanagerClient
from remediator.prometheus.client import PrometheusClient
from remediator.scheduler import Scheduler
from remediator.settings import Settings
from remediator.store.database import Database, moment

log = structlog.get_logger(__name__)


@dataclass
class Playbooks:
    """The playbooks that are being served, and their pinned form.

    Attributes:
        announced: whether firing alerts were looked at again since this process began to serve.
    """

    library: Library
    pinned: Mapping[str, Pinned] = field(default_factory=dict)
    announced: bool = False

    @classmethod
    def load(cls, settings: Settings) -> Playbooks:
        """Read the folder; problems are reported and never stop the others."""
        playbooks = cls(library=Library())
        playbooks.take(load_files([settings.playbooks], surroundings=settings.surroundings()))
        return playbooks

    def take(self, library: Library) -> bool:
        """Serve another library; True when what is served has changed."""
        before = {name: loaded.sha256 for name, loaded in self.pinned.items()}
        _tell(self.library, library)
        self.library = library
        self.pinned = {
            name: Pinned(playbook=loaded.playbook, text=loaded.text, sha256=loaded.sha256)
            for name, loaded in library.by_name.items()
            if loaded.playbook is not None
        }
        return before != {name: loaded.sha256 for name, loaded in self.pinned.items()}


def _tell(before: Library, library: Library) -> None:
    """Log what is wrong in the files, once, and which playbooks an edit has broken."""
    told = set(map(str, (*before.problems, *before.warnings)))
    for problem in library.problems:
        if str(problem) not in told:
            log.error("playbook problem", problem=str(problem))
    for warning in library.warnings:
        if str(warning) not in told:
            log.warning("playbook doubt", doubt=str(warning))
    for name, loaded in library.by_name.items():
        held = before.by_name.get(name)
        if held is not None and loaded.status not in {SERVING, held.status}:
            log.warning("the last good version goes on serving", playbook=name, why=loaded.status)


@dataclass(frozen=True)
class Parts:
    """Everything that was built, by name."""

    settings: Settings
    journal: Database
    metrics: telemetry.Metrics
    inventory: Inventory
    playbooks: Playbooks
    scheduler: Scheduler
    alertmanager: AlertmanagerClient
    actuators: Mapping[str, Actuator]
    reconciler: Reconciler
    closing: AsyncExitStack


def build(settings: Settings, *, db: Database | None = None) -> FastAPI:
    """Build the controller.

    Args:
        settings: the configuration.
        db: the journal; by default the one that `settings` name.

    Raises:
        ConfigurationError: the configuration cannot work, or the journal cannot be opened.
    """
    _refuse_unsafe(settings)
    journal = db or Database(settings.database)
    journal.migrate()
    parts = _assemble(settings, journal)
    app = FastAPI(
        title="Remediator",
        description="Alert-driven auto-remediation: why it did, why it did not, how to stop it.",
        lifespan=_lifespan(parts),
    )
    problems.install(app)
    _mount(app, parts)
    return app


def _assemble(settings: Settings, journal: Database) -> Parts:
    """Build the core and the adapters around it."""
    pace = settings.pace()
    metrics = telemetry.Metrics()
    inventory = Inventory(_target(name, settings) for name in settings.targets)
    playbooks = Playbooks.load(settings)
    web = httpx.AsyncClient(follow_redirects=False, trust_env=False)
    prometheus = PrometheusClient(settings.prometheus, client=web)
    closing = AsyncExitStack()
    closing.push_async_callback(web.aclose)
    real = _actuators(settings, web, closing)
    alertmanager = AlertmanagerClient(settings.alertmanager, client=web)
    admission = Admission(
        db=journal, metrics=prometheus, silences=alertmanager, inventory=inventory, pace=pace
    )
    effects = Effects(
        db=journal,
        metrics=prometheus,
        admission=admission,
        actuators={
            Mode.AUTO: real,
            Mode.OBSERVE: {key: ObservedActuator(actuator) for key, actuator in real.items()},
        },
        pace=pace,
        lookers={
            key: actuator
            for key, actuator in real.items()
            if isinstance(actuator, SupervisorActuator)
        },
    )
    runner = Runner(
        db=journal,
        metrics=prometheus,
        effects=effects,
        inventory=inventory,
        admission=admission,
        pace=pace,
        owner=_owner(),
    )
    reconciler = Reconciler(
        db=journal,
        admission=admission,
        runner=runner,
        notifier=_notifier(settings, web),
        metrics=metrics,
        library=lambda: playbooks.pinned,
    )
    return Parts(
        settings=settings,
        journal=journal,
        metrics=metrics,
        inventory=inventory,
        playbooks=playbooks,
        scheduler=Scheduler(metrics),
        alertmanager=alertmanager,
        actuators=real,
        reconciler=reconciler,
        closing=closing,
    )


def _schedule(parts: Parts) -> None:
    """Say when: every tick of the controller, in one place."""
    settings, reconciler, playbooks = parts.settings, parts.reconciler, parts.playbooks

    async def level() -> None:
        await _observe_level(parts.journal, parts.alertmanager, settings)
        parts.scheduler.poke("dispatch")

    async def reload() -> None:
        changed = playbooks.take(await asyncio.to_thread(playbooks.library.reload))
        if changed or not playbooks.announced:
            # What was refused for lack of a playbook or a target may have one now.
            await reconciler.playbooks_changed()
            playbooks.announced = True
            log.info("playbooks", serving=sorted(playbooks.pinned))

    every = parts.scheduler.every
    every(settings.tick_s, "dispatch", reconciler.dispatch)
    every(settings.tick_s, "schedules", reconciler.look_by_schedule)
    every(settings.tick_s, "runs", reconciler.drive_due)
    every(settings.tick_s, "changes", reconciler.look_after_changes)
    every(settings.tick_s, "notifications", reconciler.tell)
    every(settings.lease_s / 3, "lease renewal", reconciler.renew_leases)
    every(settings.reconcile_s, "reconcile", level)
    every(settings.reload_s, "playbook reload", reload)
    every(max(settings.tick_s, 1.0), "watchdog", reconciler.watch)
    every(3600.0, "retention", reconciler.forget)


def _lifespan(parts: Parts) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        _schedule(parts)
        parts.scheduler.start()
        log.info(
            "serving",
            listen=parts.settings.listen,
            playbooks=sorted(parts.playbooks.pinned),
            problems=len(parts.playbooks.library.problems),
            targets=[target.name for target in parts.inventory],
        )
        yield
        await parts.scheduler.stop()
        await parts.reconciler.close()
        await parts.closing.aclose()
        parts.journal.close()

    return lifespan


def _mount(app: FastAPI, parts: Parts) -> None:
    """Hang every router into the app."""
    settings, journal, playbooks = parts.settings, parts.journal, parts.playbooks
    inventory, poke = parts.inventory, parts.scheduler.poke
    api_access = Access(settings.api_token_file)

    def may_read(request: Request) -> None:
        # On loopback anybody on this machine may look; elsewhere looking needs the token, too.
        if not settings.on_loopback:
            api_access.check(request)

    async def live(target: Target) -> tuple[dict[str, Any] | None, str | None]:
        actuator = parts.actuators.get(f"{target.name}/{SETTINGS}")
        if actuator is None:
            return None, "it has no settings actuator"
        try:
            return dict(await actuator.read(target)), None
        except EffectError as error:
            return None, str(error)

    async def ready() -> dict[str, object]:
        return {
            "playbooks": len(playbooks.pinned),
            "playbook_problems": len(playbooks.library.problems),
            "targets": len(inventory),
        }

    def known(scope: str) -> list[str]:
        names = {
            "playbook": playbooks.pinned,
            "target": [target.name for target in inventory],
            "pool": {target.pool for target in inventory if target.pool},
            "action": ACTION_KINDS,
            "knob": {knob for one in playbooks.pinned.values() for knob in one.playbook.knobs},
        }
        return list(names[scope])

    app.include_router(
        webhook.build_router(
            db=journal,
            access=Access(settings.webhook_token_file),
            pace=settings.pace(),
            metrics=parts.metrics,
            limit_bytes=settings.webhook_limit_bytes,
            poke=poke,
        )
    )
    app.include_router(
        stories.build_router(
            db=journal,
            inventory=inventory,
            library=lambda: playbooks.library,
            live=live,
            may_read=may_read,
        )
    )
    app.include_router(
        control.build_router(
            db=journal, known=known, may_read=may_read, may_write=api_access.check, poke=poke
        )
    )
    app.include_router(
        overrides.build_router(
            db=journal,
            inventory=inventory,
            known=known,
            may_read=may_read,
            may_write=api_access.check,
            poke=poke,
        )
    )
    app.include_router(
        approvals.build_router(db=journal, may_read=may_read, may_write=api_access.check, poke=poke)
    )
    app.include_router(
        trust.build_router(db=journal, library=lambda: playbooks.pinned, may_read=may_read)
    )
    app.include_router(health.build_router(db=journal, metrics=parts.metrics, ready=ready))


def _owner() -> str:
    """Return a name for one controller among all that share a journal.

    Host and process id are for people. They are not enough: in containers both repeat.
    """
    return f"{socket.gethostname()}/{os.getpid()}/{secrets.token_hex(3)}"


def _refuse_unsafe(settings: Settings) -> None:
    if settings.on_loopback:
        return
    for name in ("webhook_token_file", "api_token_file"):
        if getattr(settings, name) is None:
            raise ConfigurationError(
                f"listen is {settings.listen}, which others can reach: set {name}, or listen on "
                f"127.0.0.1"
            )


def _target(name: str, settings: Settings) -> Target:
    wanted = settings.targets[name]
    roles = {SETTINGS: "detector"}
    if wanted.supervisor is not None:
        roles[PROCESS] = "supervisor"
    return Target(
        name=name,
        instance=wanted.instance,
        job=wanted.job,
        pool=wanted.pool,
        actuators=roles,
        caps=settings.caps(name),
    )


def _actuators(
    settings: Settings, web: httpx.AsyncClient, closing: AsyncExitStack
) -> dict[str, Actuator]:
    """Return the adapter of each target and role, under `target/role`."""
    found: dict[str, Actuator] = {}
    shared = _shared(settings, web)
    for name, target in settings.targets.items():
        found |= {f"{name}/{role}": actuator for role, actuator in shared.items()}
        found[f"{name}/{SETTINGS}"] = DetectorActuator(
            target.url, client=web, token_file=target.token_file
        )
        supervisor = target.supervisor
        if supervisor is not None:
            client = client_for(supervisor.server_url)
            closing.push_async_callback(client.aclose)
            found[f"{name}/{PROCESS}"] = SupervisorActuator(
                supervisor.program,
                client=client,
                username=supervisor.username,
                password_file=supervisor.password_file,
            )
    return found


def _shared(settings: Settings, web: httpx.AsyncClient) -> dict[str, Actuator]:
    """Return the adapters that serve every target, by role."""
    endpoints = {
        name: Endpoint(one.url, one.token_file, one.headers_file, one.timeout_s)
        for name, one in settings.endpoints.items()
    }
    programs = {
        name: Program(one.argv, one.timeout_s, one.environment, one.not_applied_exits)
        for name, one in settings.commands.items()
    }
    return {
        ENDPOINTS: EndpointsActuator(endpoints, client=web),
        COMMANDS: CommandsActuator(programs),
        SILENCES: SilencesActuator(settings.alertmanager, client=web),
    }


def _notifier(settings: Settings, web: httpx.AsyncClient) -> Notifier:
    written = LogNotifier(path=settings.notify_file)
    if settings.notify_url is None:
        return written
    posted = WebhookNotifier(settings.notify_url, client=web, token_file=settings.notify_token_file)
    # The one that can fail comes first: a retry must not write the same line again and again.
    return InTurn((posted, written))


@dataclass(frozen=True)
class InTurn:
    """Tells a person through one channel after the other; a failure stops and is retried whole."""

    notifiers: tuple[Notifier, ...]

    async def notify(self, message: Message) -> None:
        """Tell them.

        Raises:
            TemporaryError, PermanentError: a channel failed.
        """
        for notifier in self.notifiers:
            await notifier.notify(message)


async def _observe_level(
    db: Database, alertmanager: AlertmanagerClient, settings: Settings
) -> None:
    """Read what is active and routed to us, and merge it: lost webhooks, lost resolves."""
    asked_at = await db.read(moment)
    try:
        listed, failed = await alertmanager.active_alerts(settings.receiver)
    except TemporaryError as error:
        log.warning("alertmanager does not answer", why=str(error))
        return
    if failed:
        log.warning("an alertmanager peer does not answer; nothing is resolved", why=failed)
    heard = [a.updated_at for a in listed if a.labels.get("alertname") == WATCHDOG]
    await intake.observe(
        db,
        intake.Listing(
            alerts=tuple(listed),
            asked_at=asked_at,
            heard_at=max((at for at in heard if at is not None), default=None),
            complete=not failed,
        ),
        settings.pace(),
    )
