"""Doubts: what is told and does not keep a playbook from serving. And names that must be known."""

from __future__ import annotations

import pytest

from remediator.language.loader import Loaded, load_text
from remediator.language.promql import loses
from remediator.language.surroundings import Surroundings
from tests.language.texts import STEPS, playbook

PROOF = "verify: {query: 'up{instance=\"${{ target.instance }}\"}', above: 0, within: 2m}"
RESTART = f"steps:\n  - restart: {{}}\n    on_unknown: probe\n    {PROOF}\n"
RETUNE = f"steps:\n  - retune: {{set: {{batch_size: 4}}}}\n    {PROOF}\n"
CALL = "steps:\n  - http: {endpoint: queue, path: /pause}\n    undo: {endpoint: queue}\n"
KNOWN = Surroundings(
    targets=frozenset({"detector-1"}),
    pools=frozenset({"detectors"}),
    endpoints=frozenset({"queue", "tickets"}),
    commands={"flush": frozenset({"camera"})},
)


def load(rest: str, surroundings: Surroundings | None = None) -> Loaded:
    return load_text(playbook(rest), path="p", surroundings=surroundings or Surroundings())


def doubts(rest: str) -> list[str]:
    loaded = load(rest)
    assert loaded.problems == ()
    assert loaded.playbook is not None
    return [str(warning).removeprefix("p:") for warning in loaded.warnings]


def test_a_playbook_that_acts_without_a_limit_is_doubted_at_its_steps() -> None:
    for mode in ("auto", "propose"):
        assert doubts(f"mode: {mode}\n{RETUNE}") == [
            "6:1: nothing limits how often this acts (add a cooldown)"
        ]
    assert doubts(f"mode: observe\n{RETUNE}") == []
    assert doubts(f"mode: auto\n{STEPS}") == []
    assert doubts(f"mode: auto\nguards: [cooldown: 1m]\n{RETUNE}") == []
    assert doubts(f"mode: auto\nguards: [budget: {{runs: 1, per: 1m}}]\n{RETUNE}") == [
        "7:1: nothing lets the target rest after a run that failed (add a cooldown)"
    ]


def test_a_step_that_disturbs_a_target_wants_a_guard_for_the_others() -> None:
    (doubt,) = doubts(f"mode: auto\nguards: [cooldown: 5m]\n{RESTART}")
    assert doubt.startswith("8:5: nothing limits how many targets restart disturbs at once")
    shift = RETUNE.replace("retune: {set: {batch_size: 4}}", "shift_load: {weight: 0}")
    (doubt,) = doubts(f"mode: auto\nguards: [cooldown: 5m]\n{shift}")
    assert "how many targets shift_load disturbs" in doubt
    for guard in (
        "healthy_others: {at_least: 1}",
        "blast_radius: {at_most: 1}",
        "storm: {at_most: 2}",
    ):
        assert doubts(f"mode: auto\nguards: [cooldown: 5m, {guard}]\n{RESTART}") == []


def test_a_call_is_proved_by_itself_or_by_a_later_step() -> None:
    assert doubts(CALL) == ["6:5: nothing proves that http helped (add verify:)"]
    assert doubts(f"{CALL}    {PROOF}\n") == []
    assert doubts(CALL + RETUNE.removeprefix("steps:\n")) == []


def test_two_windows_that_must_both_be_open_are_doubted() -> None:
    window = "only_during: {cron: '0 8 * * *', for: 1h}"
    (doubt,) = doubts(f"guards:\n  - {window}\n  - {window}\n{STEPS}")
    assert doubt.startswith("7:5: guards[0] is a window, too: both must be open at once")


def scheduled(query: str, target: str = "${{ alert.labels.instance }}") -> list[str]:
    text = f"""apiVersion: remediator/v1
name: slow
on: {{schedule: {{every: 1m, when: {{query: '{query}', below: 1}}}}}}
target: {target}
steps: [{{notify: {{message: hello}}}}]
"""
    loaded = load_text(text, path="p")
    assert loaded.problems == ()
    return [str(warning).removeprefix("p:") for warning in loaded.warnings]


def test_a_schedule_that_aggregates_its_target_away_is_doubted() -> None:
    assert scheduled("up") == scheduled("min by (instance) (up)") == []
    (doubt,) = scheduled("min by (job) (up)")
    assert doubt == (
        "3:35: the answer has lost the label instance, from which target is read "
        "(aggregate with by (instance))"
    )
    assert scheduled("min by (job) (up)", target="detector-1") == []
    assert scheduled("min by (job) (up)", target="detector-${{ alert.labels.job }}") == []


@pytest.mark.parametrize(
    ("query", "lost"),
    [
        ("up", False),
        ("sum(up)", True),
        ("sum by (job) (up)", True),
        ("sum without (job) (up)", False),
        ("sum without (instance) (up)", True),
        ("topk(3, up)", False),
        ("topk(3, sum(up))", True),
        ("histogram_quantile(0.9, sum by (le, instance) (rate(a[1m])))", False),
        ("histogram_quantile(0.9, sum by (le) (rate(a[1m])))", True),
        ("100 * sum(up)", True),
        ("a / 2", False),
        ("sum(a) / b", True),
        ("a / on (job) group_left () sum by (job) (b)", False),
        ("a or vector(1)", False),
        ("time() - a", False),
        ("time()", True),
        ("-(a)", False),
        ("max_over_time(a[5m:1m])", False),
        ('label_replace(sum(a), "instance", "x", "job", ".*")', False),
    ],
)
def test_a_label_is_called_lost_only_when_it_certainly_is(query: str, lost: bool) -> None:  # noqa: FBT001 - a table
    assert loses(query, "instance") is lost


@pytest.mark.parametrize(
    ("rest", "told"),
    [
        (CALL.replace("queue", "queu"), "no endpoint is called 'queu' (did you mean 'queue'?)"),
        (
            "steps: [{command: {run: flash}, undo: none, on_unknown: escalate}]\n",
            "no command is called 'flash' (did you mean 'flush'?)",
        ),
        (
            "steps: [{command: {run: flush}, undo: none, on_unknown: escalate}]\n",
            "the command 'flush' needs 'camera' (arguments: {camera: ...})",
        ),
        (
            "steps:\n- command: {run: flush, arguments: {camra: b}}\n  undo: {run: flush}\n",
            "the command 'flush' has no place {camra} (did you mean 'camera'?)",
        ),
        (
            f"guards: [{{storm: {{at_most: 1, pool: detector}}}}]\n{STEPS}",
            "no pool is called 'detector' (did you mean 'detectors'?)",
        ),
        (
            f"guards: [{{blast_radius: {{at_most: 1, pool: x}}}}]\n{STEPS}",
            "no pool is called 'x' (known: detectors)",
        ),
        (
            f"guards: [{{healthy_others: {{at_least: 1, pool: x}}}}]\n{STEPS}",
            "no pool is called 'x' (known: detectors)",
        ),
    ],
)
def test_what_the_configuration_does_not_name_is_refused_where_it_is_known(
    rest: str, told: str
) -> None:
    assert load(rest).problems == ()
    problems = [str(problem).split(": ", 1)[1] for problem in load(rest, KNOWN).problems]
    assert told in problems


def test_a_configuration_without_endpoints_has_none_to_call() -> None:
    loaded = load(CALL, Surroundings(endpoints=frozenset()))
    # The call and its undo.
    assert len(loaded.problems) == 2
    assert all("'queue' (known: none)" in str(problem) for problem in loaded.problems)
