"""A test that would pass whatever the playbook does is told so."""

from __future__ import annotations

import pytest

from tests.rehearsal.conftest import SLOW, Play

NOTHING = "expect: {actions: []}"


def mistakes(played: Play, body: str) -> list[str]:
    return list(played(f"{body}\n").story.mistakes)


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ("alertname: Slwo, instance: gpu-1", "(alertname=Slwo, instance=gpu-1) is about no playb"),
        ("alertname: Slow, instance: gpu-11", "is about no target of the inventory; if so meant"),
    ],
)
def test_an_alert_that_concerns_nothing_is_a_slip_unless_it_is_expected(
    played: Play, labels: str, told: str
) -> None:
    alerts = f"alerts: [{{at: 1m, labels: {{{labels}}}}}]"
    (mistake,) = mistakes(played, f"{alerts}\n{NOTHING}")
    assert mistake.startswith("the alert at 1m (alertname=")
    assert told in mistake
    reason = "no_target" if "target" in told else "no_playbook"
    expect = f"expect: {{actions: [], decisions: [{{decision: {reason}}}]}}"
    assert mistakes(played, f"{alerts}\n{expect}") == []


@pytest.mark.slow
def test_a_silence_that_silences_nothing_is_a_slip(played: Play) -> None:
    silence = "silences: [{matchers: ['alertname=\"Slwo\"']}]"
    (mistake,) = mistakes(played, f"{SLOW}\n{silence}\n{NOTHING}")
    assert mistake == 'no alert is silenced by alertname="Slwo"'


@pytest.mark.slow
def test_a_behaviour_that_is_half_used_or_takes_effect_too_late_is_a_slip(played: Play) -> None:
    scene = f"input_series: slow\n{SLOW}\n{NOTHING}\n"
    (mistake,) = mistakes(played, f"{scene}actuators: [{{call: set, times: 50}}]")
    assert mistake.startswith("set on any target was called ")
    assert mistake.endswith(" of 50 times")
    late = "actuators: [{call: set, times: null, after: 6m, effect: fast}]"
    (mistake,) = mistakes(played, f"{scene}{late}")
    assert mistake == "the test ends before set on any target has its effect, 6m after the call"
    assert mistakes(played, f"{scene}{late.replace('6m', '30s')}") == []
