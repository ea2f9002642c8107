"""The stage: the real engine on a described world does what each line of a test says."""

from __future__ import annotations

from pathlib import Path

import pytest

from remediator.errors import ConfigurationError
from tests.rehearsal.conftest import HEAD, RETUNE, SLOW, Play

pytestmark = pytest.mark.real
BEGINS = f"""
input_series: slow
{SLOW}
"""


@pytest.mark.parametrize(
    ("outcome", "calls", "state"),
    [
        ("ok", 1, "succeeded"),
        ("unknown_applied", 2, "succeeded"),
        ("unknown_not_applied", 2, "succeeded"),
        ("not_now", 2, "succeeded"),
        ("hangs", 2, "succeeded"),
        ("fails", 1, "failed"),
        ("refuses", 1, "failed"),
    ],
)
def test_a_call_comes_to_what_the_test_says_and_the_engine_meets_it(
    played: Play, outcome: str, calls: int, state: str
) -> None:
    again = "- {call: set, effect: fast}" if calls > 1 else ""
    told = played(
        f"""
        {SLOW}
        input_series: slow
        actuators:
          - {{call: set, outcome: {outcome}, reason: leased, effect: fast}}
          {again}
        # Shorter than the cooldown, which is over 5m after a run that failed at once.
        length: 5m
        expect:
          runs: [{{playbook: retune, state: {state}}}]
        """
    )
    assert told.differences == []
    sent = [one.outcome for one in told.story.sent if not one.is_upkeep]
    assert sent == [outcome, "ok"][:calls]


def test_a_call_that_hangs_takes_the_time_it_was_given(played: Play) -> None:
    told = played(
        f"""
        {SLOW}
        input_series: slow
        actuators: [{{call: set, outcome: hangs}}]
        expect: {{runs: [{{playbook: retune}}]}}
        """
    )
    first, second = [sent.at for sent in told.story.sent][:2]
    # The step's timeout, and a second of patience before it is sent again.
    assert (second - first).total_seconds() == 10 + 1


def test_what_has_no_effect_is_seen_to_have_none(played: Play) -> None:
    told = played(
        f"""
        {SLOW}
        input_series: slow
        length: 4m
        expect:
          runs: [{{playbook: retune, verdict: unchanged}}]
          messages: [{{severity: critical, title: needs a person}}]
        """
    )
    assert told.differences == []


def test_an_effect_that_comes_later_is_waited_for(played: Play) -> None:
    told = played(
        f"""
        {SLOW}
        input_series: slow
        actuators: [{{call: set, effect: fast, after: 40s}}]
        expect: {{runs: [{{playbook: retune, verdict: improved}}]}}
        """
    )
    assert told.differences == []
    assert any("1m40s" in line and "next scrape" in line for line in told.story.timeline())


def test_observe_sends_nothing_and_says_what_it_would_have_sent(played: Play) -> None:
    told = played(
        f"""
        {SLOW}
        input_series: slow
        expect:
          actions: []
          would: [{{call: set, role: settings, args: {{values: {{batch_size: 4}}}}, at: 1m}}]
          targets: {{gpu-1: {{settings: {{batch_size: 8}}}}}}
        """,
        head=HEAD.replace("series:", "modes: {retune: observe}\nseries:", 1),
    )
    assert told.differences == []


def test_a_target_may_hold_a_playbook_back(played: Play) -> None:
    told = played(
        f"""
        {SLOW}
        input_series: slow
        expect: {{actions: [], runs: [{{playbook: retune, mode: observe}}]}}
        """,
        head=HEAD.replace("{settings:", "{mode: observe, settings:"),
    )
    assert told.differences == []


@pytest.mark.parametrize(
    ("answer", "actions"), [("approve", "[{call: set, at: 2m}]"), ("reject", "[]")]
)
def test_a_proposal_waits_for_the_person_of_the_test(
    played: Play, answer: str, actions: str
) -> None:
    told = played(
        f"""
        {SLOW}
        input_series: slow
        controls: [{{at: 2m, {answer}: retune}}]
        expect: {{actions: {actions}}}
        """,
        playbook=RETUNE.replace("mode: auto", "mode: propose"),
    )
    assert told.differences == []
    assert any("R1 asks" in line for line in told.story.timeline())


def test_the_kill_switch_takes_back_what_is_held_and_lets_nothing_begin(played: Play) -> None:
    told = played(
        f"""
        {SLOW}
        input_series: slow
        controls:
          - {{at: 1m30s, kill: true}}
          - {{at: 3m, kill: false}}
        expect:
          decisions: [{{decision: admitted}}, {{decision: killed}}]
          targets: {{gpu-1: {{settings: {{batch_size: 8}}}}}}
        """
    )
    assert told.differences == []


@pytest.mark.parametrize("verb", ["stop: all", "cancel: retune"])
def test_a_person_who_stops_a_run_gets_its_change_back(played: Play, verb: str) -> None:
    told = played(
        f"""
        {SLOW}
        input_series: slow
        length: 4m
        controls: [{{at: 1m30s, {verb}}}]
        expect:
          runs: [{{playbook: retune, state: rolled_back, reason: ann}}]
          targets: {{gpu-1: {{settings: {{batch_size: 8}}}}}}
        """
    )
    assert told.differences == []


def test_approving_what_nobody_asks_is_a_mistake_of_the_test(played: Play) -> None:
    told = played(
        """
        controls: [{at: 1m, approve: retune}, {at: 1m, kill: false}, {at: 1m, cancel: retune}]
        length: 2m
        expect: {actions: []}
        """
    )
    assert [line.partition("written: ")[2] for line in told.differences] == [
        "ann: approve retune: retune asks nothing",
        "ann lifts the kill switch: the kill switch is off",
        "ann: cancel retune: no run of retune is open",
    ]


