"""Stops and starts one program of a supervisord (role `process`), by XML-RPC over HTTP.

Wired by `app`, one for each target; called by the engine. The surprise: a "yes" of supervisord
proves little. `startProcess` answers True and does nothing while the program is still stopping, so
a start waits for that to end; and neither verb returns before the wanted state has been seen.
There is no restart verb: the engine journals a stop and a start.

Verbs: `stop` and `start`, both without arguments. Both return what `read` returns, and
`"already": True` when the program was in the wanted state before.
"""

from __future__ import annotations

import asyncio
import base64
import xmlrpc.client
from collections.abc import Collection, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.parsers.expat import ExpatError

import httpx

from remediator.actuators.exchange import Request, excerpt, exchange, plain, result_of
from remediator.actuators.secretfile import read_secret
from remediator.errors import (
    EffectError,
    OutcomeUnknownError,
    PermanentError,
    RefusedError,
    TemporaryError,
)
from remediator.model.effect import Call
from remediator.model.target import Target

# http://supervisord.org/subprocess.html#process-states
STOPPED = frozenset({"STOPPED", "EXITED", "FATAL", "UNKNOWN"})
ALIVE = frozenset({"STARTING", "RUNNING", "BACKOFF"})
# A start ends in one of these. BACKOFF is not among them: supervisord goes on trying.
STARTED_OR_NOT = STOPPED | {"RUNNING"}
# `Faults` in supervisor/xmlrpc.py; the rest is told by number.
FAULTS = {
    10: "bad_name",
    20: "no_file",
    21: "not_executable",
    30: "failed",
    50: "spawn_error",
    60: "already_started",
    70: "not_running",
}
SHUTDOWN_STATE = 6
# What it says of a log that was never written, or that goes into the other one.
NO_LOG = frozenset({"no_file", "failed"})
POLL_S = 0.1
# The logs of a program, in the order in which they explain a death.
LOGS = ("Stderr", "Stdout")
TAIL_LINES = 10
# What a line of a log takes, generously; so much of its end is read.
LINE_BYTES = 200


def client_for(server_url: str) -> httpx.AsyncClient:
    """Return a client that reaches a supervisord; whoever calls this closes it.

    Args:
        server_url: `unix:///path/to/supervisor.sock` or `http://host:port`, as in the
            `serverurl` of a `[supervisorctl]` section.
    """
    if server_url.startswith("unix://"):
        transport = httpx.AsyncHTTPTransport(uds=server_url.removeprefix("unix://"))
        return httpx.AsyncClient(transport=transport, base_url="http://localhost")
    # A supervisord is a neighbour: never by way of a proxy from the environment.
    return httpx.AsyncClient(base_url=server_url, trust_env=False)


