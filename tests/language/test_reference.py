"""The docs say what the models say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from remediator.language.loader import load_text
from remediator.language.reference import reference, schema, with_reference
from remediator.language.shape import texts_in
from remediator.model.playbook import Playbook
from tests.language.texts import playbook

DOCUMENT = Path(__file__).parents[2] / "docs" / "playbook-language.md"


def test_the_reference_in_the_docs_is_the_one_the_models_give() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert text == with_reference(text), "run python scripts/reference.py"


def test_a_document_without_markers_is_not_silently_left_as_it_is() -> None:
    with pytest.raises(ValueError, match="needs both"):
        with_reference("# no markers here")


def test_the_example_in_the_docs_loads_without_a_word() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    loaded = load_text(text.split("```yaml\n")[1].split("```")[0], path="docs")
    assert [str(p) for p in (*loaded.problems, *loaded.warnings)] == []


def test_every_key_of_every_part_is_explained() -> None:
    rows = [line for line in reference().splitlines() if line.startswith("| `")]
    assert [row for row in rows if row.endswith("|  |")] == []


def test_the_schema_knows_the_short_forms_and_the_languages_own_durations() -> None:
    document = schema()
    assert {"const": "restore"} in document["properties"]["on_resolve"]["anyOf"]
    assert {"$ref": "#/$defs/Trigger"} in document["properties"]["on"]["anyOf"]
    assert document["$defs"]["Restart"]["properties"]["ready_within"]["default"] == "1m30s"
    assert "PT" not in json.dumps(document).replace("PromQL", "")


def test_every_text_of_a_playbook_is_found_with_its_place_and_kind() -> None:
    root = load_text(playbook(), path="p").root
    assert root is not None
    found = {text.path: text for text in texts_in(root)}
    assert found["target",].is_templated
    assert not found["target",].is_promql
    assert not found["on", "alerts", 0].is_templated
    assert found["steps", 0, "notify", "message"].node.line == 5
    assert Playbook.model_validate(root.plain()).name == "slow"
