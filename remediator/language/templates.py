"""What a `${{ }}` template may say, checked before anything is filled in.

Called by `text_checks`. `model.template` fills templates with Jinja2; this module reads the same
text and allows far less of it: a name, and a few filters. The surprise: `alert.labels.items` is a
method of a dict to Jinja2 and not the label `items`, so such names must be written in brackets.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from jinja2 import Environment, TemplateError, nodes

from remediator.language.finding import did_you_mean, one_of

TARGET_FIELDS = ("name", "instance", "job", "pool")
ALERT_FIELDS = ("labels", "annotations")
ROOTS = ("alert", "target", "vars")
FILTERS = ("default", "lower", "replace", "trim", "upper")
MAX_EXPRESSION = 200
# Jinja2 reads brackets by recursion, about a dozen frames a level: 90 of them end in an exception.
MAX_BRACKETS = 30
MAX_TEMPLATES = 200
# Python's dict has these as methods; Jinja2 finds the method before the key.
SHADOWED = frozenset(name for name in dir(dict) if not name.startswith("_"))

_TEMPLATE = re.compile(r"\$\{\{(.*?)\}\}", re.DOTALL)
_BARE = re.compile(r"(?<!\$)\{\{-?\s*(?:alert|target|vars|\$labels)\b")
_ONE_BRACE = re.compile(r"\$\{\s*(?:alert|target|vars)\.")
_ALLOWED = (
    nodes.Name,
    nodes.Getattr,
    nodes.Getitem,
    nodes.Const,
    nodes.Filter,
)
_JINJA = Environment(autoescape=True)  # only parses, never renders


@dataclass(frozen=True)
class Template:
    """One `${{ }}` in a text.

    Attributes:
        start: offset of the `$`.
        text: the whole template, braces and all.
        names: the dotted names in it, such as `("alert", "labels", "instance")`.
        problem: what is wrong with it; empty when nothing is.
        hint: what to do about it.
    """

    start: int
    text: str
    names: tuple[tuple[str, ...], ...] = ()
    problem: str = ""
    hint: str = ""

    @property
    def end(self) -> int:
        """Offset just behind it."""
        return self.start + len(self.text)

    @property
    def var(self) -> str | None:
        """The name of the var when the template is exactly `${{ vars.NAME }}`."""
        match = re.fullmatch(r"\$\{\{\s*vars\.(\w+)\s*\}\}", self.text)
        return match[1] if match else None


def templates_in(text: str) -> list[Template]:
    """Return every template of `text`, in order, each with what is wrong with it by itself.

    A text with more than `MAX_TEMPLATES` has one template, which says so.
    """
    if text.count("${{") > MAX_TEMPLATES:
        problem = f"more than {MAX_TEMPLATES} templates in one text"
        return [Template(text.index("${{"), "${{", problem=problem, hint="leave some out")]
    found = [_read(match) for match in _TEMPLATE.finditer(text)]
    covered = _TEMPLATE.sub(lambda match: " " * len(match[0]), text)
    found += [
        Template(match.start(), "${{", problem="this template is not closed", hint="end it with }}")
        for match in re.finditer(r"\$\{\{", covered)
    ]
    found += [
        Template(match.start(), match[0], problem="a template begins with ${{", hint="add the $")
        for match in _BARE.finditer(covered)
    ]
    found += [
        Template(match.start(), match[0], problem="a template has two braces", hint="write ${{ }}")
        for match in _ONE_BRACE.finditer(covered)
    ]
    return sorted(found, key=lambda template: template.start)


def name_problem(
    name: tuple[str, ...], *, vars_known: Collection[str], allowed: Collection[str] = ROOTS
) -> tuple[str, str] | None:
    """Say what is wrong with a dotted name, as message and hint; None when nothing is.

    Args:
        name: such as `("vars", "p95")`.
        vars_known: the vars that are defined before this place.
        allowed: the roots that have a value at this place.
    """
    root, *rest = name
    if root not in ROOTS:
        hint = did_you_mean(root, ROOTS, otherwise=f"use {one_of(ROOTS)}")
        return f"nothing here is called {root!r}", hint
    if root not in allowed:
        hint = "use alert.labels" if "alert" in allowed else "a schedule looks before any alert"
        return f"{root} has no value yet here", hint
    if not rest:
        return f"{root} alone is not a value", f"write {_example(root)}"
    return _var_problem(rest, vars_known) if root == "vars" else _field_problem(root, rest)


def _field_problem(root: str, rest: list[str]) -> tuple[str, str] | None:
    fields = ALERT_FIELDS if root == "alert" else TARGET_FIELDS
    if rest[0] not in fields:
        hint = did_you_mean(rest[0], fields, otherwise=f"{root} has {', '.join(fields)}")
        return f"{root} has no {rest[0]!r}", hint
    if len(rest) != (2 if root == "alert" else 1):
        return f"{'.'.join((root, *rest))} is not a value", f"write {_example(root)}"
    return None


def _var_problem(rest: list[str], known: Collection[str]) -> tuple[str, str] | None:
    if rest[0] not in known:
        return f"vars.{rest[0]} is not defined above this place", did_you_mean(
            rest[0], known, otherwise="define it under vars; a var may use those above it"
        )
    if len(rest) > 1:
        return f"vars.{rest[0]} is text and has no parts", f"write vars.{rest[0]}"
    return None


def _example(root: str) -> str:
    return {"alert": "alert.labels.NAME", "target": "target.name", "vars": "vars.NAME"}[root]


def _read(match: re.Match[str]) -> Template:
    start, text, inside = match.start(), match[0], match[1]
    if not inside.strip():
        return Template(start, text, problem="an empty template", hint="write alert.labels.NAME")
    too_much = len(inside) > MAX_EXPRESSION or len(re.findall(r"[(\[]", inside)) > MAX_BRACKETS
    if too_much or re.search(r"[{}]|^[-+]|[-+]$", inside):
        return Template(start, text, problem="a template is a name, this is more", hint=_SAY)
    try:
        expression = _expression(inside)
    except (TemplateError, RecursionError) as error:
        said = (error.message if isinstance(error, TemplateError) else "") or "broken syntax"
        problem = f"cannot read this template: {said}"
        return Template(start, text, problem=problem, hint=_SAY)
    names: list[tuple[str, ...]] = []
    problem, hint = _walk(expression, names) or ("", "")
    return Template(start, text, names=tuple(names), problem=problem, hint=hint)


_SAY = f"write a name such as alert.labels.instance; filters: {', '.join(FILTERS)}"


def _expression(inside: str) -> nodes.Node:
    (output,) = _JINJA.parse("{{" + inside + "}}").body
    (expression,) = output.iter_child_nodes()
    return expression


def _walk(node: nodes.Node, names: list[tuple[str, ...]]) -> tuple[str, str] | None:
    if not isinstance(node, _ALLOWED):
        return "a template is a name, this is more", _SAY
    if isinstance(node, nodes.Const):
        return None
    if isinstance(node, nodes.Filter):
        return _filter(node, names)
    name: list[str] = []
    for part in _parts(node):
        if isinstance(part, tuple):
            return part
        name.append(part)
    names.append(tuple(name))
    return None


def _filter(node: nodes.Filter, names: list[tuple[str, ...]]) -> tuple[str, str] | None:
    if node.name not in FILTERS:
        known = did_you_mean(node.name, FILTERS, otherwise=f"filters are {', '.join(FILTERS)}")
        return f"there is no filter {node.name!r}", known
    wanted = {"default": 1, "replace": 2}.get(node.name, 0)
    if len(node.args) != wanted or node.kwargs or node.dyn_args or node.dyn_kwargs:
        return f"{node.name} takes {wanted} values in parentheses", ""
    for child in (node.node, *node.args):
        if child is not None and (problem := _walk(child, names)):
            return problem
    return None


def _parts(node: nodes.Node) -> Iterator[str | tuple[str, str]]:
    if isinstance(node, nodes.Name):
        yield node.name
    elif isinstance(node, nodes.Getattr):
        yield from _parts(node.node)
        if node.attr in SHADOWED:
            hint = f'write ["{node.attr}"] in place of .{node.attr}'
            yield f"{node.attr!r} is not reachable with a dot", hint
        else:
            yield node.attr
    elif isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const):
        yield from _parts(node.node)
        yield str(node.arg.value)
    else:
        yield "a template is a name, this is more", _SAY
