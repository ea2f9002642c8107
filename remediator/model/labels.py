"""Labels and matchers, with Alertmanager's own syntax and meaning.

Called by dispatch (does this alert concern that playbook?) and by the playbook models. The
surprise, as in Alertmanager: a missing label equals the empty string, and regular expressions are
anchored at both ends.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

Labels = Mapping[str, str]

_MATCHER = re.compile(
    r"""\s*(?P<name>[a-zA-Z_][a-zA-Z0-9_]*)\s*(?P<op>=~|!~|!=|=)\s*"""
    r"""(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<bare>[^\s"',{}]+))\s*""",
    re.VERBOSE,
)
# No real label has this value; a matcher that accepts it accepts everything.
_ANY_VALUE = "\u2400 no label has this value"
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
            try:
                re.compile(value)
            except re.error as error:
                msg = f"{value!r} is not a regular expression: {error}"
                raise ValueError(msg) from error
        return cls(name=match["name"], op=match["op"], value=value)

    def matches(self, labels: Labels) -> bool:
        """Say whether `labels` meet this condition."""
        actual = labels.get(self.name, "")
        if self.op == "=":
            return actual == self.value
        if self.op == "!=":
            return actual != self.value
        found = self._regex.fullmatch(actual) is not None
        return found if self.op == "=~" else not found

    @cached_property
    def _regex(self) -> re.Pattern[str]:
        return re.compile(self.value)

    def __str__(self) -> str:
        escaped = self.value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f'{self.name}{self.op}"{escaped}"'


def _unescape(match: re.Match[str]) -> str:
    # Alertmanager knows \n, \" and \\; any other escape stays as written (regex classes).
    known = {"n": "\n", '"': '"', "\\": "\\"}
    return known.get(match[1], match[0])


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
