"""The error tree. Adapters raise these and nothing else; library errors never leave an adapter.

    RemediatorError
    ├── ConfigurationError        the configuration cannot work; exit 2 with one line
    ├── PlaybookError             a playbook file is wrong: file:line:column, message, hint
    ├── PayloadError              a body that can never be an Alertmanager v4 webhook
    ├── StoreUnavailableError     nothing could be committed; answer 503, try again
    ├── FencedError               somebody else owns this run now; stop touching it
    │   └── OvertakenError        it is ours, but somebody had a word since we read it
    └── EffectError               a call to the outside did not plainly succeed
        ├── TemporaryError        definitely not applied; may be sent again
        ├── PermanentError        definitely not applied; sending again will not help
        │   └── RefusedError      the target said no, with a named reason
        └── OutcomeUnknownError   it may have been applied; never guess

The surprise: the three leaves of EffectError answer "was it applied?", not "whose fault was it?",
because that is the only question the journal needs answered (design, section 4).
"""

from __future__ import annotations


class RemediatorError(Exception):
    """Anything Remediator raises on purpose."""


class ConfigurationError(RemediatorError):
    """The configuration cannot work. The message says which setting and what to do."""


class PlaybookError(RemediatorError):
    """One problem in one playbook file.

    Attributes:
        path: the file as the user named it.
        line: 1-based line, or 0 when the problem has no place in the text.
        column: 1-based column, or 0.
        message: what is wrong.
        hint: what to do about it; may be empty.
    """

    def __init__(
        self, message: str, *, path: str = "", line: int = 0, column: int = 0, hint: str = ""
    ) -> None:
        super().__init__(message)
        self.path = path
        self.line = line
        self.column = column
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        where = f"{self.path}:{self.line}:{self.column}: " if self.path else ""
        return f"{where}{self.message}" + (f" ({self.hint})" if self.hint else "")


class PayloadError(RemediatorError):
    """A webhook body that can never be an Alertmanager v4 payload."""


class StoreUnavailableError(RemediatorError):
    """The journal could not commit (disk full, locked, unreachable). Nothing was stored."""


class FencedError(RemediatorError):
    """The run is owned by another process, or closed. Whoever sees this stops at once."""


class OvertakenError(FencedError):
    """Somebody had a word (stop, kill, cancel) since the run was read. Read again, then go on."""


class EffectError(RemediatorError):
    """A call to the outside did not plainly succeed."""


class TemporaryError(EffectError):
    """Definitely not applied; may be sent again after `retry_after` seconds."""

    def __init__(self, message: str, *, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class PermanentError(EffectError):
    """Definitely not applied, and sending it again will not help."""


class RefusedError(PermanentError):
    """The target understood and said no.

    Attributes:
        reason: `pinned`, `leased`, `fencing`, `generation`, `invalid`, `unauthorized`, ...
        detail: what the target answered, for the record.
    """

    def __init__(
        self, message: str, *, reason: str, detail: dict[str, object] | None = None
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.detail = detail or {}


class OutcomeUnknownError(EffectError):
    """The call was sent, or may have been, and no answer proves what happened."""
