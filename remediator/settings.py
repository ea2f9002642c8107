"""The controller's configuration: one YAML file, overridden by `REMEDIATOR_*` variables.

Loaded once by `cli` and passed on as plain arguments by `app`. The surprise: it never holds a
secret, only the paths of files that do, so that it can be shown and committed.
"""

from __future__ import annotations

import os
import re
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from remediator.actuators import commands
from remediator.errors import ConfigurationError
from remediator.language.surroundings import Surroundings
from remediator.model.pace import Pace
from remediator.model.playbook import Mode
from remediator.model.spec import NAME_PATTERN

MEBIBYTE = 1024 * 1024
TEN_YEARS_S = 10 * 365 * 86400.0


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SupervisorSettings(_Strict):
    """How the target's process is reached through supervisord."""

    socket: Path | None = Field(default=None, description="supervisord's unix socket.")
    url: str | None = Field(default=None, description="Its HTTP server, instead of a socket.")
    program: str = Field(description="The program's name; a member of a group is group:name.")
    username: str = Field(default="", description="Its user, where it asks for one.")
    password_file: Path | None = Field(default=None, description="File with that user's password.")

    @model_validator(mode="after")
    def _one_way(self) -> SupervisorSettings:
        if (self.socket is None) == (self.url is None):
            msg = "give exactly one of socket, url"
            raise ValueError(msg)
        return self

    @property
    def server_url(self) -> str:
        """The address as supervisorctl spells it."""
        return self.url or f"unix://{self.socket}"


class TargetSettings(_Strict):
    """One target of the inventory."""

    url: str = Field(description="Base URL of the service's settings API.")
    instance: str = Field(default="", description="Its `instance` label in Prometheus.")
    job: str = Field(default="", description="Its `job` label.")
    pool: str = Field(default="", description="Targets that can stand in for each other.")
    token_file: Path | None = Field(default=None, description="Bearer token of its control API.")
    supervisor: SupervisorSettings | None = Field(
        default=None, description="How its process is restarted; without it, it is not."
    )
    mode: Mode = Field(
        default=Mode.AUTO, description="No playbook goes further than this on it: observe, propose."
    )


class PoolSettings(_Strict):
    """What holds for every target of a pool."""

    mode: Mode = Field(description="No playbook goes further than this on its targets.")


class EndpointSettings(_Strict):
    """One HTTP endpoint that a step `http` may call, by its name."""

    url: str = Field(description="Absolute, without a query; a step's path is appended.")
    token_file: Path | None = Field(default=None, description="Bearer token that is sent there.")
    headers_file: Path | None = Field(
        default=None, description="Lines `Name: value` that are sent there."
    )
    timeout_s: float = Field(
        default=60.0, gt=0, le=600, description="Longest wait for an answer, whatever a step says."
    )

    @field_validator("url")
    @classmethod
    def _is_plain(cls, value: str) -> str:
        url = urlsplit(value)
        if url.scheme not in {"http", "https"} or not url.hostname:
            msg = f"{value!r} is not a URL; write it like https://autoscaler.example/api"
            raise ValueError(msg)
        if url.username or url.password or url.query or url.fragment:
            msg = "a URL without user, query and fragment; secrets go into token_file, headers_file"
            raise ValueError(msg)
        return value


