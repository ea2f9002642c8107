"""What pydantic complains about, in plain words and at its place in the text.

Called by the loader. The surprise: pydantic says where by a path that also names the members of its
unions; those parts have no place in the text and are dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from remediator.language.finding import MAX_FINDINGS, Finding, did_you_mean, one_of
from remediator.language.shape import dotted, keys_at
from remediator.language.tree import Node
from remediator.model.guard import GUARD_KINDS
from remediator.model.playbook import Playbook
from remediator.model.step import ACTION_KINDS, NO_UNDO, ChangeStep

_TAGGED = {"steps": ACTION_KINDS, "guards": GUARD_KINDS}
# What pydantic calls a type -> what a person calls it.
_WANTED = {
    "bool": "true or false",
    "dict": "a mapping of keys",
    "model": "a mapping of keys",
    "float": "a number",
    "int": "a whole number",
    "list": "a list",
    "tuple": "a list",
    "string": "a text",
    "finite": "a finite number",
}
# What any step may say besides its action.
_COMMON = {info.alias or name for name, info in ChangeStep.model_fields.items()} | {"undo"}


def complaints(
    error: ValidationError,
    root: Node,
    model: type[BaseModel] = Playbook,
    *,
    told: Sequence[Finding] = (),
) -> list[Finding]:
    """Return what a `ValidationError` of `model` says, as findings in the text: the first of it.

    Args:
        error: what pydantic says.
        root: the text.
        model: what the text should have been.
        told: the problems found in it before. What they say already is left out; without them
            there is at least one finding.
    """
    found: dict[tuple[object, ...], Finding] = {}
    details = error.errors(include_url=False)
    for detail in details:
        if len(found) == MAX_FINDINGS:
            break
        path = _path(detail["loc"], root)
        if _is_echo(detail, path, root, model, told):
            continue
        # A value that fits no member of a union is complained about once for each of them.
        key = (path, detail["loc"] if detail["type"] == "missing" else None)
        found.setdefault(key, _finding(detail, path, root, model))
    if not found and not told:
        # A refused text of which nothing is said would look like a good one.
        return [_finding(details[0], _path(details[0]["loc"], root), root, model)]
    return list(found.values())


def _is_echo(
    detail: ErrorDetails,
    path: tuple[str | int, ...],
    root: Node,
    model: type[BaseModel],
    told: Sequence[Finding],
) -> bool:
    """Say whether a complaint only repeats another one in other words."""
    node = _descend(root, path)
    if detail["type"] == "too_short":
        # A list whose items were all refused counts as empty.
        return bool(node.value)
    if detail["type"] == "missing":
        known = keys_at(root, path, model)
        unknown = [key for key in node.keys if key not in known][:MAX_FINDINGS]
        meant = {match for key in unknown for match in get_close_matches(key, known, n=1)}
        return detail["loc"][-1] in meant
    # A template where none is filled in is told by the checks of the texts, and only there: where
    # one may stand they have nothing to say about a text that should be a mapping.
    is_template = isinstance(node.value, str) and "${{" in node.value
    is_told = any(node.covers(finding.line, finding.column) for finding in told)
    return is_template and is_told and detail["type"] != "extra_forbidden"


def _finding(
    detail: ErrorDetails, path: tuple[str | int, ...], root: Node, model: type[BaseModel]
) -> Finding:
    node = _descend(root, path)
    kind = detail["type"]
    if kind == "missing":
        return _missing(path, str(detail["loc"][-1]), node, model)
    if kind == "extra_forbidden":
        return _unknown_key(path, root, model)
    if kind == "union_tag_not_found":
        return _no_kind(path, node)
    message, hint = _words(detail, node, of_matcher=bool({"alerts", "matchers"} & set(path)))
    if path[-1:] == ("undo",):
        hint = hint or "write the call that takes it back, or none"
    if path[:1] == ("vars",) and len(path) > 1:
        message, hint = f"{_shown(node.value)} is not a single value", "quote it, if it is a query"
        if isinstance(node.value, float):
            message, hint = f"{_shown(node.value)} is not a finite number", ""
    where = dotted(path)
    return Finding(node.line, node.column, f"{where}: {message}" if where else message, hint)


def _path(loc: tuple[int | str, ...], root: Node) -> tuple[str | int, ...]:
    if len(loc) > 2 and loc[0] in _TAGGED and isinstance(loc[1], int):  # noqa: PLR2004 (list, index, tag)
        loc = (*loc[:2], *loc[3:])
    path: list[str | int] = []
    node = root
    for part in loc:
        is_key = isinstance(node.value, dict) and part in node.value
        is_index = isinstance(node.value, list) and isinstance(part, int) and part < len(node.value)
        if is_key or is_index:
            node = node.value[part]
            path.append(part)
    return tuple(path)


def _descend(root: Node, path: tuple[str | int, ...]) -> Node:
    node: Any = root
    for part in path:
        node = node.value[part]
    return node if isinstance(node, Node) else root


def _missing(path: tuple[str | int, ...], key: str, node: Node, model: type[BaseModel]) -> Finding:
    where = dotted(path) or f"the {_called(model)}"
    return Finding(node.line, node.column, f"{where} needs {key!r}", f"add {key}:")


def _called(model: type[BaseModel]) -> str:
    return "playbook" if model is Playbook else "file of tests"


def _unknown_key(path: tuple[str | int, ...], root: Node, model: type[BaseModel]) -> Finding:
    *above, key = path
    parent = _descend(root, tuple(above))
    line, column = parent.keys.get(str(key), (parent.line, parent.column))
    where = dotted(tuple(above)) or f"a {_called(model)}"
    for name, kinds in _TAGGED.items():
        if above[:1] == [name] and len(above) == 2 and key in kinds:  # noqa: PLR2004 (list, index)
            first, second = [kind for kind in parent.value if kind in kinds][:2]
            message = f"{where} has both {first!r} and {second!r}"
            hint = f"begin another list item: - {second}:"
            return Finding(*parent.keys[second], message, hint)
    keys = keys_at(root, tuple(above), model)
    hint = did_you_mean(str(key), keys, otherwise=f"keys here: {', '.join(keys)}")
    return Finding(line, column, f"{where} has no key {key!r}", hint)


def _no_kind(path: tuple[str | int, ...], node: Node) -> Finding:
    kinds = _TAGGED[str(path[0])]
    word = "an action" if path[0] == "steps" else "a guard"
    if not isinstance(node.value, dict):
        value = str(node.value)
        hint = did_you_mean(value, kinds, otherwise=f"write {one_of(kinds)}")
        return Finding(node.line, node.column, f"{dotted(path)} is not {word}: {value!r}", hint)
    for key in node.value:
        if key not in _COMMON or path[0] == "guards":
            hint = did_you_mean(key, kinds, otherwise=one_of(kinds))
            return Finding(*node.keys[key], f"{key!r} is not {word}", hint)
    return Finding(node.line, node.column, f"{dotted(path)} has no action", f"add {one_of(kinds)}")


def _words(detail: ErrorDetails, node: Node, *, of_matcher: bool) -> tuple[str, str]:
    kind, context = detail["type"], detail.get("ctx", {})
    said = _shown(node.value)
    words = str(detail["msg"]).lower(), ""
    if kind == "value_error":
        hint = _matcher_hint(node.value) if of_matcher else ""
        words = str(context.get("error", detail["msg"])), hint
    elif kind in {"enum", "literal_error"}:
        words = _not_among(node.value, str(context["expected"]))
    elif kind == "string_pattern_mismatch":
        words = f"{said} is not a name", "use a-z, 0-9 and -, a letter first, 63 at most"
    elif kind in {"string_too_short", "too_short"}:
        words = "must not be empty", ""
    elif kind in _BOUNDS:
        words = f"{said} is not {_BOUNDS[kind](context)}", ""
    elif wanted := next((words for name, words in _WANTED.items() if kind.startswith(name)), ""):
        words = _wrong_type(said, wanted, node.value, of_matcher=of_matcher)
    return words


def _not_among(value: Any, expected: str) -> tuple[str, str]:
    words = expected.replace("'", "").replace(" or ", ", ").split(", ")
    if len(words) == 1:
        return f"{_shown(value)} is not known", f"write {words[0]}"
    hint = did_you_mean(str(value), words)
    return f"{_shown(value)} is not {one_of(words)}", hint


_BOUNDS: dict[str, Callable[[dict[str, Any]], str]] = {
    "greater_than": lambda context: f"greater than {context['gt']:g}",
    "greater_than_equal": lambda context: f"{context['ge']:g} or more",
    "less_than": lambda context: f"less than {context['lt']:g}",
    "less_than_equal": lambda context: f"{context['le']:g} or less",
}


def _wrong_type(said: str, wanted: str, value: Any, *, of_matcher: bool) -> tuple[str, str]:
    hint = ""
    if wanted == "a mapping of keys" and value is None:
        hint = "write {} where nothing is to be said"
    elif wanted == "a mapping of keys":
        hint = did_you_mean(str(value), ("restore", "undo", NO_UNDO))
    elif isinstance(value, dict) and wanted == "a text":
        hint = (of_matcher and _matcher_hint(value)) or "quote a text that holds ': '"
    elif wanted == "a list":
        hint = "begin each item with '- '"
    elif wanted == "a text" and value is not None:
        hint = f"quote it: '{value}'"
    return f"{said} is not {wanted}", hint


def _matcher_hint(value: Any) -> str:
    if isinstance(value, dict) and len(value) == 1:
        ((key, child),) = value.items()
        if isinstance(child, Node) and isinstance(child.value, str):
            return f"write '{key}=\"{child.value}\"'"
    if isinstance(value, str) and "==" in value:
        return "one = is enough"
    return ""


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if value is None:
        return "nothing"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."  # noqa: PLR2004 (fits on a line)
