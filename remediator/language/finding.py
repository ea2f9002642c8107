"""A finding: something to say about one place in a playbook's text.

Made by every check of this package, turned into a `PlaybookError` by the loader, which alone knows
the file's name. The surprise: findings sort by place, so that a file reads top to bottom.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

from remediator.errors import PlaybookError

# What is told of one file. More helps nobody, and finding it may take longer than anybody waits.
MAX_FINDINGS = 100


@dataclass(frozen=True, order=True)
class Finding:
    """One problem, or one doubt, with its place.

    Attributes:
        line: 1-based line.
        column: 1-based column.
        message: what is wrong.
        hint: what to do about it; may be empty.
        fatal: False for a warning, which does not keep the playbook from serving.
    """

    line: int
    column: int
    message: str
    hint: str = ""
    fatal: bool = True

    def as_error(self, path: str) -> PlaybookError:
        """Return it with the file's name."""
        return PlaybookError(
            self.message, path=path, line=self.line, column=self.column, hint=self.hint
        )


def did_you_mean(word: str, known: Iterable[str], *, otherwise: str = "") -> str:
    """Return `did you mean 'steps'?` for the closest known word, else `otherwise`."""
    close = get_close_matches(word.casefold(), sorted(known), n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else otherwise


def one_of(words: Iterable[str]) -> str:
    """Return `one of a, b, c`."""
    return "one of " + ", ".join(words)