class SupervisorActuator:
    """One program under one supervisord.

    Attributes:
        program: its name there; a member of a group is `group:name`.
        client: made by `client_for`, shared and owned by `app`.
        username: of supervisord's HTTP server; empty sends no credentials.
        password_file: read anew for each call.
        read_timeout_s: longest wait of `read` and `probe`, in seconds.
    """

    def __init__(
        self,
        program: str,
        *,
        client: httpx.AsyncClient,
        username: str = "",
        password_file: Path | None = None,
        read_timeout_s: float = 5.0,
    ) -> None:
        self.program = program
        self.client = client
        self.username = username
        self.password_file = password_file
        self.read_timeout_s = read_timeout_s

    async def read(self, target: Target) -> Mapping[str, Any]:  # noqa: ARG002 - the port has it
        """Return `{state, pid, started_at, stopped_at, exitstatus, spawnerr}`.

        `state` is supervisord's word, `pid` 0 when there is no process, the times RFC 3339 in UTC
        (whole seconds) or None.

        Raises:
            TemporaryError: supervisord did not answer.
            PermanentError: it does not know the program, or refuses us.
        """
        return await self._info(self.read_timeout_s)

    async def look(self, target: Target, *, log_lines: int) -> Mapping[str, Any]:  # noqa: ARG002 - as read
        """Return `{"stderr": [line], "stdout": [line]}`: the ends of the program's logs.

        A log that it does not have is left out.

        Raises:
            TemporaryError: supervisord did not answer.
            PermanentError: it refuses us.
        """
        seen: dict[str, list[str]] = {}
        for name in LOGS if log_lines else ():
            try:
                seen[name.lower()] = await self._last_lines(name, log_lines)
            except RefusedError as error:
                if error.reason not in NO_LOG:
                    raise
            except OutcomeUnknownError as error:
                raise TemporaryError(str(error)) from error
        return seen

    async def send(self, target: Target, call: Call) -> Mapping[str, Any]:  # noqa: ARG002 - as read
        """Stop or start the program and wait until that is so.

        Raises:
            TemporaryError, PermanentError, OutcomeUnknownError: see the `Actuator` port. A start
                that supervisord has given up is permanent, one that it may yet repeat is unknown;
                either message ends with the program's last log lines.
        """
        deadline = asyncio.get_running_loop().time() + call.timeout_s
        match call.verb:
            case "stop":
                return await self._stop(deadline)
            case "start":
                return await self._start(deadline)
            case _:
                raise PermanentError(
                    f"supervisord cannot {call.verb!r}; it knows stop, start; nothing was sent"
                )

    async def probe(self, target: Target, call: Call, before: Mapping[str, Any]) -> bool | None:
        """Say whether `call` shows in the process; None when that cannot be told.

        A start shows in a later `started_at` even when what was started has ended since.
        """
        try:
            now = await self.read(target)
        except EffectError:
            return None
        if call.verb == "stop" and now["state"] not in ALIVE:
            return True
        if "pid" not in before:
            # It was not seen before the call either, so nothing says what is new.
            return None
        if _later(now, before):
            return True
        same_start = now["started_at"] == before.get("started_at")
        if call.verb == "stop":
            return bool(now["pid"] != before["pid"])
        if not now["pid"]:
            return False if same_start else None
        return True if now["pid"] != before["pid"] else None

    async def _stop(self, deadline: float) -> dict[str, Any]:
        already = await self._command("stopProcess", deadline, fine="not_running")
        now = await self._reach(STOPPED, deadline)
        return {**now, "already": already}

    async def _start(self, deadline: float) -> dict[str, Any]:
        await self._stopping_is_over(deadline)
        already = await self._command("startProcess", deadline, fine="already_started")
        now = await self._reach(STARTED_OR_NOT, deadline)
        if now["state"] == "FATAL":
            raise PermanentError(await self._why_it_died(now))
        if now["state"] == "EXITED":
            # It did start, and with `autorestart` supervisord starts it again.
            raise OutcomeUnknownError(await self._why_it_died(now))
        if now["state"] != "RUNNING":
            raise OutcomeUnknownError(
                f"{self.program} was started and is {now['state']}: somebody else stopped it"
            )
        return {**now, "already": already}

    async def _stopping_is_over(self, deadline: float) -> None:
        while (await self._info(_left(deadline)))["state"] == "STOPPING":
            if _left(deadline) <= POLL_S:
                raise TemporaryError(f"{self.program} is still stopping; start was not sent")
            await asyncio.sleep(POLL_S)

    async def _reach(self, wanted: Collection[str], deadline: float) -> dict[str, Any]:
        """Return the state once it is one of `wanted`; from here on nothing is "not applied"."""
        while True:
            try:
                now = await self._info(_left(deadline))
            except EffectError as error:
                raise OutcomeUnknownError(
                    f"{self.program} was told, and then supervisord stopped answering: {error}"
                ) from error
            if now["state"] in wanted:
                return now
            if _left(deadline) <= POLL_S:
                if now["state"] == "BACKOFF":
                    raise OutcomeUnknownError(await self._why_it_died(now))
                raise OutcomeUnknownError(
                    f"{self.program} was told and is still {now['state']} (pid {now['pid']})"
                )
            await asyncio.sleep(POLL_S)

    async def _command(self, method: str, deadline: float, *, fine: str) -> bool:
        """Send without waiting for the effect; True when the fault `fine` says it is so already."""
        try:
            await self._call(method, self.program, False, timeout_s=_left(deadline))  # noqa: FBT003 - XML-RPC has no keywords
        except RefusedError as error:
            if error.reason == "spawn_error":
                # Only this attempt failed: supervisord is in BACKOFF and goes on trying.
                return False
            if error.reason != fine:
                raise await self._explained(error) from error
            return True
        return False

    async def _info(self, timeout_s: float) -> dict[str, Any]:
        try:
            info = await self._call("getProcessInfo", self.program, timeout_s=timeout_s)
        except OutcomeUnknownError as error:
            # Asking changes nothing, so it may be asked again.
            raise TemporaryError(str(error)) from error
        except RefusedError as error:
            raise await self._explained(error) from error
        return _facts(info)

    async def _explained(self, error: RefusedError) -> RefusedError:
        """Return the refusal, with the names that would have been right if it is about the name."""
        if error.reason != "bad_name":
            return error
        try:
            known = await self._call("getAllProcessInfo", timeout_s=self.read_timeout_s)
            names = ", ".join(_full_name(info) for info in known) or "no program at all"
        except (EffectError, LookupError, TypeError):
            return error
        words = f"supervisord knows no program {self.program!r}; it knows {names}"
        return RefusedError(words, reason=error.reason)

    async def _why_it_died(self, now: Mapping[str, Any]) -> str:
        said = now["spawnerr"] or f"exit status {now['exitstatus']}"
        note = "; supervisord goes on trying" if now["state"] == "BACKOFF" else ""
        tail = await self._log_tail()
        last = f"; its last lines:\n{tail}" if tail else ""
        return f"{self.program} was started and is {now['state']}: {said}{note}{last}"

    async def _log_tail(self) -> str:
        for name in LOGS:
            try:
                lines = await self._last_lines(name, TAIL_LINES)
            except EffectError:
                continue
            if lines:
                return "\n".join(lines)
        return ""

    async def _last_lines(self, name: str, count: int) -> list[str]:
        text = await self._log_end(f"readProcess{name}Log", count * LINE_BYTES)
        return plain(text).strip().splitlines()[-count:]

    async def _log_end(self, method: str, length: int) -> str:
        deadline = asyncio.get_running_loop().time() + self.read_timeout_s
        # supervisord answers 500 when the end begins in the middle of a letter (UTF-8: 4 bytes).
        for size in range(length, length - 3, -1):
            with suppress(OutcomeUnknownError):
                return str(
                    await self._call(method, self.program, -size, 0, timeout_s=_left(deadline))
                )
        return str(await self._call(method, self.program, 3 - length, 0, timeout_s=_left(deadline)))

    async def _call(self, method: str, *params: Any, timeout_s: float) -> Any:
        """Make one XML-RPC call and return its value.

        Raises:
            RefusedError: a fault; the reason is its name in `FAULTS`, or its number.
        """
        body = xmlrpc.client.dumps(params, f"supervisor.{method}").encode()
        headers = {"Content-Type": "text/xml", **await self._authorization()}
        request = Request("POST", str(self.client.base_url.join("/RPC2")), headers, body)
        answer = await exchange(self.client, request, timeout_s=timeout_s)
        result_of(answer, refuses_before_applying=False)
        try:
            # supervisord passes on what a program wrote, colours included, which is no XML.
            (value,), _ = xmlrpc.client.loads(plain(answer.body.decode("utf-8")))
        except xmlrpc.client.Fault as fault:
            raise _refusal(fault) from fault
        except (ExpatError, xmlrpc.client.Error, ValueError, TypeError, LookupError) as error:
            raise OutcomeUnknownError(
                f"{answer.url} answered no XML-RPC: {excerpt(answer)}"
            ) from error
        return value

    async def _authorization(self) -> dict[str, str]:
        if not self.username or self.password_file is None:
            return {}
        pair = f"{self.username}:{await read_secret(self.password_file)}".encode()
        return {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}


