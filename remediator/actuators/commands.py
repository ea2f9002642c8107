"""Runs the programs that the configuration names (role `commands`); never a shell.

Wired by `app`, one for all targets; called by the engine. The surprise: an exit status proves
little. Only 0 is a success and only the statuses that the configuration lists as such mean "nothing
was changed"; any other, a signal or a timeout leaves an unknown outcome.

Verb: `run` with run (the name) and arguments ({placeholder: value}). It answers {exit, stdout,
stderr}, the last 4 kB of each. The program gets its idempotency key and fencing token as
`IDEMPOTENCY_KEY` and `FENCING_TOKEN`.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from string import Formatter
from typing import Any

from remediator.actuators.exchange import plain
from remediator.errors import OutcomeUnknownError, PermanentError, RefusedError, TemporaryError
from remediator.model.effect import Call
from remediator.model.target import Target

TAIL_BYTES = 4096
TAIL_LINES = 10
# All of the environment that a program gets, beside its own and the call's.
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
}
# How long output is waited for after the end: whatever the program left behind may hold it open.
LEFT_BEHIND_S = 0.5
# Errors of starting that say something about the machine at this moment, not about the program.
PASSING = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE})


@dataclass(frozen=True)
class Program:
    """One program of the configuration.

    Attributes:
        argv: the program's absolute path and its arguments; `{name}` is a placeholder.
        timeout_s: it never runs longer, whatever the playbook allows, in seconds.
        environment: beside `ENVIRONMENT`.
        not_applied_exits: the exit statuses that promise that nothing was changed.
    """

    argv: tuple[str, ...]
    timeout_s: float = 60.0
    environment: Mapping[str, str] = field(default_factory=dict)
    not_applied_exits: frozenset[int] = frozenset()


def placeholders(argv: Sequence[str]) -> frozenset[str]:
    """Return the names in the braces of an argv.

    Raises:
        ValueError: a brace that belongs to no plain `{name}`; a literal one is written twice.
    """
    return frozenset(name for element in argv for _, name in _pieces(element) if name is not None)


def _pieces(element: str) -> list[tuple[str, str | None]]:
    pieces = []
    for literal, name, form, conversion in Formatter().parse(element):
        if name is not None and (not name.isidentifier() or form or conversion):
            msg = f"{element!r}: write a placeholder as {{name}}, and a literal brace twice"
            raise ValueError(msg)
        pieces.append((literal, name))
    return pieces


class CommandsActuator:
    """The programs of the configuration, by name."""

    def __init__(self, programs: Mapping[str, Program]) -> None:
        self.programs = programs

    async def read(self, target: Target) -> Mapping[str, Any]:  # noqa: ARG002 - the port has it
        """Return nothing: a program has no state that anybody could read."""
        return {}

    async def send(self, target: Target, call: Call) -> Mapping[str, Any]:  # noqa: ARG002 - as read
        """Run the program, once, and wait for its end.

        Raises:
            TemporaryError, PermanentError: it was not started, or promises to have changed nothing.
            OutcomeUnknownError: it ended otherwise, or was killed with its children for taking too
                long.
        """
        program = self._program(call)
        argv = fill(program.argv, call.args.get("arguments") or {})
        environment = {
            **ENVIRONMENT,
            **program.environment,
            "IDEMPOTENCY_KEY": call.idempotency_key,
            "FENCING_TOKEN": str(call.fencing_token),
        }
        timeout_s = min(call.timeout_s, program.timeout_s)
        done = await _run(argv, environment, timeout_s)
        return _judged(str(call.args["run"]), program, done, timeout_s)

    async def probe(self, target: Target, call: Call, before: Mapping[str, Any]) -> bool | None:  # noqa: ARG002 - as read
        """Return None: nothing says what a program that was started did."""
        return None

    def _program(self, call: Call) -> Program:
        if call.verb != "run":
            raise PermanentError(f"a command cannot {call.verb!r}; it knows run; nothing was run")
        name = call.args.get("run")
        found = self.programs.get(str(name))
        if found is None:
            known = ", ".join(sorted(self.programs)) or "none"
            raise PermanentError(f"no command is called {name!r}; configured: {known}; not run")
        return found


def fill(argv: Sequence[str], values: Mapping[str, Any]) -> list[str]:
    """Return the argv with each placeholder replaced within its own element.

    Raises:
        PermanentError: a value is missing, unknown or could be taken for something else.
    """
    wanted = placeholders(argv)
    wrong = [f"needs {name}" for name in sorted(wanted - values.keys())]
    wrong += [f"does not know {name}" for name in sorted(values.keys() - wanted)]
    if wrong:
        raise PermanentError(f"{argv[0]} {', '.join(wrong)}; not run")
    for name, value in values.items():
        _check_value(name, str(value))
    return [_filled(element, values) for element in argv]


def _check_value(name: str, value: str) -> None:
    # isprintable is False for control characters and for what cannot be encoded.
    if not value or not value.isprintable():
        raise PermanentError(f"{name} is {value!r}: empty or not printable text; not run")


def _filled(element: str, values: Mapping[str, Any]) -> str:
    pieces = _pieces(element)
    whole = "".join(
        literal + (str(values[name]) if name is not None else "") for literal, name in pieces
    )
    if whole.startswith("-") and not element.startswith("-"):
        raise PermanentError(f"{element} would be {whole!r}, which reads as an option; not run")
    return whole


@dataclass(frozen=True)
class _Ended:
    """How a program ended: its exit status, negative for a signal; None when we killed it."""

    status: int | None
    stdout: str
    stderr: str


async def _run(argv: Sequence[str], environment: Mapping[str, str], timeout_s: float) -> _Ended:
    async with _tail() as out, _tail() as err:
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=DEVNULL,
                stdout=out.inlet,
                stderr=err.inlet,
                env=environment,
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            words = f"{argv[0]} cannot be started: {error.strerror}; nothing was run"
            raise (TemporaryError if error.errno in PASSING else PermanentError)(words) from error
        finally:
            out.close_inlet()
            err.close_inlet()
        try:
            async with asyncio.timeout(timeout_s):
                status: int | None = await process.wait()
        except TimeoutError:
            status = None
        finally:
            await _kill(process)
        await asyncio.wait([out.ended, err.ended], timeout=LEFT_BEHIND_S)
    return _Ended(status, out.text, err.text)


async def _kill(process: Process) -> None:
    """End what still runs, children included."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await asyncio.shield(process.wait())


