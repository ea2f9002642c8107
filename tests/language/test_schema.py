"""The JSON Schema that editors get agrees with the loader."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from remediator.language.examples import GUARD_EXAMPLES, STEP_EXAMPLES
from remediator.language.loader import load_text
from remediator.language.reference import schema
from remediator.language.tree import read_tree
from remediator.model.guard import GUARD_KINDS
from remediator.model.playbook import Playbook
from remediator.model.step import ACTION_KINDS
from tests.language.schemas import accepts
from tests.language.texts import STEPS, playbook

HERE = Path(__file__).parent
SCHEMA = schema()
# What a schema cannot say: a rule between two keys, and a list whose items were all refused.
BETWEEN_KEYS = {"value_error", "too_short"}
SAMPLES = sorted(
    [
        *HERE.glob("good/*.yaml"),
        *HERE.glob("bad/*.yaml"),
        *(HERE.parents[1] / "playbooks").glob("*.yaml"),
    ]
)


def refused(document: Any) -> set[str]:
    """Why the models refuse it; empty when they do not."""
    try:
        Playbook.model_validate(document)
    except ValidationError as error:
        return {detail["type"] for detail in error.errors()}
    return set()


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_what_the_models_take_the_schema_takes_and_what_they_refuse_it_refuses(path: Path) -> None:
    root, findings = read_tree(path.read_text(encoding="utf-8"))
    if root is None or findings:
        return  # not the small part of YAML that playbooks are written in
    document = root.plain()
    why = refused(document)
    if not why:
        assert accepts(SCHEMA, document, root=SCHEMA)
    elif why - BETWEEN_KEYS - {"finite_number"}:
        assert not accepts(SCHEMA, document, root=SCHEMA), why


@pytest.mark.parametrize(
    "rest",
    [
        STEPS + "on_resolve: restore\n",
        STEPS + "on_failure: undo\n",
        STEPS + "on_failure: {undo: true, escalate_to: person}\n",
        STEPS + "mode: propose\napproval: {within: 1h, on_timeout: stop}\n",
        "steps: [{wait: 1h30m}]\n",
        "steps: [{http: {endpoint: q, body: {a: [1, {b: c}]}}, undo: {endpoint: q}}]\n",
    ],
)
def test_the_short_forms_are_in_the_schema(rest: str) -> None:
    root, _ = read_tree(playbook(rest))
    assert root is not None
    assert refused(root.plain()) == set()
    assert accepts(SCHEMA, root.plain(), root=SCHEMA)


@pytest.mark.parametrize(
    "rest",
    [
        STEPS + "on_resolve: restoer\n",
        STEPS + "on_failure: restore\n",
        "steps: [{wait: 90}]\n",
        "steps: [{wait: 1m, restart: {}}]\n",
        "steps: [{notify: {message: ''}}]\n",
        "steps: []\n",
        STEPS + "priority: 101\n",
        STEPS + "guards: [{budget: {runs: 0, per: 1m}}]\n",
        "steps: [{command: {run: 'rm -rf'}, undo: none}]\n",
        "steps: [{command: {run: flush}}]\n",
    ],
)
def test_what_is_wrong_in_itself_is_wrong_in_the_schema(rest: str) -> None:
    root, _ = read_tree(playbook(rest))
    assert root is not None
    assert refused(root.plain())
    assert not accepts(SCHEMA, root.plain(), root=SCHEMA)


def test_there_is_an_example_of_every_guard_and_every_action() -> None:
    assert set(GUARD_EXAMPLES) == set(GUARD_KINDS)
    assert set(STEP_EXAMPLES) == set(ACTION_KINDS)


VARS = """vars: {p95: 'p95{instance="${{ target.instance }}"}'}\n"""
TELL = "  - notify: {message: 'p95 was ${{ vars.p95 }}'}\n"


@pytest.mark.parametrize("kind", [*GUARD_KINDS, *ACTION_KINDS])
def test_every_example_of_the_reference_loads_without_a_word(kind: str) -> None:
    if kind in GUARD_EXAMPLES:
        body = f"guards:\n{GUARD_EXAMPLES[kind]}\nsteps:\n{TELL}"
    else:
        example = re.sub("^", "  ", STEP_EXAMPLES[kind], flags=re.MULTILINE)
        around = ("", TELL) if kind != "escalate_to" else (TELL, "")
        body = f"steps:\n{around[0]}{example}\n{around[1]}"
    loaded = load_text(playbook(VARS + body), path="p.yaml")
    assert [str(p) for p in (*loaded.problems, *loaded.warnings)] == []
