"""`runs`, `explain`, `pause`, `resume`, `cancel` against a controller that really listens."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st

from remediator.cli import terminal
from remediator.model.playbook import Mode
from remediator.model.run import RunState, StepStatus
from remediator.model.verdict import Verdict
from remediator.store import runs, steps
from remediator.store.database import Tx
from tests.api import rows
from tests.api.edge import WEBHOOK, a_payload, an_alert
from tests.cli.conftest import Listening, Type, a_controller, serve

HOSTILE = "\x1b[31m\x1b]0;owned\x07[red]bold[/nonsense]\r\nforged line\x9b2J\u202egnp.exe"


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listening]:
    """A controller with one whole story on record, about an alert whose labels mean harm."""
    with a_controller(tmp_path_factory.mktemp("told")) as one:
        payload = a_payload(an_alert(pod=HOSTILE, long="x" * 65536))
        httpx.post(one.url + WEBHOOK, json=payload).raise_for_status()
        one.write(rows.a_story)
        yield one


def a_run_for_tomorrow(tx: Tx) -> int:
    """Open a run that is not due, so that the controller itself leaves it alone."""
    return rows.opened(tx, due_at=tx.now + timedelta(days=1))


def an_end(tx: Tx, reason: str, **changed: Any) -> int:
    """Write one run that is over."""
    run_id = rows.opened(tx, **changed)
    run = rows.claimed(tx)
    if run.mode is Mode.OBSERVE:
        intent = rows.begun(tx, run)
        assert isinstance(intent, steps.Begun)
        steps.finish(tx, run, intent.step_id, status=StepStatus.OK, result={"observed": True})
    runs.close(tx, run, state=RunState.SUCCEEDED, verdict=Verdict.UNCHANGED, reason=reason.strip())
    return run_id


def an_observed_recovery(tx: Tx) -> int:
    """Write a run that only observed, and whose trouble ended by itself."""
    return an_end(tx, "natural recovery: p95 is 0.2 s", mode=Mode.OBSERVE)


def harmless(text: str) -> bool:
    return not terminal.OBEYED.search(text.replace("\n", ""))


def test_runs_are_listed_with_their_verdict(typed: Type, told: Listening) -> None:
    said = typed("runs", "--url", told.url)
    assert said.code == 0
    lines = said.out.splitlines()
    (at,) = [place for place, line in enumerate(lines) if line.startswith("R1 ")]
    assert lines[at].split()[2:] == ["remedy", "auto", "throttle-slow-detector", "detector-1"]
    assert lines[at + 1] == "    succeeded, improved: p95 is 0.2 s"


def test_a_narrow_terminal_shows_whole_words(
    typed: Type, told: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    told.write(partial(an_end, reason="a long reason " * 20))
    for command in ("runs", "trust"):
        lines = typed(command, "--url", told.url).out.splitlines()
        assert max(len(line) for line in lines) <= 80
        assert not any(line.endswith(" ") for line in lines)
        assert "throttle-slow-detector" in " ".join(lines)
    lines = typed("runs", "--url", told.url).out.splitlines()
    assert min(len(line) for line in lines if line.endswith("reason")) > 60


def test_a_run_that_only_observed_never_reads_as_if_it_had_acted(
    typed: Type, listening: Listening
) -> None:
    run_id = listening.write(an_observed_recovery)
    listed = typed("runs", "--url", listening.url).out
    assert " observe " in listed
    assert "    succeeded, natural recovery: p95 is 0.2 s" in listed
    told = typed("explain", f"R{run_id}", "--url", listening.url).out
    assert "would set: p95 is 0.41 s => not sent" in told
    assert "mode observe (nothing is sent)" in told
    assert "succeeded natural recovery" in told
    for word in ("unchanged", "=> ok"):
        assert word not in listed + told


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--target", "typo"), "there is no target 'typo'; known: none"),
        (("--playbook", "typo"), "there is no playbook 'typo'; known: throttle-slow-detector"),
    ],
    ids=["target", "playbook"],
)
def test_runs_of_what_nobody_knows_are_not_just_none_yet(
    typed: Type, listening: Listening, words: tuple[str, ...], said: str
) -> None:
    answer = typed("runs", *words, "--url", listening.url)
    assert (answer.code, answer.out) == (1, "")
    assert said in answer.err
    known = typed("runs", "--playbook", "throttle-slow-detector", "--url", listening.url)
    assert (known.code, known.out) == (0, "no runs yet of throttle-slow-detector\n")


def test_a_controller_without_runs_says_so(typed: Type, listening: Listening) -> None:
    said = typed("runs", "--url", listening.url)
    assert (said.code, said.out) == (0, "no runs yet\n")


def test_the_address_may_come_from_the_environment(
    typed: Type, listening: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REMEDIATOR_URL", listening.url)
    assert typed("runs").code == 0


@pytest.mark.parametrize("what", ["A1", "a1", "DetectorSlow", "f00d", "f0"])
def test_an_alert_is_explained_by_its_number_name_or_fingerprint(
    typed: Type, told: Listening, what: str
) -> None:
    said = typed("explain", what, "--url", told.url)
    assert said.code == 0
    assert "A1  DetectorSlow  firing" in said.out
    assert "restart-dead-detector denied: cooldown: it ran 2 minutes ago  (x3)" in said.out
    assert "admitted: throttle-slow-detector on detector-1 as R1" in said.out
    assert "asked up -> 0.41" in said.out


@pytest.mark.parametrize("what", ["R1", "r1"])
def test_a_run_is_explained_from_evidence_to_end(typed: Type, told: Listening, what: str) -> None:
    said = typed("explain", what, "--url", told.url)
    assert said.code == 0
    for line in (
        "R1  remedy throttle-slow-detector on detector-1  succeeded improved",
        "set: p95 is 0.41 s => ok",
        "measured (verify): nan",
        "measured (verify): 0.2",
        "change: max_concurrency at 6, base 10: held",
        "p95 is 0.2 s",
        "[info] throttled",
    ):
        assert line in said.out, said.out


@pytest.mark.parametrize("what", ["A1", "R1"])
def test_json_is_the_whole_story_and_nothing_else(typed: Type, told: Listening, what: str) -> None:
    said = typed("explain", what, "--json", "--url", told.url)
    assert json.loads(said.out)["id"] == 1
    assert said.out.isascii()
    assert harmless(said.out)


def test_labels_that_mean_harm_are_shown_and_not_obeyed(typed: Type, told: Listening) -> None:
    said = typed("explain", "A1", "--url", told.url)
    assert harmless(said.out)
    assert r"\x1b[31m\x1b]0;owned\x07[red]bold[/nonsense]\r\nforged line\x9b2J\u202e" in said.out
    assert not any(line.startswith("forged") for line in said.out.splitlines())
    assert "(65536 characters)" in said.out
    assert len(said.out) < 5000
    assert typed("runs", "--url", told.url).code == 0


@given(st.text(st.characters()))
def test_no_text_makes_a_terminal_do_anything_but_show_it(text: str) -> None:
    shown = terminal.plain(text)
    assert harmless(shown.plain)
    assert "\n" not in shown.plain
    assert shown.spans == []
    shown.plain.encode()


@pytest.mark.parametrize(
    "what", ["R9", "A9", "Nobody", "R99999999999999999999999", "A0", "%", "../runs", "R"]
)
def test_what_is_not_there_is_said_in_one_line(typed: Type, told: Listening, what: str) -> None:
    said = typed("explain", what, "--url", told.url)
    assert said.code in {1, 2}
    assert said.err.startswith("remediator: ")
    assert said.err.count("\n") == 1
    assert said.out == ""


def test_a_pause_is_made_shown_and_lifted(typed: Type, listening: Listening) -> None:
    where = ("--url", listening.url, "--by", "ann")
    wanted = ("pause", "--reason", "[red]deploy[/x]", "--for", "30m")
    said = typed(*wanted, *where)
    assert said.code == 0
    assert "paused all until" in said.out
    assert "[red]deploy[/x]" in said.out
    assert [p["by"] for p in httpx.get(f"{listening.url}/api/v1/pauses").json()] == ["ann"]
    said = typed("resume", *where)
    assert (said.code, said.out) == (0, "lifted 1 pause of all\n")
    said = typed("resume", *where)
    assert (said.code, said.out) == (1, "lifted 0 pauses of all\n")


def test_a_pause_of_one_playbook_names_it(typed: Type, listening: Listening) -> None:
    where = ("--url", listening.url, "--reason", "x", "--for", "1h")
    scope = "playbook:throttle-slow-detector"
    assert typed("pause", "--scope", scope, *where).code == 0
    said = typed("pause", "--scope", "playbook:throtle", *where)
    assert said.code == 2
    assert "known: throttle-slow-detector" in said.err


@pytest.mark.parametrize("length", ["30", "soon", "-5m", "0s", "99999999999999d", "30d"])
def test_a_length_that_is_none_is_refused_in_one_line(
    typed: Type, listening: Listening, length: str
) -> None:
    said = typed("pause", "--reason", "x", f"--for={length}", "--url", listening.url)
    assert said.code == 2
    assert said.err.count("\n") == 1
    assert httpx.get(f"{listening.url}/api/v1/pauses").json() == []


def test_an_open_run_is_cancelled_and_a_closed_one_is_not(typed: Type, told: Listening) -> None:
    run_id = told.write(a_run_for_tomorrow)
    where = ("--reason", "enough", "--by", "ann", "--url", told.url)
    said = typed("cancel", f"R{run_id}", *where)
    assert (said.code, said.out) == (0, f"run R{run_id} stops at its next step boundary\n")
    said = typed("cancel", "R1", *where)
    assert said.code == 2
    assert "closed already: succeeded" in said.err
    assert typed("cancel", "R77", *where).code == 1
    assert "looks like R12" in typed("cancel", "detector-1", *where).err


# -- who is not there, or is somebody else --------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:9",
        "http://nobody.invalid",
        "127.0.0.1:8090",
        "nonsense",
        "ftp://127.0.0.1",
        "http://[::1",
        "http://127.0.0.1:99999",
        "",
    ],
)
@pytest.mark.parametrize("words", [["runs"], ["explain", "R1"]], ids=" ".join)
def test_a_controller_that_cannot_be_reached_is_one_line_and_ends_in_two(
    typed: Type, url: str, words: list[str]
) -> None:
    said = typed(*words, "--url", url)
    assert said.code == 2
    assert said.err.startswith("remediator: the controller at ")
    assert said.err.count("\n") == 1
    assert said.out == ""


@pytest.fixture(scope="module")
def stranger() -> Iterator[str]:
    """Something that answers, and is no controller."""
    app = FastAPI()

    @app.get("/api/v1/runs")
    @app.get("/api/v1/alerts")
    def answer() -> dict[str, str]:
        return {"status": "success", "data": "[]"}

    url, end = serve(app)
    yield url
    end()


@pytest.mark.parametrize("words", [["runs"], ["explain", "DetectorSlow"], ["explain", "R1"]])
def test_something_else_that_answers_is_not_taken_for_a_controller(
    typed: Type, stranger: str, words: list[str]
) -> None:
    said = typed(*words, "--url", stranger)
    assert said.code in {1, 2}
    assert said.err.count("\n") == 1


@pytest.mark.parametrize("content", [None, b"\xff\xfe", "schlüssel".encode()], ids=repr)
def test_a_token_file_that_cannot_be_used_is_named(
    typed: Type,
    listening: Listening,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    content: bytes | None,
) -> None:
    path = tmp_path / "api.token"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv("REMEDIATOR_API_TOKEN_FILE", str(path))
    said = typed("runs", "--url", listening.url)
    assert said.code == 2
    assert str(path) in said.err
    assert said.err.count("\n") == 1


def test_a_time_at_the_end_of_the_calendar_can_be_shown() -> None:
    assert terminal.clock_time(None) == "-"
    for text in ("9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z", "2026-11-22T12:00:00Z"):
        assert terminal.clock_time(text)


def test_trust_says_what_a_playbooks_runs_came_to_and_which_mode_that_supports(
    typed: Type, listening: Listening
) -> None:
    said = typed("trust", "--url", listening.url)
    (line,) = [line for line in said.out.splitlines() if line.startswith("throttle")]
    assert "no run yet" in line
    assert "stay" in line
    (told,) = json.loads(typed("trust", "--json", "--url", listening.url).out)
    assert (told["improved"]["low"], told["improved"]["high"]) == (0, 1)
