"""What can be said about the texts of a playbook one by one: templates, and PromQL with its vars.

Called by the loader before the models are built, so that a mistake in a query is reported together
with a mistake in a key. The surprise: a query that is nothing but `${{ vars.NAME }}` is judged
where the var is written, once, however often it is used.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from remediator.language import promql
from remediator.language.expansion import Piece, TooLongError, expand, exposed, fill
from remediator.language.finding import MAX_FINDINGS, Finding
from remediator.language.shape import TextField, dotted, texts_in
from remediator.language.templates import ROOTS, SHADOWED, Template, name_problem, templates_in
from remediator.language.tree import Node

MAX_VARS = 100
MAX_TEXTS = 1000
_VAR_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_QUOTED = re.compile(r"'(\w+)'")


def check_texts(root: Node) -> list[Finding]:
    """Return what is wrong with the texts of a playbook: all of it, or `MAX_FINDINGS` and a few."""
    known = vars_of(root)
    if len(known) > MAX_VARS:
        place = root.keys["vars"]
        return [Finding(*place, f"{len(known)} vars; {MAX_VARS} at most", "leave some out")]
    found = [*_check_var_names(root)]
    used: set[str] = set()
    for index, text in enumerate(texts_in(root)):
        if index == MAX_TEXTS:
            line, column = text.node.line, text.node.column
            return [Finding(line, column, f"more than {MAX_TEXTS} texts", "split the playbook")]
        if len(found) >= MAX_FINDINGS:
            return found
        for template in templates_in(str(text.node.value)):
            found += _check_template(text, template, known)
            used |= {name[1] for name in template.names if name[0] == "vars" and len(name) > 1}
        try:
            pieces = expand(text.node, _above(text, known))
        except TooLongError as error:
            # Whatever uses this text is too long as well; saying it once is enough.
            return [*found, Finding(text.node.line, text.node.column, str(error), "shorten it")]
        if text.is_promql:
            found += _check_query(text.node, pieces, known)
        if _is_scheduled(text):
            found += _check_scheduled(text, pieces)
    # Beside a mistyped name, the name that was meant looks unused.
    for name in known.keys() - used if not found else ():
        line, column = root.value["vars"].keys[name]
        found.append(Finding(line, column, f"vars.{name} is never used", "delete it", fatal=False))
    return list(dict.fromkeys(found))


def vars_of(root: Node) -> dict[str, Node]:
    """Return the vars of a playbook that hold a single value, in the order written."""
    node = root.get("vars")
    children = node.value if node and isinstance(node.value, dict) else {}
    return {k: v for k, v in children.items() if not isinstance(v.value, dict | list | None)}


def filled_query(query: str, known: Mapping[str, Node]) -> str | None:
    """Return a query with its vars put in and placeholders for labels; None when it cannot be."""
    try:
        return fill(expand(Node(0, 0, query), known))
    except TooLongError:
        return None


def _check_var_names(root: Node) -> Iterator[Finding]:
    for name in vars_of(root):
        line, column = root.value["vars"].keys[name]
        if not _VAR_NAME.fullmatch(name):
            yield Finding(line, column, f"{name!r} cannot be a var", "use letters, digits and _")
        elif name in SHADOWED:
            yield Finding(line, column, f"a var cannot be called {name!r}", "choose another name")


def _check_template(
    text: TextField, template: Template, known: Mapping[str, Node]
) -> Iterator[Finding]:
    # Placed only when there is something to say: a place is searched for in the source.
    for message, hint in _template_problems(text, template, known):
        yield Finding(*text.node.locate(template.start, len(template.text)), message, hint)


def _template_problems(
    text: TextField, template: Template, known: Mapping[str, Node]
) -> Iterator[tuple[str, str]]:
    if not text.is_templated:
        yield f"templates are not filled in in {dotted(text.path)}", "write the value itself"
        return
    if template.problem:
        yield template.problem, template.hint
    above = _above(text, known)
    allowed: tuple[str, ...] = ROOTS
    if text.path == ("target",):
        allowed = ("alert",)
    elif _is_scheduled(text):
        allowed = ("vars",)
    for name in template.names:
        if problem := name_problem(name, vars_known=above, allowed=allowed):
            yield problem


def _is_scheduled(text: TextField) -> bool:
    return text.path[0] == "on" and "schedule" in text.path


def _check_scheduled(text: TextField, pieces: list[Piece]) -> Iterator[Finding]:
    for piece in pieces:
        # What stands in the query itself has been told; this is what a var brings in.
        template = piece.template
        if template is None or piece.origin is text.node:
            continue
        if not template.problem and template.var is None:
            message = f"{piece.text}, which a var brings in, has no value yet here"
            hint = "a schedule looks before any alert"
            yield Finding(text.node.line, text.node.column, message, hint)


def _above(text: TextField, known: Mapping[str, Node]) -> dict[str, Node]:
    names = list(known)
    if text.path[0] == "vars" and len(text.path) > 1 and text.path[1] in known:
        names = names[: names.index(str(text.path[1]))]
    return {name: known[name] for name in names}


def _check_query(node: Node, pieces: list[Piece], known: Mapping[str, Node]) -> Iterator[Finding]:
    unresolved = False
    for piece, message, hint in exposed(pieces):
        unresolved = True
        template = piece.template
        # A name that does not exist has been complained about; it is not an injection besides.
        if template and not template.problem and not _only_unknown_vars(template, known):
            place = piece.origin.locate(template.start, len(template.text))
            yield Finding(*place, message, hint)
    if unresolved or not (query := fill(pieces)).strip():
        return
    judged = _origin(node, known)
    for message, hint in promql.problems(query):
        yield Finding(*_spot(judged, message), message, hint)


def _only_unknown_vars(template: Template, known: Mapping[str, Node]) -> bool:
    return template.var is not None and template.var not in known


def _origin(node: Node, known: Mapping[str, Node]) -> Node:
    found = templates_in(str(node.value))
    if len(found) == 1 and found[0].text == str(node.value).strip():
        return known.get(found[0].var or "", node)
    return node


def _spot(node: Node, message: str) -> tuple[int, int]:
    # promql-parser gives no position; the name it complains about is the next best thing.
    for word in _QUOTED.findall(message):
        if match := re.search(rf"\b{re.escape(word)}\b", str(node.value)):
            return node.locate(match.start(), len(match[0]))
    return node.line, node.column