class _Tail(asyncio.Protocol):
    """Keeps the end of what is written into a pipe.

    A pipe of our own, for we must be able to close it while a child of the program holds it open.
    """

    def __init__(self) -> None:
        self.outlet, self.inlet = os.pipe()
        self.kept = bytearray()
        self.ended = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self.kept += data
        del self.kept[:-TAIL_BYTES]

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the base has it
        if not self.ended.done():
            self.ended.set_result(None)

    def close_inlet(self) -> None:
        """Close our copy of the writing end, so that the program's is the last."""
        os.close(self.inlet)

    @property
    def text(self) -> str:
        """What was kept, as text."""
        return plain(self.kept.decode("utf-8", "replace"))


@asynccontextmanager
async def _tail() -> AsyncIterator[_Tail]:
    tail = _Tail()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: tail, os.fdopen(tail.outlet, "rb"))
    try:
        yield tail
    finally:
        transport.close()


def _judged(name: str, program: Program, done: _Ended, timeout_s: float) -> dict[str, Any]:
    kept: dict[str, Any] = {"exit": done.status, "stdout": done.stdout, "stderr": done.stderr}
    last = "\n".join((done.stderr.strip() or done.stdout.strip()).splitlines()[-TAIL_LINES:])
    said = f"; its last lines:\n{last}" if last else ""
    if done.status == 0:
        return kept
    if done.status is None:
        raise OutcomeUnknownError(f"{name} ran longer than {timeout_s:g} s and was killed{said}")
    if done.status in program.not_applied_exits:
        words = f"{name} exited {done.status}, which promises that nothing was changed{said}"
        raise RefusedError(words, reason=f"exit_{done.status}", detail=kept)
    how = f"exited {done.status}" if done.status > 0 else f"was ended by signal {-done.status}"
    raise OutcomeUnknownError(f"{name} {how}{said}")
