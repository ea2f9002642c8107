"""Lines of `explain`: what was seen, asked and sent, each in one line."""

from __future__ import annotations

from remediator.cli.stories import diagnosis_line, question_line, step_line


def test_a_look_is_one_line_with_its_errors_and_its_answers() -> None:
    seen = {
        "settings": {"error": "gpu-1 does not answer"},
        "process": {"pid": 7},
        "process shows": {"stderr": ["Killed"]},
        "query depth": {"query": "depth", "value": 7.0, "said": "7"},
    }
    line = diagnosis_line({"pc": -1, "at": "2026-03-02T12:00:00Z", "seen": seen})
    assert line.endswith(
        "looked at settings (gpu-1 does not answer), process, process shows, query depth (7)"
    )
    assert diagnosis_line({"at": "2026-03-02T12:00:00Z", "seen": {}}).endswith("nothing")


def test_a_question_that_its_run_ended_unanswered_is_withdrawn() -> None:
    at = "2026-11-22T12:00:00Z"
    asked = {"asked_at": at, "expires_at": at, "decision": None}
    assert "asked a person => open until " in question_line(asked)
    assert question_line(asked, closed=True).endswith("asked a person => withdrawn")


def test_an_observed_step_says_what_it_would_have_sent() -> None:
    step = {
        "started_at": None,
        "phase": "forward",
        "attempt": 1,
        "call": "set",
        "why": "max_concurrency -> 3",
        "status": "ok",
        "error": "",
    }
    assert step_line(step, observed=True).endswith("would set: max_concurrency -> 3 => not sent")
    assert step_line(step).endswith("  set: max_concurrency -> 3 => ok")
