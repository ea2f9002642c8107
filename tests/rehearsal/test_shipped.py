"""What every shipped playbook promises holds: the same as `remediator test playbooks/tests`."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from remediator.language.loader import load_files
from remediator.rehearsal.expectations import differences
from remediator.rehearsal.promtool import Promtool
from remediator.rehearsal.reading import files_of_tests, prepare
from remediator.rehearsal.stage import play

PLAYBOOKS = Path(__file__).parents[2] / "playbooks"
PREPARED = [prepare(path) for path in files_of_tests([PLAYBOOKS / "tests"])]
SCENES = [
    pytest.param(prepared, scene, id=f"{Path(prepared.path).name}: {scene.name}")
    for prepared in PREPARED
    for scene in (prepared.script.tests if prepared.script else ())
]


def test_every_file_of_tests_can_be_played() -> None:
    assert [str(problem) for prepared in PREPARED for problem in prepared.problems] == []


@pytest.mark.real
@pytest.mark.parametrize(("prepared", "scene"), SCENES)
def test_what_a_shipped_playbook_promises_holds(promtool: Promtool, prepared, scene) -> None:
    script = prepared.script
    story = asyncio.run(
        play(
            script,
            scene,
            library=prepared.library,
            promtool=promtool,
            rule_files=prepared.rule_files,
        )
    )
    found = differences(scene.expect, story, interval=script.interval)
    assert not found, "\n".join([*found, "", *story.timeline()])


@pytest.mark.real
def test_the_example_of_the_documentation_holds(promtool: Promtool, tmp_path: Path) -> None:
    text = (PLAYBOOKS.parent / "docs" / "testing-playbooks.md").read_text()
    example = text.split("```yaml\n")[1].split("```")[0]
    path = tmp_path / "example.test.yaml"
    path.write_text(example.replace("../", f"{PLAYBOOKS}/"))
    prepared = prepare(path)
    assert [str(problem) for problem in prepared.problems] == []
    script = prepared.script
    story = asyncio.run(play(script, script.tests[0], library=prepared.library, promtool=promtool))
    assert differences(script.tests[0].expect, story, interval=script.interval) == []


@pytest.mark.parametrize("name", sorted(load_files([PLAYBOOKS]).by_name))
def test_every_shipped_playbook_is_tested_when_it_acts_when_it_may_not_and_without_data(
    name: str,
) -> None:
    expected = [
        scene.expect
        for prepared in PREPARED
        if prepared.script and Path(prepared.path).name == f"{name}.test.yaml"
        for scene in prepared.script.tests
    ]
    decisions = {
        decision.decision.value
        for expect in expected
        for decision in expect.decisions or ()
        if decision.playbook in {"", name}
    }
    assert {"admitted", "require", "unknown"} <= decisions
    runs = [run for expect in expected for run in expect.runs or () if run.playbook == name]
    assert {"improved"} < {run.verdict for run in runs}