def test_a_behaviour_that_is_never_asked_for_is_a_mistake_of_the_test(played: Play) -> None:
    told = played(
        """
        length: 1m
        actuators: [{call: sett, target: gpu-1, role: settings, effect: fast}]
        expect: {actions: []}
        """
    )
    assert told.differences == [
        "the test cannot be played as written: nothing ever called sett (settings) on gpu-1"
    ]


def test_an_error_of_the_engine_fails_the_test_whatever_it_expects(
    played: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("remediator.rehearsal.props.Document.do", broken)
    told = played(f"{SLOW}\ninput_series: slow\nexpect: {{decisions: [{{decision: admitted}}]}}")
    (mistake,) = told.differences
    assert mistake.endswith("an error of the engine: run dropped: ZeroDivisionError: a bug")


def test_rules_that_promtool_refuses_end_it_with_its_words(tmp_path: Path, played: Play) -> None:
    rules = tmp_path / "rules.yml"
    rules.write_text("groups: [{name: g, rules: [{record: a, expr: 'b *'}]}]")
    head = HEAD.replace("series:", "rule_files: [rules.yml]\nseries:", 1)
    with pytest.raises(ConfigurationError, match="parse error"):
        played(f"{SLOW}\nexpect: {{actions: []}}", head=head)


def steps(text: str) -> str:
    """Return `RETUNE` with other steps."""
    return RETUNE[: RETUNE.index("steps:")] + f"steps: [{text}]\n"


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        ("{shift_load: {weight: 50}}", "{call: set, role: balancer, args: {values: {weight: 50}}}"),
        ("{scale: {add: 1, max: 4}}", "{call: set, role: scaler, args: {values: {replicas: 3}}}"),
        (
            "{clear_cache: {}, undo: none, on_unknown: escalate}",
            "{call: clear_cache, role: settings}",
        ),
        (
            "{http: {endpoint: farm, path: '/x'}, undo: none, on_unknown: escalate}",
            "{role: endpoints, call: call, args: {endpoint: farm, path: '/x'}}",
        ),
        (
            "{command: {run: tidy, arguments: {a: b}}, undo: none, on_unknown: escalate}",
            "{role: commands, call: run, args: {run: tidy, arguments: {a: b}}}",
        ),
        ("{silence: {for: 10m}}", "{role: silences, call: silence}"),
    ],
)
def test_every_action_has_a_stand_in(played: Play, step: str, expected: str) -> None:
    told = played(
        f"""
        {SLOW}
        input_series: slow
        length: 3m
        expect: {{actions: [{expected}]}}
        """,
        playbook=steps(step),
        head=HEAD.replace("{settings:", "{weight: 100, replicas: 2, settings:"),
    )
    assert told.differences == []


def test_what_a_schedule_finds_is_played_like_an_alert(played: Play) -> None:
    told = played(
        """
        input_series: slow
        actuators: [{call: set, effect: fast}]
        expect: {runs: [{playbook: retune, verdict: improved}]}
        """,
        playbook=RETUNE.replace(
            """on: {alerts: ['alertname="Slow"']}""",
            "on: {schedule: {every: 1m, when: {query: p95, above: 0.25}}}",
        ),
    )
    assert told.differences == []


def test_a_silence_of_a_person_denies_and_its_end_lets_it_begin(played: Play) -> None:
    told = played(
        f"""
        {SLOW}
        input_series: slow
        actuators: [{{call: set, effect: fast}}]
        silences: [{{at: 0s, until: 3m, matchers: ['alertname="Slow"']}}]
        expect:
          decisions: [{{decision: silenced, at: 1m}}, {{decision: admitted, at: 3m}}]
        """
    )
    assert told.differences == []


def test_a_target_that_cannot_be_reached_is_not_changed(played: Play) -> None:
    told = played(
        f"""
        {SLOW}
        input_series: slow
        events: [{{target: gpu-1, becomes: unreachable}}]
        expect: {{actions: [], messages: [{{title: needs a person}}]}}
        """
    )
    assert told.differences == []


def test_a_change_left_alone_goes_back_when_its_lease_is_over(played: Play) -> None:
    told = played(
        """
        alerts: [{at: 1m, until: 3m, labels: {alertname: Slow, instance: gpu-1}}]
        input_series: slow
        length: 25m
        actuators: [{call: set, effect: fast}]
        expect: {targets: {gpu-1: {settings: {batch_size: 8}}}}
        """
    )
    assert told.differences == []


def test_an_instant_of_the_calendar_can_be_played(played: Play) -> None:
    told = played(
        f"""
        {SLOW}
        input_series: slow
        expect: {{decisions: [{{decision: window, at: 1m}}, {{decision: admitted, at: 3m}}]}}
        """,
        playbook=RETUNE.replace(
            "guards:",
            "guards:\n  - only_during: {cron: '0 9 * * *', for: 1h, timezone: Europe/Berlin}",
        ),
        # The day on which the clocks go forward: 9:00 in Berlin is 7:00 UTC.
        head=HEAD.replace("series:", "start: '2026-03-29T06:57:00Z'\nseries:", 1),
    )
    assert told.differences == []


def test_a_test_that_is_played_twice_tells_the_same_story(played: Play) -> None:
    body = f"""
        {SLOW}
        input_series: slow
        actuators: [{{call: set, effect: fast}}]
        expect: {{runs: []}}
    """
    assert played(body).story.timeline() == played(body).story.timeline()
