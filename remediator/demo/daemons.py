"""The configuration files and command lines of the stack's parts, made from the shipped ones.

The stack calls `write_files` once per start and `argv` per process. What is demonstrated is what is
shipped: each file is loaded from ``deploy/``, and only ports, paths and times are changed.
"""

from __future__ import annotations

import configparser
import io
import math
import os
import secrets
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from remediator.demo.layout import USER, Site, StackError, shipped
from remediator.demo.scaling import scale_durations
from remediator.settings import Settings

PROGRAM = "detector"
PASSWORD_VARIABLE = "REMEDIATOR_SUPERVISOR_PASSWORD"  # noqa: S105 - the name of a variable
SEARCH_PATH = os.pathsep.join(("", "/usr/local/sbin", "/usr/sbin"))
NAMES = {"prometheus": ("prometheus",), "alertmanager": ("prometheus-alertmanager", "alertmanager")}

# rate() needs two samples; five scrapes leave room for a late one and the edges of the window.
SCRAPES_IN_RANGE = 5
# Prometheus tells Alertmanager that a firing alert ends four of these from now. Shorter, and a
# pause of a few seconds on a loaded machine would resolve alerts that are still true.
MIN_RESEND_S = 5


# The controller's own times that follow the story, and the least they become, in seconds. A run's
# lease and the Watchdog's silence also bound how long a loaded machine may stall, hence the floors.
PACE_FLOORS_S = {
    "hold_down_s": 3.0,
    "reconcile_s": 2.0,
    "review_s": 1.0,
    "quiet_window_s": 5.0,
    "absent_for_s": 10.0,
    "evidence_max_age_s": 5.0,
    "lease_s": 5.0,
    "actions_per_s": 30.0,
    "watchdog_within_s": 30.0,
}


def executable(part: str) -> str:
    """Path of a real daemon.

    Raises:
        StackError: it is not installed.
    """
    for name in NAMES[part]:
        if path := shutil.which(name, path=os.environ.get("PATH", "") + SEARCH_PATH):
            return path
    raise StackError(
        f"{part} is not installed (looked for {' and '.join(NAMES[part])}). Debian and Ubuntu: "
        f"sudo apt-get install {NAMES[part][0]}. In a checkout, make up and make demo do that."
    )


def argv(part: str, site: Site) -> list[str]:
    """Command line of one process the stack starts."""
    if part == "prometheus":
        resend = max(MIN_RESEND_S, math.ceil(60 / site.options.scale))
        return [
            executable(part),
            f"--config.file={site.config('prometheus.yml')}",
            f"--storage.tsdb.path={site.state(part)}",
            f"--web.listen-address={site.address(part)}",
            f"--rules.alert.resend-delay={resend}s",
        ]
    if part == "alertmanager":
        return [
            executable(part),
            f"--config.file={site.config('alertmanager.yml')}",
            f"--storage.path={site.state(part)}",
            f"--web.listen-address={site.address(part)}",
            "--cluster.listen-address=",
        ]
    if part == "supervisord":
        conf = str(site.config("supervisord.conf"))
        return [sys.executable, "-m", "supervisor.supervisord", "--nodaemon", "-c", conf]
    config = str(site.config("controller.yml"))
    return [sys.executable, "-m", "remediator", "serve", "--config", config]


def environment(part: str, site: Site) -> dict[str, str]:
    """Variables one process gets on top of the stack's own environment."""
    if part == "supervisord":
        return {PASSWORD_VARIABLE: site.secret("supervisor").read_text()}
    return {"PYTHONUNBUFFERED": "1"} if part == "controller" else {}


def write_files(site: Site) -> None:
    """Write every file of a stack below its folder; files with secrets are for the owner only."""
    for path in (site.log("x"), site.config("x"), site.secret("x"), site.state("x")):
        path.parent.mkdir(parents=True, exist_ok=True)
    (site.folder / "secrets").chmod(0o700)
    for name in ("webhook", "detector", "supervisor"):
        if not site.secret(name).exists():
            site.secret(name).write_text(secrets.token_hex(24))
            site.secret(name).chmod(0o600)
    site.state("detector").mkdir(exist_ok=True)
    options = site.options
    _scaled(options.rules or shipped("rules"), site.folder / "rules", site)
    if "controller" in options.parts:
        _scaled(options.playbooks or shipped("playbooks"), site.folder / "playbooks", site)
        _dump(controller_config(site), site.config("controller.yml"))
    deploy = shipped("deploy")
    prometheus = (deploy / "prometheus" / "prometheus.yml").read_text()
    alertmanager = (deploy / "alertmanager" / "alertmanager.yml").read_text()
    supervisor = (deploy / "supervisor" / "supervisord.conf").read_text()
    _dump(prometheus_config(prometheus, site), site.config("prometheus.yml"))
    _dump(alertmanager_config(alertmanager, site), site.config("alertmanager.yml"))
    site.config("supervisord.conf").write_text(supervisor_config(supervisor, site))