def _refusal(fault: xmlrpc.client.Fault) -> EffectError:
    if fault.faultCode == SHUTDOWN_STATE:
        return TemporaryError(f"supervisord is shutting down: {fault.faultString}")
    reason = FAULTS.get(fault.faultCode, f"fault_{fault.faultCode}")
    return RefusedError(f"supervisord says {fault.faultString}", reason=reason)


def _facts(info: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return {
            "state": info["statename"],
            "pid": info["pid"],
            "started_at": _moment(info["start"]),
            "stopped_at": _moment(info["stop"]),
            "exitstatus": info["exitstatus"],
            "spawnerr": info["spawnerr"],
        }
    except (LookupError, TypeError) as error:
        raise TemporaryError(f"supervisord described no process: {info!r:.200}") from error


def _moment(seconds: int) -> str | None:
    return datetime.fromtimestamp(seconds, tz=UTC).isoformat() if seconds else None


def _later(now: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    return str(now["started_at"] or "") > str(before.get("started_at") or "")


def _full_name(info: Mapping[str, Any]) -> str:
    name, group = info["name"], info["group"]
    return str(name) if name == group else f"{group}:{name}"


def _left(deadline: float) -> float:
    # Never zero: a deadline of nothing would look like a call that was sent and not answered.
    return max(deadline - asyncio.get_running_loop().time(), 0.01)
