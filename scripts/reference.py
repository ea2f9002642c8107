"""Writes docs/reference/*.md and the tables of two other pages from the code.

Run by whoever changes a setting, a metric, a reason, a state, a command or a playbook key:
`python scripts/reference.py`. With `--check` it writes nothing and says what is out of date, as the
tests do. The surprise: the meaning of a reason or a state is the remark beside it in the source.
"""
# ruff: noqa: INP001 - a program, not a package

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from prometheus_client.metrics import MetricWrapperBase
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from remediator.cli import app
from remediator.language.reference import tables, with_reference
from remediator.model.alert import Meaning
from remediator.model.decision import LASTING, Reason
from remediator.model.run import TRANSITIONS, Phase, RunKind, RunState, StepStatus
from remediator.model.verdict import ReadingStatus, Verdict
from remediator.rehearsal.script import Script
from remediator.settings import Settings
from remediator.telemetry import Metrics

DOCS = Path(__file__).resolve().parents[1] / "docs"
FOLDER = DOCS / "reference"
LANGUAGE = DOCS / "playbook-language.md"
TESTING = DOCS / "testing-playbooks.md"
NOTICE = "<!-- Written by scripts/reference.py; change the code, then run it. -->"
EMPTY: Any = (None, "", {}, [], (), frozenset())
WORDS = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    Path: "path",
    NoneType: "null",
}
MEANING = re.compile(r'^\s+([A-Z_]+) = "([^"]*)"\s+# (.+)$', re.MULTILINE)


