"""The shipped rules and daemon configurations, judged by the real promtool and amtool."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[2]
RULES = sorted((ROOT / "rules").glob("*.yml"))
RULE_TESTS = sorted((ROOT / "rules" / "tests").glob("*.test.yml"))
ARTICLE_ALERTS = {
    "HighGPUUtilization",
    "HighGPUMemoryUsage",
    "LowGPUUtilization",
    "HighInferenceLatency",
    "DetectionServiceDown",
    "LowProcessingThroughput",
}

Daemon = Callable[..., str]


def yaml_of(path: Path) -> dict:
    return YAML(typ="safe").load(path.read_text())


def alerts_of(path: Path) -> dict[str, dict]:
    rules = [rule for group in yaml_of(path)["groups"] for rule in group["rules"]]
    return {rule["alert"]: rule for rule in rules if "alert" in rule}


ALERTS = {name: rule for path in RULES for name, rule in alerts_of(path).items()}


def run(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{' '.join(argv)}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


@pytest.mark.real
@pytest.mark.parametrize("path", RULES, ids=lambda path: path.name)
def test_a_shipped_rule_file_is_accepted_without_a_lint_finding(daemon: Daemon, path: Path) -> None:
    run(daemon("promtool"), "check", "rules", "--lint=all", "--lint-fatal", str(path))


@pytest.mark.real
@pytest.mark.parametrize("path", RULE_TESTS, ids=lambda path: path.name)
def test_every_promise_written_down_for_the_rules_holds(daemon: Daemon, path: Path) -> None:
    run(daemon("promtool"), "test", "rules", str(path))


@pytest.mark.real
def test_the_shipped_prometheus_configuration_is_valid_and_finds_its_rules(daemon: Daemon) -> None:
    config = ROOT / "deploy" / "prometheus" / "prometheus.yml"
    said = run(daemon("promtool"), "check", "config", str(config))
    for rules in RULES:
        assert rules.name in said


@pytest.mark.real
def test_the_shipped_alertmanager_configuration_is_valid_and_routes_to_the_controller(
    daemon: Daemon,
) -> None:
    config = ROOT / "deploy" / "alertmanager" / "alertmanager.yml"
    run(daemon("amtool"), "check-config", str(config))
    route_test = [daemon("amtool"), "config", "routes", "test", f"--config.file={config}"]
    for name in ALERTS:
        run(
            *route_test, "--verify.receivers=remediator", f"alertname={name}", "instance=detector-1"
        )


def test_the_article_file_holds_exactly_the_six_alerts_of_the_article() -> None:
    assert set(alerts_of(ROOT / "rules" / "article.yml")) == ARTICLE_ALERTS


def test_no_two_shipped_alerts_share_a_name() -> None:
    assert len(ALERTS) == sum(len(alerts_of(path)) for path in RULES)


@pytest.mark.parametrize("name", sorted(ALERTS))
def test_an_alert_has_a_severity_a_summary_a_value_and_a_runbook_section(name: str) -> None:
    rule = ALERTS[name]
    assert rule["labels"]["severity"] in {"critical", "warning", "info", "none"}
    assert rule["annotations"]["summary"]
    assert "$value" in rule["annotations"]["value"]
    document, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    headings = [
        line.removeprefix("## ").lower()
        for line in (ROOT / document).read_text().splitlines()
        if line.startswith("## ")
    ]
    assert anchor in headings


@pytest.mark.parametrize("name", sorted(ALERTS))
def test_the_measured_value_is_an_annotation_never_a_label(name: str) -> None:
    labels = " ".join(map(str, ALERTS[name].get("labels", {}).values()))
    assert "$value" not in labels, "a value in a label makes a new alert at every evaluation"


def test_every_alert_is_named_in_a_promtool_test() -> None:
    tested = {
        case["alertname"]
        for path in RULE_TESTS
        for test in yaml_of(path)["tests"]
        for case in test["alert_rule_test"]
    }
    assert tested == set(ALERTS)


@pytest.mark.parametrize("name", sorted(set(ALERTS) - {"Watchdog"}))
def test_an_alert_is_tested_both_firing_and_silent(name: str) -> None:
    outcomes = {
        bool(case["exp_alerts"])
        for path in RULE_TESTS
        for test in yaml_of(path)["tests"]
        for case in test["alert_rule_test"]
        if case["alertname"] == name
    }
    assert outcomes == {True, False}


def test_alertmanager_sends_resolved_follows_no_redirect_and_shows_a_token() -> None:
    config = yaml_of(ROOT / "deploy" / "alertmanager" / "alertmanager.yml")
    (receiver,) = config["receivers"]
    (webhook,) = receiver["webhook_configs"]
    assert webhook["send_resolved"] is True
    assert webhook["http_config"]["follow_redirects"] is False
    assert webhook["http_config"]["authorization"]["credentials_file"]


def test_no_shipped_configuration_holds_a_secret() -> None:
    for path in (ROOT / "deploy").rglob("*"):
        if path.is_file():
            for line in path.read_text().splitlines():
                if "password=" in line:
                    assert line.endswith("password=%(ENV_REMEDIATOR_SUPERVISOR_PASSWORD)s")
                assert "credentials:" not in line
