"""The language described from its own models: a JSON Schema, and the tables in the docs.

Called by `remediator schema`, and by what keeps docs/playbook-language.md true. The surprise:
pydantic describes what a model holds and not the short forms that are accepted, so those three are
added here.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from pydantic import BaseModel, TypeAdapter

from remediator.language.examples import GUARD_EXAMPLES, STEP_EXAMPLES
from remediator.model.duration import WRITTEN, format_duration
from remediator.model.guard import GUARDS
from remediator.model.playbook import Playbook
from remediator.model.step import STEPS, Step

BEGIN = "<!-- generated: reference -->"
END = "<!-- end of generated: reference -->"

_ISO_DURATION = TypeAdapter(timedelta)
_PLACE = "#/$defs/"
_BEFORE_GUARDS = ("Playbook", "Trigger", "Schedule", "Condition")
# Keys whose values are described by sections of their own.
_LISTS = {"guards": "list of [guards](#guards)", "steps": "list of [steps](#steps)"}
# The model inside a guard or an action -> that guard or action.
_INNER = {
    str(getattr(models[kind].model_fields[kind].annotation, "__name__", "")): kind
    for models in (GUARDS, STEPS)
    for kind in models
    if kind != "require"  # a condition stands in many other places, too
}
_MODELS = {model.__name__ for models in (GUARDS, STEPS) for model in models.values()}
_TOLD = {*_BEFORE_GUARDS, *_INNER, *_MODELS}

_Parts = dict[str, Any]


def schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a playbook as it may be written."""
    document: dict[str, Any] = _plain(Playbook.model_json_schema(by_alias=True))
    properties = document["properties"]
    properties["on"] = _or_short(properties["on"], {"$ref": f"{_PLACE}Trigger"})
    properties["on_resolve"] = _or_short(properties["on_resolve"], {"const": "restore"})
    properties["on_failure"] = _or_short(properties["on_failure"], {"const": "undo"})
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **document}


def reference() -> str:
    """Return markdown for every part of a playbook: itself, its guards, its steps, their parts."""
    document = schema()
    parts = {"Playbook": document, **document["$defs"]}
    before, after = _BEFORE_GUARDS, [n for n in _in_reading_order(document) if n not in _TOLD]
    lines = [line for name in before for line in _section(name, parts)]
    lines += ["### Guards", "", "All must hold; in alphabetical order.", ""]
    for kind in sorted(GUARDS):
        lines += _kind_section(kind, GUARDS[kind].__name__, GUARD_EXAMPLES[kind], parts)
    lines += ["### Steps", "", "One action each; in alphabetical order. Every step may say:", ""]
    lines += _table(_rows(_common(parts), parts))
    for kind in sorted(STEPS):
        lines += _kind_section(kind, STEPS[kind].__name__, STEP_EXAMPLES[kind], parts)
    for name in after:
        lines += _section(name, parts) if "properties" in parts[name] else []
    return "\n".join(lines)


def tables(model: type[BaseModel]) -> str:
    """Return markdown for a model and every part of it, in reading order."""
    name = model.__name__
    document: dict[str, Any] = _plain(model.model_json_schema(by_alias=True))
    parts = {name: document, **document["$defs"]}
    found = [part for part in _in_reading_order(document, name) if "properties" in parts[part]]
    return "\n".join(line for part in found for line in _section(part, parts))


