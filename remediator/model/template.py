"""`${{ }}` templates: Jinja2 in a sandbox, strict, with values escaped where they land in PromQL.

Called by admission to pin a playbook for one alert, and by lint to find mistakes early. The
surprise: escaping depends on where the template stands (`spec.Filled`). A label value put into a
PromQL field has its quotes and backslashes escaped; a `vars` entry does not, because the playbook's
author wrote it and the values inside it were escaped already.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, get_args, get_origin
from urllib.parse import quote

from jinja2 import StrictUndefined, Template, TemplateError, TemplateRuntimeError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from remediator.model.playbook import Playbook
from remediator.model.spec import Escape, Filled

# What is filled in comes from alerts, and `replace` and vars multiply it. No query needs more.
MAX_FILLED = 100_000


class TrustedText(str):
    """Text the playbook's author wrote, with the values in it escaped already."""

    __slots__ = ()


def escape_promql(value: str) -> str:
    """Return `value` fit to stand between double quotes in PromQL."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def escape_url(value: str) -> str:
    """Return `value` as one piece of a URL's path or query: it cannot leave its place.

    Dots alone would be read as "this folder" and "the folder above".
    """
    quoted = quote(value, safe="")
    return quoted.replace(".", "%2E") if set(value) == {"."} else quoted


_ESCAPES: dict[Escape, Callable[[str], str]] = {
    Escape.PROMQL: escape_promql,
    Escape.URL: escape_url,
    Escape.PLAIN: str,
}


def _environment(escape: Escape) -> ImmutableSandboxedEnvironment:
    def finalize(value: Any) -> Any:
        trusted = escape is Escape.PROMQL and isinstance(value, TrustedText)
        return value if trusted or isinstance(value, int | float) else _ESCAPES[escape](str(value))

    environment = ImmutableSandboxedEnvironment(
        variable_start_string="${{",
        variable_end_string="}}",
        # Only expressions: statements and comments get delimiters no one would type.
        block_start_string="\x00%",
        block_end_string="%\x00",
        comment_start_string="\x00#",
        comment_end_string="#\x00",
        undefined=StrictUndefined,
        autoescape=False,
        finalize=finalize,
        keep_trailing_newline=True,
    )
    environment.filters["replace"] = _replace
    return environment


def _replace(value: Any, old: Any, new: Any) -> str:
    text, before, after = str(value), str(old), str(new)
    if len(text) + text.count(before) * (len(after) - len(before)) > MAX_FILLED:
        raise TemplateRuntimeError(_TOO_LONG)
    return text.replace(before, after)


_TOO_LONG = f"longer than {MAX_FILLED} characters when filled in"

_ENVIRONMENTS = {escape: _environment(escape) for escape in Escape}


def has_template(text: str) -> bool:
    """Say whether `text` holds a `${{ }}` expression."""
    return "${{" in text


def render(text: str, values: Mapping[str, Any], *, escape: Escape = Escape.PLAIN) -> str:
    """Fill the templates in `text`.

    Raises:
        ValueError: an undefined name, a forbidden access, broken template syntax, or a result of
            more than `MAX_FILLED` characters.
    """
    if not has_template(text):
        return text
    try:
        return _filled(_ENVIRONMENTS[escape].from_string(text), values)
    except TemplateError as error:
        msg = f"template {text!r}: {error.message or type(error).__name__}"
        raise ValueError(msg) from error
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        # An expression that Jinja2 accepts and Python cannot work out for these values.
        msg = f"template {text!r}: {type(error).__name__}: {error}"
        raise ValueError(msg) from error


def _filled(template: Template, values: Mapping[str, Any]) -> str:
    pieces: list[str] = []
    size = 0
    for piece in template.generate(**values):
        size += len(piece)
        if size > MAX_FILLED:
            raise TemplateRuntimeError(_TOO_LONG)
        pieces.append(piece)
    return "".join(pieces)


def template_values(
    labels: Mapping[str, str], annotations: Mapping[str, str], target: Mapping[str, str]
) -> dict[str, Any]:
    """Return what a template may name: `alert.labels`, `alert.annotations` and `target`."""
    return {
        "alert": {"labels": dict(labels), "annotations": dict(annotations)},
        "target": dict(target),
    }


def render_target(playbook: Playbook, values: Mapping[str, Any]) -> str:
    """Return what the playbook calls its target for this alert.

    Raises:
        ValueError: as `render`.
    """
    return render(playbook.target, values)


def render_playbook(playbook: Playbook, values: Mapping[str, Any]) -> Playbook:
    """Return the playbook with every template filled in: the form a run pins.

    `vars` are filled first, in the order written, each seeing those before it.

    Raises:
        ValueError: as `render`, or the filled-in playbook is no longer valid.
    """
    scope: dict[str, Any] = dict(values)
    filled: dict[str, Any] = {}
    scope["vars"] = filled
    for name, raw in playbook.vars.items():
        # A var may be used inside PromQL, so the values in it are escaped as for PromQL.
        filled[name] = (
            TrustedText(render(raw, scope, escape=Escape.PROMQL)) if isinstance(raw, str) else raw
        )
    document = _render_model(playbook, scope)
    document["vars"] = {k: str(v) if isinstance(v, str) else v for k, v in filled.items()}
    return Playbook.model_validate(document)


def _render_model(model: BaseModel, scope: Mapping[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, info in type(model).model_fields.items():
        value = getattr(model, name)
        if name == "vars" and isinstance(model, Playbook):
            value = {}
        result[info.alias or name] = _render_value(value, scope, escape_of(info))
    return result


def _render_value(value: Any, scope: Mapping[str, Any], escape: Escape | None) -> Any:
    if isinstance(value, BaseModel):
        return _render_model(value, scope)
    if isinstance(value, str) and type(value) is str:
        return value if escape is None else render(value, scope, escape=escape)
    if isinstance(value, tuple | list):
        return [_render_value(item, scope, escape) for item in value]
    if isinstance(value, dict):
        return {key: _render_value(item, scope, escape) for key, item in value.items()}
    return value


def escape_of(info: FieldInfo) -> Escape | None:
    """Return how templates in a field are filled in; None = it holds none."""
    return next((item.escape for item in info.metadata if isinstance(item, Filled)), None) or (
        _escape_in(info.annotation)
    )


def _escape_in(annotation: Any) -> Escape | None:
    # `PromQL | None` and `dict[str, PromQL]` hide the mark one level down.
    arguments = get_args(annotation)
    if get_origin(annotation) is Annotated:
        marks = (item.escape for item in arguments[1:] if isinstance(item, Filled))
        return next(marks, None) or _escape_in(arguments[0])
    found = (_escape_in(argument) for argument in arguments)
    return next((escape for escape in found if escape is not None), None)
