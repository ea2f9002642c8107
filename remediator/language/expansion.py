"""A text with its vars put in, and the question whether a label could break out of its quotes.

Called by `text_checks`. `model.template` escapes a label's value for PromQL's double quotes, which
helps only where there are double quotes, around what a label is compared with; this module proves
that there are. The surprise: a var is put in as it stands, so what counts is the place where its
text ends up and not where it is written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from remediator.language.promql import MAX_LENGTH
from remediator.language.templates import Template, templates_in
from remediator.language.tree import Node

# What a label's value is replaced with to read a query: it is a name and a regular expression.
PLACEHOLDER = "x"
# What stands before the value of a label, without blanks and comments.
_REGEX_MATCHER = re.compile(r"[=!]~$")
_MATCHER = re.compile(r"=$")
_METRIC = re.compile(r"__name__!?=$")
# The longest of these is `__name__!=`.
_REMEMBERED = 10


class TooLongError(ValueError):
    """The text grows beyond `MAX_LENGTH` when its vars are put in."""


@dataclass(frozen=True)
class Piece:
    """A stretch of expanded text: literal, or one template that waits for an alert.

    Attributes:
        text: the characters, or the template as written.
        origin: the value in the playbook that it comes from.
        template: the template, or None for literal text.
    """

    text: str
    origin: Node
    template: Template | None = None


def expand(node: Node, known: Mapping[str, Node]) -> list[Piece]:
    """Return the text of `node` with every `${{ vars.NAME }}` replaced by that var's own text.

    Raises:
        TooLongError: the result would be longer than `MAX_LENGTH`.
    """
    pieces: list[Piece] = []
    size = 0
    for piece in _expand(node, known):
        # One is added so that nothing, doubled often enough, counts as something.
        size += len(piece.text) + 1
        if size > MAX_LENGTH:
            raise TooLongError(f"longer than {MAX_LENGTH} characters when its vars are put in")
        pieces.append(piece)
    return pieces


def _expand(node: Node, known: Mapping[str, Node]) -> Iterator[Piece]:
    text = node.value if isinstance(node.value, str) else str(node.value)
    done = 0
    for template in templates_in(text):
        yield Piece(text[done : template.start], node)
        done = template.end
        var = known.get(template.var or "")
        if var is None:
            yield Piece(template.text, node, template)
        else:
            # A var sees only those above it, which also keeps this from running in circles.
            names = list(known)
            above = names[: names.index(template.var or "")]
            yield from _expand(var, {name: known[name] for name in above})
    yield Piece(text[done:], node)


def fill(pieces: list[Piece]) -> str:
    """Return the expanded text with a placeholder for every template."""
    return "".join(PLACEHOLDER if piece.template else piece.text for piece in pieces)


def exposed(pieces: list[Piece]) -> Iterator[tuple[Piece, str, str]]:
    """Yield every template of a query through which a label could change it, with why and a hint.

    A template is safe between PromQL's double quotes, and nowhere else.
    """
    scan = _Scan()
    for piece in pieces:
        if piece.template is None:
            scan.read(piece.text)
        elif problem := scan.problem(piece.template):
            yield piece, *problem


class _Scan:
    """Where in PromQL's grammar of strings and comments we stand."""

    def __init__(self) -> None:
        self._quote = ""
        self._escaped = False
        # The last characters outside quotes, and those before the quotes we are in.
        self._outside = ""
        self._before = ""

    def read(self, text: str) -> None:
        for character in text:
            if self._escaped:
                self._escaped = False
            elif self._quote:
                self._inside(character)
            elif character in "\"'`#":
                self._quote = character
                if character != "#":
                    self._before, self._outside = self._outside, ""
            elif not character.isspace():
                self._outside = (self._outside + character)[-_REMEMBERED:]

    def _inside(self, character: str) -> None:
        if self._quote == "#":
            self._quote = "" if character == "\n" else "#"
        elif character == "\\" and self._quote != "`":
            self._escaped = True
        elif character == self._quote:
            self._quote = ""

    def problem(self, template: Template) -> tuple[str, str] | None:
        if self._quote != '"':
            return (
                f"{template.text} outside double quotes: a label could change the query",
                'write it as a label\'s value: {instance="${{ target.instance }}"}',
            )
        if self._escaped:
            return f"a backslash before {template.text} would open its quotes", "delete it"
        if any(name[0] == "vars" for name in template.names):
            return f"in a query a var stands by itself, not as in {template.text}", _BY_ITSELF
        if all(name[0] == "target" for name in template.names):
            return None
        return self._foreign(template)

    def _foreign(self, template: Template) -> tuple[str, str] | None:
        """Say what a label must not decide, though its quotes hold."""
        if _REGEX_MATCHER.search(self._before):
            return (
                f"{template.text} would be read as a regular expression, and a label may hold .*",
                'compare with = or write a target\'s name: {instance="${{ target.instance }}"}',
            )
        if _METRIC.search(self._before):
            return f"{template.text} would choose the metric", "write its name out"
        if not _MATCHER.search(self._before):
            return f"{template.text} is not what a label is compared with", _COMPARED
        return None


_BY_ITSELF = "write ${{ vars.NAME }}, and its default where the var is written"
_COMPARED = 'write {instance="${{ alert.labels.instance }}"}, or a target\'s name'
