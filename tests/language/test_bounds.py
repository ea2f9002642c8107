"""No file, and no alert, can make a playbook cost more than it is worth."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from remediator.language.finding import MAX_FINDINGS
from remediator.language.loader import load_files, load_text
from remediator.language.templates import MAX_TEMPLATES
from remediator.model.template import MAX_FILLED, render, template_values
from tests.language.texts import playbook

pytestmark = pytest.mark.slow

# Most of these took from half a minute to many minutes before they were cut off.
PATIENCE_S = 20.0
GROW = "|replace('x', '" + "x" * 40 + "')"


def saying(message: str) -> str:
    return playbook(f'steps: [{{notify: {{message: "{message}"}}}}]\n')


GROWING = playbook(
    f"""
    vars:
      a: "${{{{ 'x'{GROW * 3} }}}}"
      b: "${{{{ vars.a{GROW * 3} }}}}"
      c: "${{{{ vars.b{GROW * 3} }}}}"
    steps: [{{notify: {{message: 'x ${{{{ vars.c }}}}'}}}}]
    """
)
HOSTILE = {
    "brackets around a name": saying("${{ " + "(" * 90 + "target.name" + ")" * 90 + " }}"),
    "a list in a list": saying("${{ " + "[" * 95 + "1" + "]" * 95 + " }}"),
    "signs": saying("${{  " + "-" * 180 + "1 }}"),
    "not not": saying("${{ " + "not " * 45 + "target.name }}"),
    "vars that multiply": GROWING,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_template_that_would_exhaust_anything_is_refused_and_the_others_serve(
    tmp_path: Path, text: str
) -> None:
    (tmp_path / "a.yaml").write_text(text)
    (tmp_path / "b.yaml").write_text(playbook(name="b"))
    library = load_files([tmp_path])
    assert list(library.by_name) == ["b"]
    (problem,) = library.problems
    assert "a.yaml" in str(problem)


def test_brackets_and_filters_as_a_person_writes_them_are_no_offence() -> None:
    text = saying(
        "${{ alert.labels['a.b'] | default(target.name) | replace('(', '[') | "
        "replace(')', ']') | replace('gpu', 'device') | lower | trim }}"
    )
    assert load_text(text, path="p.yaml").problems == ()


@pytest.mark.parametrize(
    "template",
    [
        "${{ alert.labels.x }}" * 20,
        "${{ alert.labels.x | replace('x', 'xxxxxxxxxxxxxxxxxxxxx') }}",
        "${{ alert.labels.x | replace('', alert.labels.x) }}",
    ],
    ids=["repeated", "replaced", "put between"],
)
def test_a_label_cannot_fill_the_memory_by_way_of_a_template(template: str) -> None:
    values = template_values({"x": "x" * (MAX_FILLED // 20 + 1)}, {}, {})
    with pytest.raises(ValueError, match=f"longer than {MAX_FILLED} characters"):
        render(template, values)


def test_a_replacement_that_fits_is_made() -> None:
    values = template_values({"x": "gpu-0:8080"}, {}, {})
    got = render("${{ alert.labels.x | replace(':8080', '') | replace('gpu', 'device') }}", values)
    assert got == "device-0"


FLOODS = {
    "templates": saying("${{target.name}} " * 14_000),
    "unknown names": saying("${{ foo }} " * 20_000),
    "unknown keys": playbook() + "".join(f"k{index}: 1\n" for index in range(6_000)),
    "no actions": playbook("steps:\n" + "- {a: 1}\n" * 6_000),
    "misspelt keys": playbook("steps:\n" + "- throttle: {signl: 1}\n" * 3_000),
    "keys that stand twice": playbook() + "a: 1\n" * 6_000,
    "queries": playbook(
        f"vars: {{a: {'x' * 3000}}}\nsteps: [{{notify: {{message: hi}}}}]\nguards:\n"
        + "- require: {query: '${{vars.a}}', above: 0}\n" * 3_000
    ),
}


@pytest.mark.parametrize("text", FLOODS.values(), ids=FLOODS)
def test_a_file_full_of_mistakes_is_refused_soon_and_with_the_first_of_them(text: str) -> None:
    began = time.monotonic()
    loaded = load_text(text, path="p.yaml")
    assert time.monotonic() - began < PATIENCE_S
    assert 0 < len(loaded.problems) <= MAX_FINDINGS
    assert loaded.playbook is None


def test_as_many_templates_as_a_text_may_have_are_read() -> None:
    short = "${{vars.a}}"
    text = playbook("vars: {a: x}\n" + saying(short * MAX_TEMPLATES).split("\n", 4)[4])
    assert "templates in one text" not in str(load_text(text, path="p.yaml").problems)
    text = text.replace(short, short * 2, 1)
    assert "templates in one text" in str(load_text(text, path="p.yaml").problems)


LONG = {
    "within": "within: 9000y",
    "within, by a moment": "within: 365d1ms",
    "window": "within: 2m, window: 53w",
}


@pytest.mark.parametrize("verify", LONG.values(), ids=LONG)
def test_a_duration_of_more_than_a_year_is_refused(verify: str) -> None:
    query = "'up{instance=\"${{ target.instance }}\"}'"
    text = playbook(f"steps: [{{restart: {{}}, verify: {{query: {query}, above: 0, {verify}}}}}]\n")
    loaded = load_text(text, path="p.yaml")
    assert any("is longer than 365d" in str(problem) for problem in loaded.problems)


@pytest.mark.parametrize(
    "signal",
    ["rate(x[9000y])", "rate(x[200y] offset 290y)", "rate(x[999999999y])", "x offset 366d"],
)
def test_a_query_that_looks_back_more_than_a_year_is_refused(signal: str) -> None:
    text = playbook(f"steps: [{{throttle: {{signal: '{signal}', objective: 1}}, lease: 5m}}]\n")
    loaded = load_text(text, path="p.yaml")
    assert any("looks back more than 365d" in str(problem) for problem in loaded.problems)
