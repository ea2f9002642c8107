"""The language described from its own models: a JSON Schema, and the tables in the docs.

Called by whoever gives editors a schema to complete YAML with, and by the test that keeps
docs/playbook-language.md true. The surprise: pydantic describes what a model holds and not the
short forms that are accepted, so those two are added here.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from pydantic import TypeAdapter

from remediator.model.duration import format_duration
from remediator.model.playbook import Playbook

BEGIN = "<!-- generated: reference -->"
END = "<!-- end of generated: reference -->"

_ISO_DURATION = TypeAdapter(timedelta)
_PLACE = "#/$defs/"


def schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a playbook as it may be written."""
    document: dict[str, Any] = _plain(Playbook.model_json_schema(by_alias=True))
    properties = document["properties"]
    properties["on"] = _or_short(properties["on"], {"$ref": f"{_PLACE}Trigger"})
    properties["on_resolve"] = _or_short(properties["on_resolve"], {"const": "restore"})
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **document}


def reference() -> str:
    """Return a markdown table for every part of a playbook, the playbook itself first."""
    document = schema()
    parts = {"Playbook": document, **document["$defs"]}
    lines: list[str] = []
    for name in _in_reading_order(document):
        if "properties" in parts[name]:
            lines += _section(name, parts[name], parts)
    return "\n".join(lines)


def with_reference(text: str) -> str:
    """Return a document with the tables between its markers brought up to date.

    Raises:
        ValueError: a marker is missing.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the document needs both {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{reference()}\n{END}{after}"


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


def _in_reading_order(document: dict[str, Any]) -> list[str]:
    order = ["Playbook"]
    for name in order:
        part = document if name == "Playbook" else document["$defs"][name]
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


def _section(name: str, part: dict[str, Any], parts: dict[str, Any]) -> list[str]:
    lines = [f"### {name}", ""]
    if description := part.get("description"):
        lines += [description.split("\n\n")[0].replace("\n", " "), ""]
    if not part["properties"]:
        return [*lines, "It has no keys.", ""]
    lines += ["| Key | Value | Default | Meaning |", "|---|---|---|---|"]
    required = part.get("required", [])
    for key, prop in part["properties"].items():
        default = "required" if key in required else _default(prop)
        meaning = prop.get("description", _described(prop, parts))
        row = (f"`{key}`", _kind(prop, parts), default, meaning.replace("\n", " "))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |")
    return [*lines, ""]


def _default(prop: dict[str, Any]) -> str:
    value = prop.get("default")
    if value in (None, "", [], {}):
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _described(prop: dict[str, Any], parts: dict[str, Any]) -> str:
    name = str(prop.get("$ref", "")).removeprefix(_PLACE)
    return str(parts[name].get("description", "")).split("\n\n")[0] if name in parts else ""


def _kind(prop: dict[str, Any], parts: dict[str, Any]) -> str:
    for union in ("anyOf", "oneOf"):
        if union in prop:
            kinds = [_kind(option, parts) for option in prop[union] if option != {"type": "null"}]
            return " or ".join(dict.fromkeys(kinds))
    if "$ref" in prop:
        return _named(str(prop["$ref"]).removeprefix(_PLACE), parts)
    if "const" in prop:
        return f"`{prop['const']}`"
    return _simple(prop, parts)


def _simple(prop: dict[str, Any], parts: dict[str, Any]) -> str:
    name = str(prop.get("type", ""))
    if name == "array":
        return f"list of {_kind(prop['items'], parts)}"
    if name == "object":
        inside = prop["additionalProperties"]
        return f"mapping to {_kind(inside, parts)}" if isinstance(inside, dict) else "mapping"
    if str(prop.get("pattern", "")).startswith("^([0-9]+(ms"):
        return "duration"
    words = {"string": "text", "integer": "whole number", "boolean": "true or false"}
    return words.get(name, name) + _bounds(prop)


def _named(name: str, parts: dict[str, Any]) -> str:
    if "enum" in parts[name]:
        return ", ".join(f"`{value}`" for value in parts[name]["enum"])
    return f"[{name}](#{name.lower()})"


def _bounds(prop: dict[str, Any]) -> str:
    least, most = prop.get("minimum"), prop.get("maximum")
    if least is not None and most is not None:
        return f", {least} to {most}"
    if least is not None:
        return f", {least} or more"
    return f", greater than {prop['exclusiveMinimum']:g}" if "exclusiveMinimum" in prop else ""
