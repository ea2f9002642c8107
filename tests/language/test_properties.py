"""Whatever is in a file, it is reported; whatever a label holds, it stays between its quotes."""

from __future__ import annotations

from typing import Any

import promql_parser as pp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remediator.language.loader import Loaded, load_bytes, load_text
from remediator.language.promql import _children
from remediator.model.template import render_playbook, template_values
from tests.language.texts import playbook

pytestmark = pytest.mark.slow

WORDS = [
    *("apiVersion", "name", "on", "alerts", "target", "vars", "mode", "priority"),
    *("guards", "require", "query", "above", "cooldown", "budget", "runs", "per", "scope"),
    *("steps", "throttle", "signal", "objective", "retune", "set", "restart", "notify", "message"),
    *("escalate_to", "verify", "within", "for", "every", "window", "lease"),
    *("on_resolve", "restore", "healthy"),
]
VALUES = [
    *("remediator/v1", "slow", 'alertname="DetectorSlow"', "person", "restore", "auto", "5m", "0s"),
    *(
        "${{ alert.labels.instance }}",
        "${{ vars.a }}",
        "${{",
        "{{ vars.a }}",
        'up{a="${{ vars.a }}"}',
    ),
    *("rate(x[5m])", "up > 1", "sum(", "\\", "'", '"', "\x00", "\ud800", "é\u2028"),
    *("9" * 400, "99999999999y"),
]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.sampled_from(VALUES),
    st.text(max_size=9),
)
DOCUMENTS = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=6)
    ),
    max_leaves=25,
)


def flow(value: Any) -> str:
    """YAML's flow style, near enough: what it cannot say is part of the test."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {flow(child)}" for key, child in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(flow(child) for child in value) + "]"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return {None: "~", True: "true", False: "false"}.get(value, str(value))


def reported(loaded: Loaded) -> None:
    assert (loaded.playbook is None) == bool(loaded.problems)
    places = [(problem.line, problem.column) for problem in loaded.problems]
    assert places == sorted(places)
    lines = loaded.text.count("\n") + loaded.text.count("\r") + 2
    assert all(0 <= line <= lines + loaded.text.count("\u2028") for line, _ in places)
    assert all(str(problem).strip() for problem in loaded.problems)


@settings(max_examples=120, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_reported_and_never_raise(data: bytes) -> None:
    loaded = load_bytes(data, path="p.yaml")
    assert loaded.playbook is None
    assert loaded.problems


@settings(max_examples=120, deadline=None)
@given(st.text(alphabet="ab:-[]{}\"'|>&*!#%@`\n\t ?,~<=$\\\u2028\x85\ufeff", max_size=60))
def test_any_yaml_like_text_is_reported_and_never_raises(text: str) -> None:
    reported(load_text(text, path="p.yaml"))
    reported(load_text(playbook() + text, path="p.yaml"))


@settings(max_examples=120, deadline=None)
@given(st.dictionaries(st.sampled_from(WORDS), DOCUMENTS, max_size=8))
def test_any_document_of_the_right_words_is_reported_and_never_raises(document: Any) -> None:
    reported(load_text(flow(document), path="p.yaml"))


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(WORDS), DOCUMENTS)
def test_any_value_under_any_key_of_a_good_playbook_is_reported(key: str, value: Any) -> None:
    reported(load_text(f"{playbook()}{key}: {flow(value)}\n", path="p.yaml"))


@settings(max_examples=120, deadline=None)
@given(st.text(alphabet="${} avlertsbgnmp.\"'|[]()-+\n", max_size=40))
def test_any_template_that_passes_can_be_filled_in(text: str) -> None:
    quoted = text.replace("'", "''")
    body = f"vars: {{b: up}}\nsteps: [{{notify: {{message: 'x ${{{{ vars.b }}}} {quoted}'}}}}]\n"
    loaded = load_text(playbook(body), path="p.yaml")
    reported(loaded)
    if loaded.playbook is not None:
        target = dict.fromkeys(("name", "instance", "job", "pool"), "t")
        labels = {"instance": "i"}
        try:
            render_playbook(loaded.playbook, template_values(labels, {}, target))
        except ValueError as error:
            # A label the alert does not carry is found only when there is an alert.
            assert "has no attribute" in str(error)  # noqa: PT017 (it may also pass)


GUARDED = playbook(
    """
    vars:
      v: ${{ alert.labels.x }}
      q: rate(y{a="${{ vars.v }}"}[1m])
    guards:
      - require: {query: 'up{instance="${{ alert.labels.x }}"}', above: 0}
      - require: {query: 'sum by (le) (rate(x{a="b",i="${{ alert.labels.x }}"}[1m]))', above: 0}
      - require: {query: 'label_join(up{a!="${{ alert.labels.x }}"}, "a", "", "b")', above: 0}
      - require: {query: 'up{a="<${{ alert.labels.x | trim }}>"} and u{a="${{vars.v}}"}', above: 0}
      - require: {query: 'sum(${{ vars.q }})', above: 0}
    steps: [{notify: {message: 'x ${{ alert.labels.x }}'}}]
    """
)
HOSTILE = [
    '"',
    "\\",
    '\\"',
    '"} or vector(1) or x{a="',
    "`",
    "#",
    "\n",
    "\r\n",
    "${{ vars.q }}",
    "$1",
]
LABELS = st.text(
    alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="'"), max_size=12
)


def shape(node: Any) -> Any:
    """The syntax tree without the values of its strings."""
    own: tuple[Any, ...] = (type(node).__name__,)
    if isinstance(node, pp.VectorSelector):
        matchers = [(str(m.op), m.name) for m in node.matchers.matchers]
        own += (node.name, tuple(matchers), str(node.offset), len(node.matchers.or_matchers))
    if isinstance(node, pp.Call):
        own += (node.func.name,)
    return (*own, tuple(shape(child) for child in _children(node)))


def queries_for(label: str) -> list[Any]:
    loaded = load_text(GUARDED, path="p.yaml")
    assert loaded.playbook is not None, loaded.problems
    values = template_values({"instance": "i", "x": label}, {}, {})
    guards = render_playbook(loaded.playbook, values).guards
    return [shape(pp.parse(guard.require.query)) for guard in guards if hasattr(guard, "require")]


EXPECTED = queries_for("plain")


@settings(max_examples=60, deadline=None)
@given(st.one_of(LABELS, st.sampled_from(HOSTILE)))
def test_no_label_changes_the_shape_of_a_query_that_passed(label: str) -> None:
    assert queries_for(label) == EXPECTED


def test_an_apostrophe_in_a_label_leaves_the_query_readable() -> None:
    assert queries_for("it's") == EXPECTED
