"""YAML text -> a tree of plain values that remembers where each of them stood.

Called by the loader. Reads YAML 1.2 events and builds the values here, because the playbook
language is a small part of YAML: `on` is a word, anchors and tags do not exist, a key stands once.
The surprise: nothing is recursive without a bound and nothing is expanded, so no text, however
hostile, costs more than its own length.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from remediator.language.finding import Finding

# No playbook needs more; a hostile text would.
MAX_BYTES = 256 * 1024
MAX_DEPTH = 40

# YAML 1.2 core schema, https://yaml.org/spec/1.2.2/#1032-tag-resolution
_NULL = {"", "~", "null", "Null", "NULL"}
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?[0-9]{1,300}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
# Half a surrogate cannot be stored; a control character means something to the template engine.
_UNWANTED = re.compile("[\ud800-\udfff\x00-\x08\x0b\x0c\x0e-\x1f]")


@dataclass(frozen=True, eq=False)
class Node:
    """A value and its place.

    Attributes:
        line: 1-based line where the value begins.
        column: 1-based column.
        value: a scalar, a list of nodes, or a dict of nodes by key.
        keys: for a mapping, the place of each key.
        raw: for a scalar, its source text, quotes and all.
    """

    line: int
    column: int
    value: Any
    keys: dict[str, tuple[int, int]] = field(default_factory=dict)
    raw: str = ""

    def plain(self) -> Any:
        """Return the value as plain Python data."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.plain() for child in self.value]
        return self.value

    def get(self, key: str) -> Node | None:
        """Return the child under `key`, or None."""
        found = self.value.get(key) if isinstance(self.value, dict) else None
        return found if isinstance(found, Node) else None

    def items(self) -> list[Node]:
        """Return the children of a list; none for anything else."""
        return list(self.value) if isinstance(self.value, list) else []

    def place(self, *path: str | int) -> tuple[int, int]:
        """Return the line and column of what stands at `path`: a key, or an item of a list.

        What was not written is placed where the nearest thing above it stands. An index is
        skipped where a single value stands for a list of one.
        """
        node, place = self, (self.line, self.column)
        for part in path:
            if isinstance(part, str):
                child = node.get(part)
                if child is None:
                    break
                node, place = child, node.keys[part]
            elif part < len(node.items()):
                node = node.items()[part]
                place = node.line, node.column
        return place

    def covers(self, line: int, column: int) -> bool:
        """Say whether a place lies in the source of this scalar."""
        *before, last = self.raw.split("\n")
        end = (self.line + len(before), len(last) + (0 if before else self.column))
        return (self.line, self.column) <= (line, column) <= end

    def locate(self, offset: int, length: int = 1) -> tuple[int, int]:
        """Return the line and column of a part of a text value.

        Args:
            offset: where the part begins in the value.
            length: how long it is.

        The source differs from the value by quotes, escapes and folding; a part that does not
        stand in the source as it is in the value is placed where the value begins.
        """
        lines = str(self.value)[offset : offset + length].splitlines()
        if not lines or not lines[0]:
            return self.line, self.column
        needle = lines[0]
        start = -1
        for _ in range(str(self.value).count(needle, 0, offset) + 1):
            start = self.raw.find(needle, start + 1)
        if start < 0:
            return self.line, self.column
        before = self.raw[:start]
        newlines = before.count("\n")
        column = start - before.rfind("\n") if newlines else self.column + start
        return self.line + newlines, column