def page(title: str, *parts: str) -> str:
    """Return one page."""
    return "\n\n".join([f"# {title}", NOTICE, *parts]) + "\n"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table."""
    names = list(head)
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
    )


def settings_page() -> str:
    """Return every setting with its type, default and meaning."""
    intro = (
        "One YAML file (`remediator serve --config FILE`); a variable of the environment wins over "
        "it: `REMEDIATOR_LISTEN` for `listen`, two underscores between a name and what is inside "
        "it. A setting that ends in `_s` is a number of seconds. Secrets are never written here, "
        "only the paths of files that hold them."
    )
    return page("Settings", intro, table(("setting", "type", "default", "what it is"), _fields()))


def _fields(model: type[BaseModel] = Settings, prefix: str = "") -> Iterator[list[str]]:
    for name, field in model.model_fields.items():
        place = f"{prefix}{name}"
        inner = _inner(field)
        yield [f"`{place}`", f"{_kind(field)}", _default(field), field.description or ""]
        if inner is not None:
            between = ".NAME." if "dict" in str(field.annotation) else "."
            yield from _fields(inner, place + between)


def _inner(field: FieldInfo) -> type[BaseModel] | None:
    found = [part for part in _parts(field.annotation) if inspect.isclass(part)]
    return next((part for part in found if issubclass(part, BaseModel)), None)


def _parts(annotation: Any) -> Iterator[Any]:
    yield annotation
    for part in getattr(annotation, "__args__", ()):
        yield from _parts(part)


def _kind(field: FieldInfo) -> str:
    return _words(field.annotation)


def _words(kind: Any) -> str:
    """Return a type in the words of whoever writes YAML."""
    outer, inner = get_origin(kind), get_args(kind)
    if outer is Annotated:
        return _words(inner[0])
    if outer in {Union, UnionType}:
        return " or ".join(_words(one) for one in inner)
    if outer is Literal:
        return " or ".join(str(one) for one in inner)
    if outer is dict:
        return f"{_words(inner[1])} by name"
    if outer is not None:
        return f"list of {_words(inner[0])}s"
    if issubclass(kind, StrEnum):
        return " or ".join(kind)
    return "fields" if issubclass(kind, BaseModel) else WORDS[kind]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is PydanticUndefined or value in EMPTY:
        return ""
    return f"`{_yaml(value)}`"


def _yaml(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_yaml, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def metrics_page() -> str:
    """Return every series that the controller exposes."""
    found: list[Any] = [m for m in vars(Metrics()).values() if isinstance(m, MetricWrapperBase)]
    rows = [
        [
            f"`{metric._name}{'_total' if metric._type == 'counter' else ''}`",  # noqa: SLF001 - the client has no public way
            metric._type,  # noqa: SLF001 - as above
            ", ".join(f"`{name}`" for name in metric._labelnames),  # noqa: SLF001 - as above
            metric._documentation,  # noqa: SLF001 - as above
        ]
        for metric in found
    ]
    intro = (
        "At `/metrics` of the controller. No label ever names a target, an alert or a run, so the "
        "number of series is bounded."
    )
    return page("Metrics", intro, table(("series", "type", "labels", "what it counts"), rows))


def meanings(kind: type[StrEnum]) -> dict[str, str]:
    """Return what each value means: the remark beside it."""
    source = inspect.getsource(kind)
    found = {value: remark for _, value, remark in MEANING.findall(source)}
    missing = [str(member) for member in kind if member not in found]
    if missing:
        raise SystemExit(f"{kind.__name__}: say beside it what {', '.join(missing)} means")
    return found


def _values(kind: type[StrEnum]) -> str:
    rows = [[f"`{value}`", said] for value, said in meanings(kind).items()]
    return table(("value", "what it means"), rows)


def reasons_page() -> str:
    """Return every reason of a decision, and whether it is looked at again."""
    rows = [
        [f"`{value}`", said, "" if _ends(value) else "yes"]
        for value, said in meanings(Reason).items()
    ]
    intro = (
        "Every alert ends in a decision with one of these reasons; `remediator explain ALERT` "
        "shows it with its evidence. Those that are looked at again are reviewed while the alert "
        "fires; repeats are counted and not recorded anew."
    )
    return page(
        "Reasons of decisions", intro, table(("reason", "what it means", "looked at again"), rows)
    )


def _ends(value: str) -> bool:
    return value in LASTING or value in {Reason.ADMITTED, Reason.RESOLVED}


def states_page() -> str:
    """Return the states of a run, how they follow each other, and the other closed lists."""
    arrows = [
        f"    {before} --> {after}"
        for before, following in TRANSITIONS.items()
        for after in RunState
        if after in following and after is not before
    ]
    ends = [f"    {state} --> [*]" for state in RunState if not TRANSITIONS[state]]
    lines = ["stateDiagram-v2", f"    [*] --> {RunState.ACTING}", *arrows, *ends]
    diagram = "\n".join(["```mermaid", *lines, "```"])
    parts = [f"## Run: state\n\n{_values(RunState)}", diagram]
    for title, kind in (
        ("Run: verdict", Verdict),
        ("Run: kind", RunKind),
        ("Step: status", StepStatus),
        ("Reading: status", ReadingStatus),
        ("Alert: what an incoming one meant", Meaning),
    ):
        parts.append(f"## {title}\n\n{_values(kind)}")
    phases = ", ".join(f"`{phase}`" for phase in Phase)
    parts.append(f"## Run: phase\n\n{phases}")
    return page("States", *parts)


def commands_page() -> str:
    """Return every command of the command line with its options."""
    group: Any = typer.main.get_command(app)
    parts = [_command(name, command) for name, command in group.commands.items()]
    intro = (
        "Exit codes: 0 done; 1 the answer is no (problems found, not there); 2 it could not be "
        "done (configuration, unreachable)."
    )
    return page("Commands", intro, *parts)


def _command(name: str, command: Any) -> str:
    rows = []
    for parameter in command.params:
        if parameter.name == "help":
            continue
        called = parameter.opts if parameter.param_type_name == "option" else [parameter.name]
        needed = "required" if parameter.required else ""
        said = str(getattr(parameter, "help", "") or "")
        rows.append([", ".join(f"`{one}`" for one in called), needed, said])
    told = f"## remediator {name}\n\n{command.help}"
    return f"{told}\n\n{table(('argument', '', 'what it is'), rows)}" if rows else told


PAGES = {
    "settings": settings_page,
    "metrics": metrics_page,
    "reasons": reasons_page,
    "states": states_page,
    "commands": commands_page,
}


def main() -> int:
    """Write the pages, or with `--check` say which are out of date."""
    check = "--check" in sys.argv[1:]
    wanted = {FOLDER / f"{name}.md": make() for name, make in PAGES.items()}
    wanted[LANGUAGE] = with_reference(LANGUAGE.read_text(encoding="utf-8"))
    wanted[TESTING] = with_reference(TESTING.read_text(encoding="utf-8"), tables(Script))
    stale = []
    for path, text in wanted.items():
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(path.name)
        if not check:
            FOLDER.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    if check and stale:
        sys.stderr.write(f"out of date: {', '.join(stale)}; run python scripts/reference.py\n")
    return int(check and bool(stale))


if __name__ == "__main__":
    raise SystemExit(main())
