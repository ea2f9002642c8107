"""Which texts a playbook holds and what each of them is: its tree walked beside the models.

Called by `text_checks` (which text is PromQL, where may a template stand) and by `complaints`
(which keys would have been right). The surprise: it never fails on a wrong document; what has no
place in the models is skipped, because pydantic complains about it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from remediator.language.tree import Node
from remediator.model.playbook import Playbook
from remediator.model.spec import Escape
from remediator.model.template import escape_of


@dataclass(frozen=True)
class TextField:
    """A text in a playbook.

    Attributes:
        path: its keys and indexes from the top, such as `("steps", 0, "notify", "message")`.
        node: the text and its place.
        escape: how `${{ }}` is filled in here; None = it is not.
    """

    path: tuple[str | int, ...]
    node: Node
    escape: Escape | None

    @property
    def is_promql(self) -> bool:
        """Whether it is a query."""
        return self.escape is Escape.PROMQL

    @property
    def is_templated(self) -> bool:
        """Whether `${{ }}` is filled in here."""
        return self.escape is not None


def texts_in(root: Node) -> Iterator[TextField]:
    """Yield every text of a playbook, in the order of the models' fields."""
    yield from _texts(root, Playbook, (), None)


def keys_at(root: Node, path: tuple[str | int, ...], top: type[BaseModel] = Playbook) -> list[str]:
    """Return the keys that a mapping at `path` may have; none when it is not one of our models."""
    node: Node = root
    annotation: Any = top
    for part in path:
        child = _child(node, part)
        inner = _inner(_model(annotation, node), annotation, part)
        if child is None or inner is None:
            return []
        node, annotation = child, inner
    model = _model(annotation, node)
    return [info.alias or name for name, info in model.model_fields.items()] if model else []


def dotted(path: tuple[str | int, ...]) -> str:
    """Return a path as a person writes it: `steps[0].verify.within`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def _texts(
    node: Node, annotation: Any, path: tuple[str | int, ...], escape: Escape | None
) -> Iterator[TextField]:
    if isinstance(node.value, str):
        yield TextField(path, node, escape)
        return
    model = _model(annotation, node)
    if model is None and path[:1] != ("vars",):
        # Keys that a person chooses are texts, too; nothing is ever filled in in them.
        places = ((key, node.keys[key]) for key in node.keys if "${{" in key)
        yield from (TextField(path, Node(*place, value=key), None) for key, place in places)
    parts = node.value if isinstance(node.value, dict) else range(len(node.items()))
    for part in parts:
        child = _child(node, part)
        inner = _inner(model, annotation, part)
        if child is None or inner is None:
            continue
        info = _field(model, part) if model else None
        yield from _texts(
            child,
            inner,
            (*path, part),
            _escape(model, part, info) if model else escape,
        )


def _child(node: Node, part: str | int) -> Node | None:
    if isinstance(part, str):
        return node.get(part)
    items = node.items()
    return items[part] if part < len(items) else None


def _inner(model: type[BaseModel] | None, annotation: Any, part: str | int) -> Any:
    if model is not None:
        info = _field(model, part)
        return info.annotation if info else None
    for option in _options(annotation):
        if option is Any:
            return Any  # data that nobody interprets, such as a body
        if get_origin(option) is dict and isinstance(part, str):
            return get_args(option)[1]
        if get_origin(option) in {tuple, list} and isinstance(part, int):
            return get_args(option)[0]
    return None


def _options(annotation: Any) -> list[Any]:
    if get_origin(annotation) is Annotated:
        return _options(get_args(annotation)[0])
    if get_origin(annotation) in {Union, UnionType}:
        return [option for argument in get_args(annotation) for option in _options(argument)]
    return [annotation]


def _model(annotation: Any, node: Node) -> type[BaseModel] | None:
    if not isinstance(node.value, dict):
        return None
    options = _options(annotation)
    # `on` may be one trigger where the model has several.
    options += [
        o
        for option in options
        if get_origin(option) is tuple
        for o in _options(get_args(option)[0])
    ]
    models = [
        option for option in options if isinstance(option, type) and issubclass(option, BaseModel)
    ]
    return max(models, key=lambda model: _fit(model, node), default=None)


def _fit(model: type[BaseModel], node: Node) -> int:
    return sum(_field(model, key) is not None for key in node.value)


def _field(model: type[BaseModel], key: str | int) -> FieldInfo | None:
    for name, info in model.model_fields.items():
        if (info.alias or name) == key:
            return info
    return None


def _escape(model: type[BaseModel], key: str | int, info: FieldInfo | None) -> Escape | None:
    if (model, key) == (Playbook, "vars"):
        # What a var holds is escaped as for PromQL, where most of them end up.
        return Escape.PLAIN
    return escape_of(info) if info else None
