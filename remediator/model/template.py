"""`${{ }}` templates: Jinja2 in a sandbox, strict, with values escaped for the place they land in.

Called by admission to pin a playbook for one alert, by the schedules, and by lint to find mistakes
early. The surprise: escaping depends on where the template stands (`spec.Filled`). In PromQL a
label's quotes and backslashes are escaped; a `vars` entry's are not, because the playbook's author
wrote it and the values inside it were escaped already. Everywhere else a var holds the values as
they came, and in a URL it is escaped like a label.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Annotated, Any, get_args, get_origin
from urllib.parse import quote, unquote

from jinja2 import StrictUndefined, Template, TemplateError, TemplateRuntimeError, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from remediator.model.playbook import Playbook, Schedule
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
    """Return `value` percent-encoded: it begins no new parameter, header or fragment."""
    return quote(value, safe="")


def url_parts(text: str) -> tuple[list[str], str]:
    """Return the segments of a path, and its query with the `?`; a template is never cut."""
    marks = [match.start() for match in _MARK.finditer(text) if match[1]]
    query = next((mark for mark in marks if text[mark] == "?"), len(text))
    slashes = [mark for mark in marks if mark < query]
    begins, ends = [0, *(slash + 1 for slash in slashes)], [*slashes, query]
    return [text[a:b] for a, b in zip(begins, ends, strict=True)], text[query:]


_MARK = re.compile(r"\$\{\{.*?\}\}|([/?])", re.DOTALL)
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
    # Only a bare `vars.NAME` is the author's own text; jinja2's `default` would hand it through.
    environment.filters["default"] = _default
    return environment


def _replace(value: Any, old: Any, new: Any) -> str:
    text, before, after = str(value), str(old), str(new)
    if len(text) + text.count(before) * (len(after) - len(before)) > MAX_FILLED:
        raise TemplateRuntimeError(_TOO_LONG)
    return text.replace(before, after)


def _default(value: Any, otherwise: Any) -> Any:
    chosen = otherwise if isinstance(value, Undefined) else value
    return str(chosen) if isinstance(chosen, TrustedText) else chosen


_TOO_LONG = f"longer than {MAX_FILLED} characters when filled in"

_ENVIRONMENTS = {escape: _environment(escape) for escape in Escape}


# A playbook is filled in for every alert that it meets; its texts are compiled once.
@lru_cache(maxsize=1024)
def _compiled(text: str, escape: Escape) -> Template:
    return _ENVIRONMENTS[escape].from_string(text)


def has_template(text: str) -> bool:
    """Say whether `text` holds a `${{ }}` expression."""
    return "${{" in text


def render(text: str, values: Mapping[str, Any], *, escape: Escape = Escape.PLAIN) -> str:
    """Fill the templates in `text`.

    Raises:
        ValueError: an undefined name, a forbidden access, broken template syntax, or a result of
            more than `MAX_FILLED` characters; in the path of a URL also a value that would add
            or leave out a folder.
    """
    if not has_template(text):
        return text
    if escape is not Escape.URL:
        return _render(text, values, escape)
    segments, query = url_parts(text)
    path = "/".join(_segment(segment, values) for segment in segments)
    return path + _render(query, values, escape)


def _segment(text: str, values: Mapping[str, Any]) -> str:
    filled = _render(text, values, Escape.URL)
    # Servers decode a path before they resolve its dots, so encoding alone would not hold.
    plain = unquote(filled)
    if has_template(text) and (plain in {"", ".", ".."} or set("/\\") & set(plain)):
        msg = f"template {text!r}: {plain!r} is not one folder of a path"
        raise ValueError(msg)
    return filled


def _render(text: str, values: Mapping[str, Any], escape: Escape) -> str:
    try:
        return _filled(_compiled(text, escape), values)
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
    quoted = _vars(playbook, values, Escape.PROMQL)
    plain = {**values, "vars": _vars(playbook, values, Escape.PLAIN)}
    scopes = {Escape.PROMQL: {**values, "vars": quoted}, Escape.URL: plain, Escape.PLAIN: plain}
    document = _render_model(playbook, scopes)
    document["vars"] = {k: str(v) if isinstance(v, str) else v for k, v in quoted.items()}
    return Playbook.model_validate(document)


def render_schedule(playbook: Playbook, schedule: Schedule) -> Schedule:
    """Return a schedule of the playbook with its query filled in from `vars`.

    There is no alert and no target yet; a var that needs one has no value here.

    Raises:
        ValueError: as `render`.
    """
    scope = {"vars": _vars(playbook, {}, Escape.PROMQL, leave_out=True)}
    query = render(schedule.when.query, scope, escape=Escape.PROMQL)
    when = schedule.when.model_copy(update={"query": query})
    return schedule.model_copy(update={"when": when})


def _vars(
    playbook: Playbook, values: Mapping[str, Any], escape: Escape, *, leave_out: bool = False
) -> dict[str, Any]:
    filled: dict[str, Any] = {}
    for name, raw in playbook.vars.items():
        if not isinstance(raw, str):
            filled[name] = raw
            continue
        try:
            text = render(raw, {**values, "vars": filled}, escape=escape)
        except ValueError:
            if leave_out:
                continue
            raise
        filled[name] = TrustedText(text) if escape is Escape.PROMQL else text
    return filled


_Scopes = Mapping[Escape, Mapping[str, Any]]


def _render_model(model: BaseModel, scopes: _Scopes) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, info in type(model).model_fields.items():
        value = getattr(model, name)
        if name == "vars" and isinstance(model, Playbook):
            value = {}
        result[info.alias or name] = _render_value(value, scopes, escape_of(info))
    return result


def _render_value(value: Any, scopes: _Scopes, escape: Escape | None) -> Any:
    if isinstance(value, BaseModel):
        return _render_model(value, scopes)
    if isinstance(value, str) and type(value) is str:
        return value if escape is None else render(value, scopes[escape], escape=escape)
    if isinstance(value, tuple | list):
        return [_render_value(item, scopes, escape) for item in value]
    if isinstance(value, dict):
        return {key: _render_value(item, scopes, escape) for key, item in value.items()}
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
