"""What a label says stays where the template stands: in a path, a query, a body, an argument."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remediator.language.loader import load_text
from remediator.model.playbook import Playbook
from remediator.model.spec import Escape
from remediator.model.template import (
    render,
    render_playbook,
    render_schedule,
    template_values,
    url_parts,
)

BASE = "https://queue.example:8443/api"
TEXT = """\
apiVersion: remediator/v1
name: pause
on: {alerts: ['alertname="X"']}
target: detector-1
vars:
  camera: 'cam-${{ alert.labels.x }}'
steps:
  - http:
      endpoint: queue
      path: /cameras/${{ alert.labels.x }}/pause?why=${{ alert.labels.x }}&cam=${{ vars.camera }}
      body: {camera: '${{ alert.labels.x }}', deep: [{why: 'was ${{ vars.camera }}'}]}
    undo: none
    on_unknown: escalate
  - command: {run: flush, arguments: {camera: '${{ vars.camera }}'}}
    undo: none
    on_unknown: escalate
"""
HOSTILE = [
    "../",
    "..",
    ".",
    "",
    "%2e%2e",
    "//evil.example/x",
    "https://evil.example/x",
    "@evil.example",
    ":80",
    "a/b",
    "a\\b",
    "x\r\nX-Admin: 1",
    "x HTTP/1.1\r\nHost: evil",
    '"} or vector(1) or x{a="',
    "${{ alert.labels.secret }}",
    "{{ 7*7 }}",
    "$(reboot)",
    "; reboot",
    "a&why=b#c?d",
    "caf\u00e9 \U0001f600",
]


def playbook() -> Playbook:
    loaded = load_text(TEXT, path="p")
    assert loaded.playbook is not None, loaded.problems
    return loaded.playbook


PLAYBOOK = playbook()


def filled(label: str) -> dict[str, Any] | None:
    """The call and the arguments as they would be sent; None when the label is refused."""
    try:
        plan = render_playbook(PLAYBOOK, template_values({"x": label}, {}, {"name": "t"}))
    except ValueError as error:
        assert "is not one folder of a path" in str(error)  # noqa: PT017 - it may also pass
        return None
    call, program = (step.model_dump() for step in plan.steps)
    return {"call": call["http"], "program": program["command"]}


def check(label: str) -> None:
    found = filled(label)
    is_folder = label not in {"", ".", ".."} and not set("/\\") & set(label)
    assert (found is not None) == is_folder
    if found is None:
        return
    call = found["call"]
    url = urlsplit(BASE + call["path"])
    assert (url.scheme, url.netloc, url.fragment) == ("https", "queue.example:8443", "")
    assert url.path.count("/") == 4
    assert url.path.startswith("/api/cameras/")
    assert url.path.endswith("/pause")
    assert call["path"].isascii()
    assert call["path"].isprintable()
    assert not set(' \\"<>') & set(call["path"])
    assert dict(parse_qsl(url.query, keep_blank_values=True)) == {
        "why": label,
        "cam": f"cam-{label}",
    }
    assert (call["endpoint"], call["method"]) == ("queue", "POST")
    # Data is data: as it came, and once only.
    assert call["body"] == {"camera": label, "deep": [{"why": f"was cam-{label}"}]}
    assert found["program"]["arguments"] == {"camera": f"cam-{label}"}


@pytest.mark.parametrize("label", HOSTILE)
def test_a_hostile_label_changes_neither_host_nor_depth_nor_query_nor_target(label: str) -> None:
    check(label)


@settings(max_examples=150, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_no_label_at_all_does(label: str) -> None:
    check(label)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ([""], "")),
        ("/a/b", (["", "a", "b"], "")),
        ("/a?b=/c?d", (["", "a"], "?b=/c?d")),
        ('/${{ x | default("/?") }}/b', (["", '${{ x | default("/?") }}', "b"], "")),
        ("?a", ([""], "?a")),
    ],
)
def test_a_path_is_cut_where_the_author_cut_it(text: str, parts: tuple[list[str], str]) -> None:
    assert url_parts(text) == parts


def test_two_templates_in_one_folder_are_judged_together() -> None:
    text = "/a/${{ x }}${{ x }}/b"
    assert render(text, {"x": "v"}, escape=Escape.URL) == "/a/vv/b"
    for value in (".", ""):
        with pytest.raises(ValueError, match="not one folder"):
            render(text, {"x": value}, escape=Escape.URL)


def test_dots_of_the_author_and_of_a_label_do_not_add_up() -> None:
    with pytest.raises(ValueError, match="not one folder"):
        render("/a/.${{ x }}/b", {"x": "."}, escape=Escape.URL)


def test_a_var_is_escaped_for_promql_in_a_query_and_left_alone_in_words() -> None:
    guards = "guards: [{require: {query: 'up{a=\"${{ vars.camera }}\"}', above: 0}}]\n"
    steps = "steps:\n  - notify: {message: 'see ${{ vars.camera }}'}"
    loaded = load_text(TEXT.replace("steps:", guards + steps), path="p")
    assert loaded.playbook is not None, loaded.problems
    plan = render_playbook(loaded.playbook, template_values({"x": 'a"b'}, {}, {"name": "t"}))
    assert plan.guards[0].model_dump()["require"]["query"] == 'up{a="cam-a\\"b"}'
    assert plan.steps[0].model_dump()["notify"]["message"] == 'see cam-a"b'


SCHEDULED = """\
apiVersion: remediator/v1
name: look
on:
  - schedule: {every: 1m, when: {query: 'sum by (instance) (up{${{ vars.job }}})', below: 1}}
target: ${{ alert.labels.instance }}
vars:
  job: 'job="detector"'
  own: 'instance="${{ target.instance }}"'
steps: [{notify: {message: '${{ vars.own }}'}}]
"""


def test_a_schedule_is_filled_in_from_vars_although_there_is_no_alert_yet() -> None:
    loaded = load_text(SCHEDULED, path="p")
    assert loaded.playbook is not None, loaded.problems
    (trigger,) = loaded.playbook.on
    assert trigger.schedule is not None
    schedule = render_schedule(loaded.playbook, trigger.schedule)
    assert schedule.when.query == 'sum by (instance) (up{job="detector"})'
    assert schedule.every == trigger.schedule.every
