"""Ask the stack's supervisord about its program, over its unix socket.

Only the stack uses it, to know the detector's process id and to start it again. The surprise: every
call has a time limit, because a test may have frozen supervisord.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import socket
import xmlrpc.client
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from remediator.demo.layout import USER, StackError


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket; the socket is closed even when nobody listens."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("supervisord", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(self.timeout)
            sock.connect(str(self._path))
        except OSError:
            sock.close()
            raise
        self.sock = sock


@dataclass(frozen=True)
class Supervisor:
    """A client of one supervisord.

    Attributes:
        socket: its unix socket.
        password_file: file with its password.
    """

    socket: Path
    password_file: Path

    def call(self, method: str, *args: str, timeout_s: float = 2.0) -> Any:
        """Result of one XML-RPC call.

        Raises:
            StackError: no answer in ``timeout_s`` seconds, or supervisord refused.
        """
        body = xmlrpc.client.dumps(args, f"supervisor.{method}")
        login = f"{USER}:{self.password_file.read_text()}".encode()
        headers = {
            "Content-Type": "text/xml",
            "Authorization": f"Basic {base64.b64encode(login).decode()}",
        }
        try:
            with contextlib.closing(_UnixConnection(self.socket, timeout_s)) as connection:
                connection.request("POST", "/RPC2", body, headers)
                answer = connection.getresponse()
                said = answer.read().decode()
            if answer.status != http.client.OK:
                raise StackError(f"supervisord answered {answer.status} to {method}")
            (result,), _ = xmlrpc.client.loads(said)
        except (OSError, http.client.HTTPException, xmlrpc.client.Error) as error:
            raise StackError(f"supervisord did not carry out {method}: {error!r}") from error
        return result

    def running(self) -> bool:
        """Whether supervisord itself is up."""
        try:
            return bool(self.call("getState")["statename"] == "RUNNING")
        except StackError:
            return False

    def info(self, program: str) -> dict[str, Any]:
        """What supervisord knows of a program: ``pid`` (0 when it does not run), ``statename``, ...

        Raises:
            StackError: supervisord does not answer or does not know the program.
        """
        return dict(self.call("getProcessInfo", program))

    def restart(self, program: str, timeout_s: float) -> None:
        """Stop a program and start it again; either may take ``timeout_s`` seconds.

        Raises:
            StackError: supervisord does not answer, or the program does not come up.
        """
        if self.info(program)["pid"]:
            self.call("stopProcess", program, timeout_s=timeout_s)
        self.call("startProcess", program, timeout_s=timeout_s)
