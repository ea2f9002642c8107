"""JSON Schema, as far as the playbooks' own schema uses it: which keyword refuses what.

Only for tests. A keyword that is not known here is an error, so that nothing passes unread.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

_TYPES: dict[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "integer": lambda value: _is_number(value) and float(value).is_integer(),
}
_NOTES = {"$schema", "$defs", "default", "description"}


def _is_number(value: Any) -> bool:
    return _TYPES["number"](value)


_CHECKS: dict[str, Callable[[Any, Any], bool]] = {
    "type": lambda limit, value: _TYPES[limit](value),
    "const": lambda limit, value: value == limit,
    "enum": lambda limit, value: value in limit,
    "pattern": lambda limit, value: not isinstance(value, str) or bool(re.search(limit, value)),
    "minLength": lambda limit, value: not isinstance(value, str) or len(value) >= limit,
    "minItems": lambda limit, value: not isinstance(value, list) or len(value) >= limit,
    "minProperties": lambda limit, value: not isinstance(value, dict) or len(value) >= limit,
    "minimum": lambda limit, value: not _is_number(value) or value >= limit,
    "maximum": lambda limit, value: not _is_number(value) or value <= limit,
    "exclusiveMinimum": lambda limit, value: not _is_number(value) or value > limit,
    "required": lambda keys, value: not isinstance(value, dict) or set(keys) <= set(value),
}


def accepts(schema: Mapping[str, Any], value: Any, *, root: Mapping[str, Any]) -> bool:
    """Say whether `schema`, a part of `root`, accepts a value."""
    return all(_keyword(name, limit, schema, value, root) for name, limit in schema.items())


def _keyword(
    name: str, limit: Any, schema: Mapping[str, Any], value: Any, root: Mapping[str, Any]
) -> bool:
    if name in _NOTES:
        return True
    if name == "$ref":
        return accepts(root["$defs"][limit.removeprefix("#/$defs/")], value, root=root)
    if name in {"anyOf", "oneOf"}:
        met = sum(accepts(option, value, root=root) for option in limit)
        return met == 1 if name == "oneOf" else met > 0
    if name in {"properties", "additionalProperties", "items"}:
        return all(
            part is True or (part is not False and accepts(part, inner, root=root))
            for part, inner in _inside(name, limit, schema, value)
        )
    return _CHECKS[name](limit, value)


def _inside(
    name: str, limit: Any, schema: Mapping[str, Any], value: Any
) -> Iterator[tuple[Any, Any]]:
    if name == "items":
        yield from ((limit, item) for item in (value if isinstance(value, list) else ()))
    elif isinstance(value, dict):
        known = schema.get("properties", {})
        for key, inner in value.items():
            if name == "properties" and key in known:
                yield known[key], inner
            elif name == "additionalProperties" and key not in known:
                yield limit, inner