class _NotAPlaybookError(Exception):
    """Carries the finding that ends the reading of a text."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.message)
        self.finding = finding


def read_tree(
    text: str, *, what: str = "playbook", begins: str = "apiVersion: remediator/v1"
) -> tuple[Node | None, list[Finding]]:
    """Return the tree of a YAML text and everything that is wrong with it as YAML.

    The tree is None when the text cannot be read as one mapping.

    Args:
        text: the YAML text.
        what: what it is, for messages.
        begins: how such a text begins, for hints.
    """
    findings: list[Finding] = []
    if len(text.encode("utf-8", "replace")) > MAX_BYTES:
        message = f"the file is larger than {MAX_BYTES // 1024} kB"
        return None, [Finding(1, 1, message, f"a {what} is a page; split it")]
    try:
        return _Reader(text, findings, what, begins).document(), findings
    except _NotAPlaybookError as error:
        return None, [*findings, error.finding]
    except MarkedYAMLError as error:
        return None, [*findings, _syntax(error, text)]
    except (YAMLError, ValueError, OverflowError) as error:
        # The reader refuses control characters, and `\\U` escapes beyond Unicode overflow in chr().
        return None, [*findings, _unreadable(error, text)]


class _Reader:
    """Turns the events of one document into nodes."""

    def __init__(self, text: str, findings: list[Finding], what: str, begins: str) -> None:
        self._text = text
        self._what = what
        self._begins = begins
        self._findings = findings
        self._events: Iterator[Event] = iter(YAML(typ="safe", pure=True).parse(text))

    def document(self) -> Node:
        root: Node | None = None
        for event in self._events:
            if isinstance(event, DocumentStartEvent):
                if root is not None:
                    raise _NotAPlaybookError(
                        _at(event, "a second document begins here", f"one {self._what}, one file")
                    )
                root = self._node(next(self._events), depth=0)
        if root is None or (root.value is None and not root.raw):
            raise _NotAPlaybookError(
                Finding(
                    1,
                    1,
                    "the file is empty",
                    f"a {self._what} begins with {self._begins.partition(':')[0]}",
                )
            )
        if not isinstance(root.value, dict):
            message = f"a {self._what} is a mapping of keys, this is {_kind(root.value)}"
            raise _NotAPlaybookError(
                Finding(root.line, root.column, message, f"begin with {self._begins}")
            )
        return root

    def _node(self, event: Event, *, depth: int) -> Node:
        if depth > MAX_DEPTH:
            raise _NotAPlaybookError(_at(event, "nested too deeply", f"{MAX_DEPTH} levels at most"))
        if isinstance(event, AliasEvent):
            self._complain(
                event, f"*{getattr(event, 'anchor', '')}: aliases are not part of the language"
            )
            return Node(*_place(event), value=None, raw="*")
        self._refuse_anchor_and_tag(event)
        if isinstance(event, MappingStartEvent):
            return self._mapping(event, depth)
        if isinstance(event, SequenceStartEvent):
            return self._sequence(event, depth)
        if isinstance(event, ScalarEvent):
            return self._scalar(event)
        raise _NotAPlaybookError(_at(event, "a value is missing here", "write one"))

    def _mapping(self, start: Event, depth: int) -> Node:
        children: dict[str, Node] = {}
        keys: dict[str, tuple[int, int]] = {}
        while not isinstance(event := next(self._events), MappingEndEvent):
            key = self._node(event, depth=depth + 1)
            value = self._node(next(self._events), depth=depth + 1)
            if isinstance(key.value, dict | list):
                message = f"a key must be a word, this is {_kind(key.value)}"
                hint = "a template needs quotes: '${{ ... }}'"
                self._findings.append(Finding(key.line, key.column, message, hint))
                continue
            if value.value is None and not value.raw:
                # What is left out stands where the next thing begins; its key is where to look.
                value = replace(value, line=key.line, column=key.column)
            # A key is the word as written: `on`, `5` and `null` are keys like any other.
            name = event.value if isinstance(event, ScalarEvent) else str(key.value)
            if name in keys:
                message = f"{name!r} stands twice; first on line {keys[name][0]}"
                self._findings.append(Finding(key.line, key.column, message, "keep one of them"))
                continue
            children[name], keys[name] = value, (key.line, key.column)
        return Node(*_place(start), value=children, keys=keys)

    def _sequence(self, start: Event, depth: int) -> Node:
        children: list[Node] = []
        while not isinstance(event := next(self._events), SequenceEndEvent):
            children.append(self._node(event, depth=depth + 1))
        return Node(*_place(start), value=children)

    def _scalar(self, event: ScalarEvent) -> Node:
        raw = self._text[event.start_mark.index : event.end_mark.index]
        value = event.value
        if unwanted := _UNWANTED.search(value):
            message = f"the character U+{ord(unwanted[0]):04X} cannot stand here"
            self._complain(event, message, hint="delete it")
            value = _UNWANTED.sub("\ufffd", value)
        elif event.style is None:
            value = _resolve(value)
        return Node(*_place(event), value=value, raw=raw)

    def _refuse_anchor_and_tag(self, event: Event) -> None:
        if anchor := getattr(event, "anchor", None):
            self._complain(event, f"&{anchor}: anchors are not part of the language")
        if tag := getattr(event, "tag", None):
            shown = str(tag).replace("tag:yaml.org,2002:", "!!")
            self._complain(
                event, f"{shown}: tags are not part of the language", hint="leave it out"
            )

    def _complain(
        self,
        event: Event,
        message: str,
        hint: str = "write it out; vars keep a query that is used twice",
    ) -> None:
        self._findings.append(_at(event, message, hint))


def _place(event: Event) -> tuple[int, int]:
    return event.start_mark.line + 1, event.start_mark.column + 1


def _at(event: Event, message: str, hint: str) -> Finding:
    return Finding(*_place(event), message, hint)


def _kind(value: Any) -> str:
    if isinstance(value, list):
        return "a list"
    return "a mapping" if isinstance(value, dict) else "a single value"


def _resolve(text: str) -> Any:
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _SPECIAL.fullmatch(text):
        return float(text.replace(".", "", 1))
    return text


def _syntax(error: MarkedYAMLError, text: str) -> Finding:
    problem = str(error.problem or error)
    mark = error.problem_mark or error.context_mark
    if "stream end" in problem or "end of stream" in problem:
        # Something was never closed: where it began says more than where the file ends.
        mark = error.context_mark or mark
    if mark is None:
        return Finding(1, 1, f"not YAML: {error}")
    line, column = mark.line + 1, mark.column + 1
    if text[mark.index : mark.index + 1] == "\t":
        return Finding(line, column, "a tab where YAML wants spaces", "indent with spaces")
    if error.context:
        problem = f"{problem} {error.context}"
    hint = ""
    if "mapping values are not allowed" in problem:
        hint = "quote a value that holds ': ', or check the indentation"
    elif "cannot start any token" in problem:
        hint = "quote the value"
    elif "<block end>" in problem:
        hint = "check the quotes and the indentation"
    return Finding(line, column, f"not YAML: {problem}", hint)


def _unreadable(error: Exception, text: str) -> Finding:
    position = getattr(error, "position", None)
    if isinstance(position, int):
        before = text[:position]
        line, column = before.count("\n") + 1, position - before.rfind("\n")
        character = text[position : position + 1]
        message = f"the character U+{ord(character):04X} cannot stand here" if character else ""
        return Finding(line, column, message or "not YAML", "delete it")
    return Finding(1, 1, f"not YAML: {str(error).splitlines()[0]}")
