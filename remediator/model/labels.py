"""Labels and matchers, with Alertmanager's own syntax and meaning.

Called by dispatch (does this alert concern that playbook?) and by the playbook models. The
surprise, as in Alertmanager: a missing label equals the empty string, and regular expressions are
RE2's, anchored at both ends. With Python's own an alert's label could hold up everything for ever;
RE2 takes time in proportion to the label, whatever the expression.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import re2

Labels = Mapping[str, str]

_MATCHER = re.compile(
    r"""\s*(?P<name>[a-zA-Z_][a-zA-Z0-9_]*)\s*(?P<op>=~|!~|!=|=)\s*"""
    r"""(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<bare>[^\s"',{}]+))\s*""",
    re.VERBOSE,
)
# No real label has this value; a matcher that accepts it accepts everything.
_ANY_VALUE = "\u2400 no label has this value"
# Reading one takes RE2 up to the square of its length: 0.1 s for this one, 8 s for ten times that.
MAX_EXPRESSION = 10_000
# Characters of an expression that fit into a sentence.
_FITS = 60
_ESCAPE = re.compile(r"\\(.)")


@dataclass(frozen=True)
class Matcher:
    """One condition on one label: `name op value`."""

    name: str
    op: str
    value: str

    @classmethod
    def parse(cls, text: str) -> Matcher:
        """Read a matcher in Alertmanager's syntax, such as `severity=~"warning|critical"`.

        Raises:
            ValueError: not a matcher, or its regular expression does not compile.
        """
        match = _MATCHER.fullmatch(text)
        if match is None:
            msg = f'{text!r} is not a matcher; write it like alertname="DetectorSlow"'
            raise ValueError(msg)
        if match["bare"] is not None:
            value = match["bare"]
        else:
            value = _ESCAPE.sub(_unescape, match["quoted"])
        if match["op"] in {"=~", "!~"}:
            _compiled(value)
        return cls(name=match["name"], op=match["op"], value=value)

    def matches(self, labels: Labels) -> bool:
        """Say whether `labels` meet this condition."""
        actual = labels.get(self.name, "")
        if self.op == "=":
            return actual == self.value
        if self.op == "!=":
            return actual != self.value
        # What UTF-8 cannot say cannot be asked for either; Alertmanager sends no such label.
        found = _compiled(self.value).fullmatch(actual.encode("utf-8", "replace")) is not None
        return found if self.op == "=~" else not found

    def __str__(self) -> str:
        escaped = self.value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f'{self.name}{self.op}"{escaped}"'


# The expressions of all playbooks and silences; a playbook is asked about every alert.
@lru_cache(maxsize=1024)
def _compiled(expression: str) -> Any:
    if len(expression) > MAX_EXPRESSION:
        msg = f"a regular expression of {len(expression)} characters; {MAX_EXPRESSION} at most"
        raise ValueError(msg)
    options = re2.Options()
    options.log_errors, options.never_capture = False, True
    try:
        return re2.compile(expression.encode("utf-8", "surrogatepass"), options)
    except re2.error as error:
        said = error.args[0].decode("utf-8", "replace").removesuffix(f": {expression}")
        msg = f"{_short(expression)} is not a regular expression of RE2: {said[:_FITS]}"
        raise ValueError(msg) from None


def _short(text: str) -> str:
    return repr(text if len(text) <= _FITS else text[:_FITS] + "...")


def _unescape(match: re.Match[str]) -> str:
    # Alertmanager knows \n, \" and \\; any other escape stays as written (regex classes).
    known = {"n": "\n", '"': '"', "\\": "\\"}
    return known.get(match[1], match[0])


def is_regex(text: str) -> bool:
    """Say whether RE2 can read a regular expression."""
    try:
        _compiled(text)
    except ValueError:
        return False
    return True


def match_all(matchers: Iterable[Matcher], labels: Labels) -> bool:
    """Say whether `labels` meet every one of `matchers`."""
    return all(matcher.matches(labels) for matcher in matchers)


def catches_all(matchers: Iterable[Matcher]) -> bool:
    """Say whether nothing in `matchers` says what a label is, but at most what it is not."""
    return not any(_narrows(matcher) for matcher in matchers)


def _narrows(matcher: Matcher) -> bool:
    if matcher.op not in {"=", "=~"}:
        return False
    return not matcher.matches({}) and not matcher.matches({matcher.name: _ANY_VALUE})