class CommandSettings(_Strict):
    """One program that a step `command` may run, by its name; never through a shell."""

    argv: tuple[str, ...] = Field(
        min_length=1,
        description="The program's absolute path and its arguments; `{name}` in one is a "
        "placeholder.",
    )
    timeout_s: float = Field(
        default=60.0, gt=0, le=3600, description="It is killed after this, whatever a step says."
    )
    environment: dict[str, str] = Field(
        default_factory=dict, description="All it gets beside PATH and LANG."
    )
    not_applied_exits: frozenset[Annotated[int, Field(ge=1, le=255)]] = Field(
        default=frozenset(), description="Exit statuses that promise that nothing was changed."
    )

    @field_validator("argv")
    @classmethod
    def _can_be_run(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        commands.placeholders(value)
        program = Path(value[0])
        if not program.is_absolute() or not (program.is_file() and os.access(program, os.X_OK)):
            msg = f"{value[0]!r} is not the absolute path of a program that may be run"
            raise ValueError(msg)
        return value


class Settings(BaseSettings):
    """Everything that can be configured. Durations are plain seconds and end in `_s`."""

    model_config = SettingsConfigDict(
        env_prefix="REMEDIATOR_", env_nested_delimiter="__", extra="forbid", frozen=True
    )

    listen: str = Field(default="127.0.0.1:8090", description="host:port of the API.")
    database: str = Field(
        default="sqlite:///remediator.db",
        description="sqlite:///PATH, or postgresql+psycopg://... for several replicas.",
    )
    prometheus: str = Field(default="http://127.0.0.1:9090", description="Where facts come from.")
    alertmanager: list[str] = Field(
        default_factory=lambda: ["http://127.0.0.1:9093"], description="Every peer of the cluster."
    )
    receiver: str = Field(default="remediator", description="Our receiver in Alertmanager.")
    playbooks: Path = Field(default=Path("playbooks"), description="Folder of playbook files.")
    targets: dict[str, TargetSettings] = Field(
        default_factory=dict, description="The inventory: the only things a run may change."
    )
    pools: dict[str, PoolSettings] = Field(
        default_factory=dict, description="What holds for the targets of a pool, by its name."
    )
    endpoints: dict[str, EndpointSettings] = Field(
        default_factory=dict, description="What a step `http` may call."
    )
    commands: dict[str, CommandSettings] = Field(
        default_factory=dict, description="What a step `command` may run."
    )
    webhook_token_file: Path | None = Field(
        default=None, description="Bearer token that Alertmanager sends."
    )
    api_token_file: Path | None = Field(
        default=None, description="Bearer token that people send to change something."
    )
    webhook_limit_bytes: int = Field(
        default=8 * MEBIBYTE, ge=1024, description="A larger webhook body is refused with 413."
    )
    notify_file: Path | None = Field(
        default=None, description="Messages to people are also appended here, as JSON lines."
    )
    notify_url: str | None = Field(
        default=None, description="Messages to people are also posted here, as JSON."
    )
    notify_token_file: Path | None = Field(
        default=None, description="Bearer token that is sent there."
    )
    log_json: bool = Field(default=True, description="JSON lines; false = lines for people.")
    tick_s: float = Field(default=1.0, gt=0, le=60, description="Dispatch tick.")
    reconcile_s: float = Field(default=30.0, gt=0, description="Poll of Alertmanager.")
    reload_s: float = Field(default=5.0, gt=0, description="Look for edited playbooks.")
    scrape_s: float = Field(default=15.0, gt=0, description="Prometheus' scrape interval.")
    evaluation_s: float = Field(default=15.0, gt=0, description="Its rule evaluation interval.")
    hold_down_s: float = Field(default=60.0, ge=0, description="Least time between two moves.")
    lease_s: float = Field(default=30.0, ge=1, description="How long a process owns a run.")
    review_s: float = Field(default=15.0, gt=0, description="How often denials are looked at.")
    quiet_window_s: float = Field(
        default=300.0, ge=0, description="What fires again this soon goes on."
    )
    absent_for_s: float = Field(default=120.0, gt=0, description="Not listed this long: over.")
    evidence_max_age_s: float = Field(default=30.0, gt=0, description="Older is not acted on.")
    max_hold_s: float = Field(default=4 * 3600.0, gt=0, description="No change is held longer.")
    actions: int = Field(default=6, ge=1, description="Forward actions on a target per window.")
    actions_per_s: float = Field(default=600.0, gt=0, description="That window.")
    watchdog_within_s: float | None = Field(
        default=300.0,
        gt=0,
        description="Silence of the Watchdog that makes us blind; null = not watched.",
    )
    retention_s: float = Field(
        default=30 * 86400.0, gt=0, description="How long closed stories are kept."
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let the environment win over the file."""
        del settings_cls, dotenv_settings, file_secret_settings
        return env_settings, init_settings

    @field_validator("*")
    @classmethod
    def _is_finite(cls, value: object) -> object:
        # Written so that NaN, which compares with nothing, is refused as well.
        if isinstance(value, float) and not value <= TEN_YEARS_S:
            msg = "give a number of seconds, ten years at most"
            raise ValueError(msg)
        return value

    @field_validator("targets")
    @classmethod
    def _tell_apart(cls, value: dict[str, TargetSettings]) -> dict[str, TargetSettings]:
        seen: dict[str, str] = {}
        for name, target in value.items():
            for word in {name, target.instance} - {""}:
                if word in seen:
                    msg = f"{word!r} names both {seen[word]!r} and {name!r}; give each its own"
                    raise ValueError(msg)
                seen[word] = name
        return value

    @model_validator(mode="after")
    def _pools_are_known(self) -> Settings:
        known = sorted({target.pool for target in self.targets.values()} - {""})
        for name in self.pools:
            if name not in known:
                msg = f"pools: {name!r} is the pool of no target; known: {', '.join(known) or '-'}"
                raise ValueError(msg)
        return self

    @field_validator("listen")
    @classmethod
    def _is_address(cls, value: str) -> str:
        host, separator, port = value.rpartition(":")
        if not separator or not host or not port.isdigit() or int(port) > 65535:  # noqa: PLR2004
            msg = f"{value!r} is not host:port, such as 127.0.0.1:8090"
            raise ValueError(msg)
        return value

    @field_validator("endpoints", "commands")
    @classmethod
    def _has_names(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in value:
            if re.fullmatch(NAME_PATTERN, name) is None:
                msg = f"{name!r} is not a name: a-z, 0-9 and dashes"
                raise ValueError(msg)
        return value

    @property
    def host(self) -> str:
        """Where the API listens."""
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """The API's port."""
        return int(self.listen.rpartition(":")[2])

    @property
    def on_loopback(self) -> bool:
        """Say whether only this machine can reach the API."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False

    def surroundings(self) -> Surroundings:
        """Return the names that a playbook may use."""
        targets = self.targets.values()
        return Surroundings(
            targets=frozenset(self.targets) | {t.instance for t in targets if t.instance},
            pools=frozenset(target.pool for target in targets if target.pool),
            endpoints=frozenset(self.endpoints),
            # Nothing that the configuration names moves traffic or replicas.
            roles=frozenset({"process"} if any(t.supervisor for t in targets) else ()),
            commands={
                name: commands.placeholders(command.argv) for name, command in self.commands.items()
            },
        )

    def caps(self, target: str) -> dict[str, Mode]:
        """Return the boldest modes that are allowed on a target, by the setting that says so."""
        wanted = self.targets[target]
        found = {f"targets.{target}.mode": wanted.mode}
        if wanted.pool in self.pools:
            found[f"pools.{wanted.pool}.mode"] = self.pools[wanted.pool].mode
        return found

    def pace(self) -> Pace:
        """Return the intervals and bounds as the engine takes them."""

        def seconds(value: float) -> timedelta:
            return timedelta(seconds=value)

        return Pace(
            scrape=seconds(self.scrape_s),
            evaluation=seconds(self.evaluation_s),
            hold_down=seconds(self.hold_down_s),
            lease=seconds(self.lease_s),
            review=seconds(self.review_s),
            quiet_window=seconds(self.quiet_window_s),
            absent_for=seconds(self.absent_for_s),
            evidence_max_age=seconds(self.evidence_max_age_s),
            max_hold=seconds(self.max_hold_s),
            actions=self.actions,
            actions_per=seconds(self.actions_per_s),
            watchdog_within=None
            if self.watchdog_within_s is None
            else seconds(self.watchdog_within_s),
            retention=seconds(self.retention_s),
        )


def load_settings(path: Path | None) -> Settings:
    """Read the configuration.

    Args:
        path: the YAML file; None takes the defaults and the environment alone.

    Raises:
        ConfigurationError: the file cannot be read, or a setting is wrong; one line each.
    """
    try:
        return Settings(**_read(path))
    except SettingsError as error:
        raise ConfigurationError(f"the environment: {error}") from error
    except ValidationError as error:
        source = path or "the environment"
        lines = [
            f"{source}: {'.'.join(str(part) for part in e['loc']) or 'settings'}: {e['msg']}"
            for e in error.errors(include_url=False)
        ]
        raise ConfigurationError("\n".join(lines)) from error


def _read(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        document = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: cannot be read: {error}") from error
    except YAMLError as error:
        raise ConfigurationError(f"{path}: not YAML: {error}") from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ConfigurationError(f"{path}: must be a mapping of settings")
    return {str(name): value for name, value in document.items()}
