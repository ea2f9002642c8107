"""The commands by which a person decides, against a controller that really listens."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from remediator.model.effect import Message
from remediator.model.playbook import Mode
from remediator.model.run import PROPOSAL, Run
from remediator.store import approvals, outbox, runs
from remediator.store.database import Tx
from tests.api import rows
from tests.cli.conftest import Listening, Type, a_controller

WHO = ("--by", "ann", "--reason", "a deploy")


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listening]:
    """One controller for all of these: each leaves nothing in force."""
    with a_controller(tmp_path_factory.mktemp("there")) as one:
        yield one


def asking(tx: Tx) -> int:
    """Open a proposal that waits for a person, and that the controller itself leaves alone."""
    run_id = rows.opened(tx, mode=Mode.PROPOSE, proposed=True, holds_slot=False)
    run = runs.get_run(tx, run_id)
    assert isinstance(run, Run)
    claimed = next(r for r in runs.claim_due(tx, owner="a", lease=rows.LEASE, limit=9))
    approvals.ask(tx, claimed, pc=PROPOSAL, message="May it?", within=timedelta(minutes=30))
    body = "May it?\nThe instance is slow."
    told = Message(key=f"run/{run_id}/ask/{PROPOSAL}", severity="warning", title="?", body=body)
    outbox.queue(tx, told, run_id=run_id)
    runs.park(tx, claimed, due_at=tx.now + timedelta(days=1), reason="waits")
    return run_id


def test_a_question_is_listed_and_answered_once(typed: Type, there: Listening) -> None:
    where = ("--url", there.url)
    assert typed("approvals", *where).out == "nothing waits for a person\n"
    run_id = there.write(asking)
    listed = typed("approvals", *where).out
    assert listed.startswith(f"R{run_id}  throttle-slow-detector on detector-1, until ")
    assert listed.endswith("\n    May it?\n    The instance is slow.\n")
    said = typed("reject", f"R{run_id}", *WHO, *where)
    assert (said.code, said.out) == (0, f"run R{run_id} is rejected\n")
    again = typed("approve", f"r{run_id}", "--by", "bob", *where)
    assert again.code == 2
    assert "ann rejected it already" in again.err
    assert "asked a person => rejected by ann at" in typed("explain", f"R{run_id}", *where).out


def test_nothing_is_approved_that_is_no_run(typed: Type, there: Listening) -> None:
    assert "looks like R12" in typed("approve", "throttle", "--url", there.url).err
    assert typed("approve", "R99", "--url", there.url).code == 1


def test_the_kill_switch_is_pulled_shown_and_put_back(typed: Type, there: Listening) -> None:
    where = ("--url", there.url)
    assert typed("kill", "--on", *where).code == 2
    said = typed("kill", "--on", *WHO, *where)
    assert said.code == 0
    assert "the kill switch is on" in said.out
    shown = typed("controls", *where).out
    assert "kill  all  by ann, until it is lifted: a deploy" in shown
    assert typed("kill", "--off", *where).out == "the kill switch is off\n"
    assert typed("kill", "--off", *where).code == 1
    assert typed("controls", *where).out == "nothing is held back\n"


def test_a_stop_of_a_run_and_of_a_scope(typed: Type, there: Listening) -> None:
    def a_run(tx: Tx) -> int:
        return rows.opened(tx, due_at=tx.now + timedelta(days=1))

    where = ("--url", there.url)
    run_id = there.write(a_run)
    said = typed("stop", f"R{run_id}", *WHO, *where)
    assert (said.code, said.out) == (0, f"run R{run_id} turns back at its next step boundary\n")
    assert typed("stop", "R99", *WHO, *where).code == 1
    assert "known: " in typed("stop", "pool:nowhere", *WHO, *where).err
    said = typed("stop", "playbook:throttle-slow-detector", *WHO, *where)
    assert said.code == 0


@pytest.mark.parametrize(
    ("words", "shown", "end"),
    [
        (
            ("override", "playbook:throttle-slow-detector", "--for", "1h"),
            "override  playbook:throttle-slow-detector  hands off  by ann",
            None,
        ),
        (
            (
                "override",
                "playbook:throttle-slow-detector",
                "--for",
                "1h",
                "--waive",
                "cooldown",
                "--waive",
                "storm",
            ),
            "override  playbook:throttle-slow-detector  waives cooldown, storm  by ann",
            None,
        ),
        (("mode", "all", "observe"), "mode  all  observe at most  by ann", ("mode", "all", "own")),
        (
            ("pause", "--scope", "action:restart", "--for", "5m"),
            "pause  action:restart  by ann",
            ("resume", "--scope", "action:restart"),
        ),
    ],
    ids=["hands off", "waive", "mode", "pause of an action"],
)
def test_a_decision_is_made_shown_and_ended(
    typed: Type, there: Listening, words: tuple[str, ...], shown: str, end: Any
) -> None:
    where = ("--url", there.url)
    made = typed(*words, *WHO, *where)
    assert made.code == 0, made.err
    listed = typed("controls", *where).out
    assert shown in listed
    number = listed.split()[0]
    assert typed(*(end or ("lift", number)), *where).code == 0
    assert typed(*(end or ("lift", number)), *where).code == 1
    assert typed("controls", *where).out == "nothing is held back\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("pin", "nowhere", "max_concurrency"), "known: none"),
        (("reset-breaker", "throttle-slow-detector", "nowhere"), "known: none"),
        (("override", "target:nowhere", "--for", "1h"), "known: none"),
        (("override", "pool:x", "--for", "tomorrow"), "--for"),
        (("mode", "all", "reckless"), "mode"),
        (("stop", "everything"), "'everything' is no scope; it looks like all, playbook:NAME"),
    ],
    ids=str,
)
def test_what_names_nothing_is_refused_with_one_line(
    typed: Type, there: Listening, words: tuple[str, ...], said: str
) -> None:
    answer = typed(*words, *WHO, "--url", there.url)
    assert answer.code == 2
    assert said in answer.err
    assert len(answer.err.splitlines()) == 1


def test_a_knob_that_is_not_pinned_cannot_be_unpinned(typed: Type, there: Listening) -> None:
    said = typed("unpin", "detector-1", "max_concurrency", "--url", there.url)
    assert (said.code, said.out) == (1, "max_concurrency of detector-1 was not pinned\n")


def test_a_mode_that_others_keep_lower_is_answered_with_what_holds(
    typed: Type, there: Listening
) -> None:
    where = ("--url", there.url)
    said = typed("mode", "all", "auto", *WHO, *where)
    assert said.code == 0
    assert said.out.splitlines() == [
        "all: auto at most",
        "    throttle-slow-detector: observe at most, because of its own file",
    ]
    assert typed("mode", "all", "observe", *WHO, *where).out == "all: observe at most\n"
    assert typed("mode", "all", "own", *where).code == 0


def test_help_is_never_cut_and_names_who_asks(typed: Type) -> None:
    listed = typed("--help").out
    assert "..." not in listed.partition("Commands:")[2]
    names = [
        line.split()[0] for line in listed.splitlines() if line[:3].strip() and line[:2] == "  "
    ]
    assert names.index("test") == names.index("check") + 1
    assert "[default: (you)]" in typed("pause", "--help").out