def with_reference(text: str, told: str | None = None) -> str:
    """Return a document with what is between its markers brought up to date.

    Args:
        text: the document.
        told: what belongs there; by default the reference of the playbook language.

    Raises:
        ValueError: a marker is missing.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the document needs both {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{reference() if told is None else told}\n{END}{after}"


def _plain(node: Any) -> Any:
    if isinstance(node, list):
        return [_plain(item) for item in node]
    if not isinstance(node, dict):
        return node
    # Pydantic writes a duration's default in ISO 8601, which the language does not read.
    return {
        key: _duration(value) if key == "default" and str(value).startswith("PT") else _plain(value)
        for key, value in node.items()
        if not (key == "title" and isinstance(value, str))
    }


def _duration(iso: str) -> str:
    return format_duration(_ISO_DURATION.validate_python(iso))


def _or_short(part: dict[str, Any], short: dict[str, Any]) -> dict[str, Any]:
    outside = {key: value for key, value in part.items() if key in {"description", "default"}}
    inside = {key: value for key, value in part.items() if key not in outside}
    return {**outside, "anyOf": [short, *inside.get("anyOf", [inside])]}


def _in_reading_order(document: dict[str, Any], top: str = "Playbook") -> list[str]:
    order = [top]
    for name in order:
        part = document if name == top else document["$defs"][name]
        found = dict.fromkeys(_references(part.get("properties", {})))
        order += [reference for reference in found if reference not in order]
    return order


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, list):
        for item in node:
            yield from _references(item)
    elif isinstance(node, dict):
        if "$ref" in node:
            yield str(node["$ref"]).removeprefix(_PLACE)
        for value in node.values():
            yield from _references(value)


def _section(name: str, parts: _Parts) -> list[str]:
    lines = [f"### {name}", ""]
    if description := _summary(parts[name]):
        lines += [description, ""]
    return lines + _table(_rows(parts[name], parts))


def _kind_section(kind: str, name: str, example: str, parts: _Parts) -> list[str]:
    """Describe a guard or a step: the keys of its value as `kind.key`, then those beside it."""
    part = parts[name]
    value = part["properties"][kind]
    inner = str(value.get("$ref", "")).removeprefix(_PLACE)
    rows = _rows(parts[inner], parts, under=f"{kind}.") if inner else []
    common = set() if kind in GUARDS else set(Step.model_json_schema()["properties"])
    own = {key: prop for key, prop in part["properties"].items() if key not in common}
    if inner:
        del own[kind]
    rows += _rows({"properties": own, "required": part.get("required", [])}, parts)
    summary = _summary(part).removeprefix(f"`{kind}:` ")
    summary = summary[:1].upper() + summary[1:]
    lines = [f"#### {kind}", "", summary, "", "```yaml", example, "```", ""]
    return lines + (_table(rows) if rows else [])


def _summary(part: dict[str, Any]) -> str:
    return str(part.get("description", "")).split("\n\n")[0].replace("\n", " ")


def _common(parts: _Parts) -> dict[str, Any]:
    step = parts["NotifyStep"]
    return {"properties": {k: prop for k, prop in step["properties"].items() if k != "notify"}}


def _rows(part: dict[str, Any], parts: _Parts, *, under: str = "") -> list[tuple[str, ...]]:
    required = part.get("required", [])
    return [
        (
            f"`{under}{key}`",
            _LISTS.get(key) or _kind(prop, parts),
            "required" if key in required else _default(prop),
            str(prop.get("description", _described(prop, parts))).replace("\n", " "),
        )
        for key, prop in part["properties"].items()
    ]


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    if not rows:
        return []
    told = (" | ".join(cell.replace("|", "\\|") for cell in row) for row in rows)
    head = ["| Key | Value | Default | Meaning |", "|---|---|---|---|"]
    return [*head, *(f"| {line} |" for line in told), ""]


def _default(prop: dict[str, Any]) -> str:
    value = prop.get("default")
    if value in (None, "", [], {}):
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _described(prop: dict[str, Any], parts: _Parts) -> str:
    name = str(prop.get("$ref", "")).removeprefix(_PLACE)
    return str(parts[name].get("description", "")).split("\n\n")[0] if name in parts else ""


def _kind(prop: dict[str, Any], parts: _Parts) -> str:
    for union in ("anyOf", "oneOf"):
        if union in prop:
            kinds = [_kind(option, parts) for option in prop[union] if option != {"type": "null"}]
            return " or ".join(dict.fromkeys(kinds))
    if "$ref" in prop:
        return _named(str(prop["$ref"]).removeprefix(_PLACE), parts)
    if "const" in prop:
        return f"`{prop['const']}`"
    return _words(prop["enum"]) if "enum" in prop else _simple(prop, parts)


def _words(values: list[str]) -> str:
    return ", ".join(f"`{value}`" for value in values)


def _simple(prop: dict[str, Any], parts: _Parts) -> str:
    name = str(prop.get("type", ""))
    if name == "array":
        return f"list of {_kind(prop['items'], parts)}"
    if name == "object":
        inside = prop["additionalProperties"]
        return f"mapping to {_kind(inside, parts)}" if isinstance(inside, dict) else "mapping"
    if prop.get("pattern") == WRITTEN:
        return "duration"
    words = {"string": "text", "integer": "whole number", "boolean": "true or false"}
    return words.get(name, name) + _bounds(prop)


def _named(name: str, parts: _Parts) -> str:
    if "enum" in parts[name]:
        return _words(parts[name]["enum"])
    place = _INNER.get(name, name)
    return f"[{place}](#{place.lower()})"


def _bounds(prop: dict[str, Any]) -> str:
    least, most = prop.get("minimum"), prop.get("maximum")
    if "exclusiveMinimum" in prop:
        upto = "" if most is None else f", {most:g} at most"
        return f", greater than {prop['exclusiveMinimum']:g}{upto}"
    if least is not None and most is not None:
        return f", {least} to {most}"
    return "" if least is None else f", {least} or more"
