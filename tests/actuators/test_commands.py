"""The programs of the configuration, as real children of this process."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from remediator.actuators.commands import CommandsActuator, Program, fill, placeholders
from remediator.errors import OutcomeUnknownError, PermanentError, RefusedError
from remediator.model.effect import Call
from remediator.model.target import Target

TARGET = Target(name="detector-1")
PLENTY_S, SOON_S = 30.0, 0.3
SHELL = "/bin/sh"


async def run(
    *argv: str,
    timeout_s: float = PLENTY_S,
    limit_s: float = PLENTY_S,
    arguments: dict[str, str] | None = None,
    **more: Any,
) -> Any:
    actuator = CommandsActuator({"it": Program(argv, limit_s, **more)})
    args = {"run": "it", "arguments": arguments or {}}
    call = Call("run", args, idempotency_key="r/f/0/0/1", fencing_token=12, timeout_s=timeout_s)
    return await actuator.send(TARGET, call)


async def gone(pid: int) -> None:
    async with asyncio.timeout(PLENTY_S):
        while _lives(pid):  # noqa: ASYNC110 - the state is in another process
            await asyncio.sleep(0.01)


def _lives(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


async def appears(path: Path) -> str:
    async with asyncio.timeout(PLENTY_S):
        while not _text(path):  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)
    return _text(path)


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


async def test_a_program_that_exits_0_did_it_and_what_it_said_is_kept() -> None:
    got = await run(SHELL, "-c", "echo out; echo err >&2")
    assert got == {"exit": 0, "stdout": "out\n", "stderr": "err\n"}


async def test_only_the_end_of_what_it_said_is_kept() -> None:
    got = await run(SHELL, "-c", "yes line | head -c 3000000; echo; echo the end")
    assert len(got["stdout"]) <= 4096
    assert got["stdout"].endswith("the end\n")


async def test_what_it_said_is_kept_without_control_characters() -> None:
    got = await run(SHELL, "-c", r"printf 'a\000b\033[31mc\377'")
    assert got["stdout"] == "a b [31mc\N{REPLACEMENT CHARACTER}"


async def test_its_environment_is_only_what_is_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "s3cret")
    code = "import json, os; print(json.dumps(sorted(os.environ.items())))"
    got = await run(sys.executable, "-c", code, environment={"ZONE": "a"})
    names = {name for name, _ in json.loads(got["stdout"])}
    assert names - {"LC_CTYPE"} == {"PATH", "LANG", "ZONE", "IDEMPOTENCY_KEY", "FENCING_TOKEN"}
    assert "r/f/0/0/1" in got["stdout"]


async def test_it_has_no_input_no_terminal_and_a_session_of_its_own() -> None:
    code = "import os, sys; print(os.getsid(0) == os.getpid(), sys.stdin.read() == '', os.getcwd())"
    got = await run(sys.executable, "-c", code)
    assert got["stdout"] == "True True /\n"


async def test_a_value_is_one_argument_and_no_shell_reads_it() -> None:
    code = "import sys; print(sys.argv[1:])"
    value = "a b; touch /x $(id) `id` | > * \\ ' \""
    got = await run(sys.executable, "-c", code, "--name={name}", "{{x}}", arguments={"name": value})
    assert got["stdout"] == f"{[f'--name={value}', '{x}']}\n"


@pytest.mark.parametrize(
    ("argv", "values", "why"),
    [
        (["/p", "{a}"], {}, "needs a"),
        (["/p", "{a}"], {"a": "1", "b": "2"}, "does not know b"),
        (["/p", "{a}"], {"a": ""}, "empty"),
        (["/p", "{a}"], {"a": "-rf"}, "reads as an option"),
        (["/p", "{a}{b}"], {"a": "-", "b": "x"}, "reads as an option"),
        (["/p", "x{a}"], {"a": "1\n2"}, "not printable"),
        (["/p", "x{a}"], {"a": "1\x00"}, "not printable"),
        (["/p", "x{a}"], {"a": "\ud800"}, "not printable"),
        (["/p", "x{a}"], {"a": "\x1b[31m"}, "not printable"),
    ],
)
def test_a_value_that_could_be_taken_for_something_else_is_refused(
    argv: list[str], values: dict[str, str], why: str
) -> None:
    with pytest.raises(PermanentError, match=why):
        fill(argv, values)


def test_a_value_is_never_looked_at_for_placeholders_again() -> None:
    assert fill(["/p", "-x{a}", "{b}"], {"a": "-{b}", "b": "{a.__class__}"}) == [
        "/p",
        "-x-{b}",
        "{a.__class__}",
    ]


@pytest.mark.parametrize("element", ["{", "}", "{}", "{0}", "{a.b}", "{a[0]}", "{a!r}", "{a:>9}"])
def test_braces_are_plain_names_or_twice(element: str) -> None:
    with pytest.raises(ValueError, match=r"brace|placeholder|'\{'|'\}'"):
        placeholders(["/p", element])
    assert placeholders(["/p", "{a}-{b}", "{{c}}", "{a}"]) == {"a", "b"}


async def test_an_exit_that_promises_it_is_a_refusal_with_all_that_was_said() -> None:
    with pytest.raises(RefusedError, match="promises that nothing was changed") as caught:
        await run(SHELL, "-c", "echo busy >&2; exit 75", not_applied_exits=frozenset({75}))
    assert caught.value.reason == "exit_75"
    assert caught.value.detail == {"exit": 75, "stdout": "", "stderr": "busy\n"}


@pytest.mark.parametrize(
    ("script", "how"),
    [("echo half done >&2; exit 3", "exited 3"), ("echo half done; kill -9 $$", "signal 9")],
)
async def test_any_other_end_is_an_unknown_outcome_with_its_last_words(
    script: str, how: str
) -> None:
    with pytest.raises(OutcomeUnknownError, match=how) as caught:
        await run(SHELL, "-c", script, not_applied_exits=frozenset({75}))
    assert "half done" in str(caught.value)


async def test_what_takes_too_long_is_killed_with_its_children(tmp_path: Path) -> None:
    script = f"sleep 600 & echo $! > {tmp_path}/child; echo begun; trap '' TERM; wait; sleep 600"
    with pytest.raises(OutcomeUnknownError, match=r"longer than 0\.3 s") as caught:
        await run(SHELL, "-c", script, timeout_s=SOON_S)
    assert "begun" in str(caught.value)
    await gone(int((tmp_path / "child").read_text()))


async def test_its_own_limit_holds_whatever_the_playbook_allows() -> None:
    with pytest.raises(OutcomeUnknownError, match=r"longer than 0\.05 s"):
        await run(SHELL, "-c", "sleep 600", limit_s=0.05)


async def test_a_cancelled_call_leaves_nothing_running(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    calling = asyncio.create_task(run(SHELL, "-c", f"sleep 600 & echo $$ $! > {pids}; wait"))
    said = await appears(pids)
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    for pid in said.split():
        await gone(int(pid))


async def test_what_it_leaves_behind_is_not_waited_for(tmp_path: Path) -> None:
    got = await run(SHELL, "-c", f"sleep 600 & echo $! > {tmp_path}/child; echo done")
    assert got["stdout"] == "done\n"
    child = int((tmp_path / "child").read_text())
    assert _lives(child)
    os.kill(child, 9)


@pytest.mark.parametrize("make", [lambda p: None, Path.mkdir, Path.touch])
async def test_what_cannot_be_started_was_definitely_not_run(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    program = tmp_path / "program"
    make(program)
    with pytest.raises(PermanentError, match="cannot be started"):
        await run(str(program))


async def test_arguments_that_are_too_long_are_not_run() -> None:
    with pytest.raises(PermanentError, match="cannot be started"):
        await run("/bin/true", "{a}", arguments={"a": "x" * 3_000_000})


@pytest.mark.parametrize(("verb", "name"), [("run", "other"), ("call", "it")])
async def test_what_nobody_configured_is_not_run(verb: str, name: str) -> None:
    actuator = CommandsActuator({"it": Program(("/bin/true",))})
    with pytest.raises(PermanentError):
        await actuator.send(TARGET, Call(verb, {"run": name}))
    assert await actuator.read(TARGET) == {}
    assert await actuator.probe(TARGET, Call("run", {"run": "it"}), {}) is None