def prometheus_config(text: str, site: Site) -> Any:
    """The shipped Prometheus configuration with this stack's addresses and intervals."""
    config = _yaml().load(text)
    every = f"{max(1, round(site.options.scrape_s * 1000))}ms"
    for key in ("scrape_interval", "scrape_timeout", "evaluation_interval"):
        config["global"][key] = every
    config["rule_files"] = [str(site.folder / "rules" / "*.yml")]
    (alertmanager,) = config["alerting"]["alertmanagers"]
    alertmanager["static_configs"][0]["targets"] = [site.address("alertmanager")]
    detector, controller = config["scrape_configs"]
    detector["static_configs"][0]["targets"] = [site.address("detector")]
    detector["static_configs"][0]["labels"]["instance"] = site.options.instance
    controller["static_configs"][0]["targets"] = [site.address("controller")]
    if "controller" not in site.options.parts:
        config["scrape_configs"].remove(controller)
    return config


def alertmanager_config(text: str, site: Site) -> Any:
    """The shipped Alertmanager configuration with this stack's receiver, token and times."""
    config = _yaml().load(scale_durations(text, site.options.scale))
    (receiver,) = config["receivers"]
    (webhook,) = receiver["webhook_configs"]
    own = site.url("controller") + "/webhooks/alertmanager"
    webhook["url"] = site.options.webhook_url or own
    authorization = webhook["http_config"]["authorization"]
    authorization["credentials_file"] = str(site.secret("webhook"))
    return config


def supervisor_config(text: str, site: Site) -> str:
    """The shipped supervisord configuration with this stack's paths, command line and times."""
    options = site.options
    config = configparser.RawConfigParser(inline_comment_prefixes=(" ;",))
    config.read_string(text)
    command = [
        word.replace("{port}", str(site.ports["detector"])) for word in options.detector_command
    ]
    changes = {
        "unix_http_server": {"file": str(site.socket)},
        "supervisorctl": {"serverurl": f"unix://{site.socket}"},
        "supervisord": {
            "logfile": str(site.state("supervisord").with_suffix(".log")),
            "pidfile": str(site.folder / "supervisord.pid"),
            "childlogdir": str(site.folder / "logs"),
        },
        f"program:{PROGRAM}": {
            "command": _escaped(shlex.join(command)),
            "environment": _environment_line(detector_environment(site)),
            "startsecs": str(options.detector_start_s),
            "stopwaitsecs": str(options.detector_stop_s),
            "stdout_logfile": str(site.log("detector")),
        },
    }
    for section, values in changes.items():
        for key, value in values.items():
            config[section][key] = value
    out = io.StringIO()
    config.write(out)
    return out.getvalue()


def detector_environment(site: Site) -> dict[str, str]:
    """Variables of the detector: its own folder, name and token, and what the options add."""
    return {
        "DETECTOR_STATE_DIR": str(site.state("detector")),
        "DETECTOR_INSTANCE": site.options.instance,
        "DETECTOR_TOKEN_FILE": str(site.secret("detector")),
        "DETECTOR_TORCH_THREADS": "1",
        # The story is about the slow loop: the service's own fast limiter would mend the overload
        # before an alert fires, and a backend chosen by a measurement would make it another story.
        "DETECTOR_ADAPTIVE": "false",
        "DETECTOR_BACKEND": "torch",
        "PYTHONUNBUFFERED": "1",
        **site.options.detector_env,
    }


def controller_config(site: Site) -> dict[str, Any]:
    """The controller's configuration file. The only place that knows its format."""
    target = {
        "url": site.url("detector"),
        "instance": site.options.instance,
        "job": "videoagent_screenfilter",
        "pool": "detectors",
        "token_file": str(site.secret("detector")),
        "supervisor": {
            "socket": str(site.socket),
            "program": PROGRAM,
            "username": USER,
            "password_file": str(site.secret("supervisor")),
        },
    }
    config = {
        "listen": site.address("controller"),
        "database": f"sqlite:///{site.folder / 'remediator.db'}",
        "prometheus": site.url("prometheus"),
        "alertmanager": [site.url("alertmanager")],
        "playbooks": str(site.folder / "playbooks"),
        "webhook_token_file": str(site.secret("webhook")),
        "targets": {site.options.instance: target},
        "scrape_s": site.options.scrape_s,
        "evaluation_s": site.options.scrape_s,
        **_pace(site.options.scale),
    }
    return _merged(config, site.options.controller)


def _pace(scale: float) -> dict[str, float]:
    """The controller's default times divided like everything else; none when nothing is scaled."""
    if scale == 1:
        return {}
    fields = Settings.model_fields
    return {name: max(floor, fields[name].default / scale) for name, floor in PACE_FLOORS_S.items()}


def _scaled(source: Path, into: Path, site: Site) -> None:
    shutil.rmtree(into, ignore_errors=True)
    into.mkdir(parents=True)
    range_floor = math.ceil(SCRAPES_IN_RANGE * site.options.scrape_s)
    for path in sorted([*source.glob("*.yml"), *source.glob("*.yaml")]):
        text = scale_durations(path.read_text(), site.options.scale, range_floor_s=range_floor)
        (into / path.name).write_text(text)


def _yaml() -> YAML:
    yaml = YAML()
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    return yaml


def _dump(document: Any, path: Path) -> None:
    with path.open("w") as out:
        _yaml().dump(document, out)


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            merged[key] = _merged(old, value)
        else:
            merged[key] = value
    return merged


def _escaped(text: str) -> str:
    """Supervisord expands %(…)s in every value; a percent sign of ours is doubled."""
    return text.replace("%", "%%")


def _environment_line(variables: Mapping[str, str]) -> str:
    for name, value in variables.items():
        if '"' in value or "\n" in value:
            raise StackError(
                f"{name} holds a quote or a line break, which supervisord cannot carry"
            )
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in variables.items())
