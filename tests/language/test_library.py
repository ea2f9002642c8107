"""What serves when files come, go, break and clash."""

from __future__ import annotations

import os
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

import pytest

from remediator.language import loader
from remediator.language.loader import Library, Loaded, load_files
from remediator.language.surroundings import Surroundings
from remediator.language.tree import MAX_BYTES
from tests.language.texts import STEPS, escalating, playbook

BROKEN = playbook("stepps: []\n")
INVENTORY = Surroundings(targets=frozenset({"detector-1", "detector-2"}))


def write(folder: Path, texts: Mapping[str, str]) -> None:
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def told(library: Library, folder: Path) -> list[str]:
    return [str(problem).replace(f"{folder}/", "") for problem in library.problems]


def served(library: Library) -> dict[str, str]:
    return {name: Path(loaded.path).name for name, loaded in library.by_name.items()}


def test_directories_are_searched_in_order_and_hidden_files_are_left_out(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "b.yml": playbook(name="b"),
            "a.yaml": playbook(name="a"),
            "deep/c.yaml": playbook(name="c"),
            ".hidden.yaml": playbook(name="hidden"),
            ".git/d.yaml": playbook(name="d"),
            "notes.txt": "not a playbook",
        },
    )
    library = load_files([tmp_path])
    assert served(library) == {"a": "a.yaml", "b": "b.yml", "c": "c.yaml"}
    assert library.problems == ()


def test_a_file_named_outright_is_taken_whatever_its_ending(tmp_path: Path) -> None:
    write(tmp_path, {"playbook.txt": playbook(name="a")})
    assert served(load_files([tmp_path / "playbook.txt"])) == {"a": "playbook.txt"}


def test_a_path_that_does_not_exist_is_a_problem_and_not_an_exception(tmp_path: Path) -> None:
    library = load_files([tmp_path / "nowhere"])
    assert "not a file" in str(library.problems[0])
    assert library.by_name == {}


def test_the_text_and_its_hash_are_the_files_own(tmp_path: Path) -> None:
    text = "\ufeff" + playbook(name="a") + "# a comment\n"
    write(tmp_path, {"a.yaml": text})
    loaded = load_files([tmp_path]).by_name["a"]
    assert loaded.text == text
    assert loaded.sha256 == sha256((tmp_path / "a.yaml").read_bytes()).hexdigest()
    assert loaded.status == "serving"


def test_one_broken_file_never_stops_the_others(tmp_path: Path) -> None:
    write(tmp_path, {"a.yaml": BROKEN, "b.yaml": playbook(name="b"), "c.yaml": "[" * 500})
    library = load_files([tmp_path])
    assert served(library) == {"b": "b.yaml"}
    assert told(library, tmp_path) == [
        "a.yaml:5:1: a playbook has no key 'stepps' (did you mean 'steps'?)",
        "c.yaml:1:42: nested too deeply (40 levels at most)",
    ]


def test_a_broken_edit_keeps_the_last_good_version_and_says_so(tmp_path: Path) -> None:
    write(tmp_path, {"a.yaml": playbook()})
    first = load_files([tmp_path])
    write(tmp_path, {"a.yaml": BROKEN})
    second = first.reload()
    loaded = second.by_name["slow"]
    assert loaded.sha256 == first.by_name["slow"].sha256
    assert loaded.playbook == first.by_name["slow"].playbook
    assert loaded.status.startswith(f"stale: {tmp_path}/a.yaml:5:1: a playbook has no key")
    assert len(second.problems) == 1
    # ... for as long as it takes, and not a moment longer.
    assert second.reload().by_name["slow"].status == loaded.status
    write(tmp_path, {"a.yaml": playbook() + "# repaired\n"})
    third = second.reload().reload()
    assert third.by_name["slow"].status == "serving"
    assert third.by_name["slow"].text.endswith("# repaired\n")
    assert third.problems == ()


def test_a_deleted_file_takes_its_playbook_with_it_even_a_stale_one(tmp_path: Path) -> None:
    write(tmp_path, {"a.yaml": playbook(name="a"), "b.yaml": playbook(name="b")})
    library = load_files([tmp_path])
    write(tmp_path, {"a.yaml": BROKEN})
    library = library.reload()
    (tmp_path / "a.yaml").unlink()
    (tmp_path / "b.yaml").unlink()
    assert library.reload().by_name == {}


def test_a_new_file_serves_after_a_reload(tmp_path: Path) -> None:
    library = load_files([tmp_path])
    write(tmp_path, {"a.yaml": playbook(name="a")})
    assert served(library.reload()) == {"a": "a.yaml"}


def test_of_two_files_with_one_name_the_first_serves_and_the_second_is_told(tmp_path: Path) -> None:
    write(tmp_path, {"a.yaml": playbook(), "b.yaml": playbook()})
    library = load_files([tmp_path])
    assert served(library) == {"slow": "a.yaml"}
    (problem,) = told(library, tmp_path)
    assert problem.startswith("b.yaml:2:1: 'slow' is already the name of the playbook in a.yaml (")


def test_whoever_serves_a_name_keeps_it_against_a_newcomer_with_an_earlier_path(
    tmp_path: Path,
) -> None:
    write(tmp_path, {"b.yaml": playbook()})
    library = load_files([tmp_path])
    write(tmp_path, {"a.yaml": playbook()})
    library = library.reload()
    assert served(library) == {"slow": "b.yaml"}
    assert "a.yaml:2:1" in told(library, tmp_path)[0]


def test_a_stale_playbook_keeps_its_name_against_a_newcomer(tmp_path: Path) -> None:
    write(tmp_path, {"b.yaml": playbook()})
    library = load_files([tmp_path])
    write(tmp_path, {"a.yaml": playbook(), "b.yaml": BROKEN})
    assert served(library.reload()) == {"slow": "b.yaml"}


def test_a_file_renamed_to_a_taken_name_goes_on_under_its_old_one(tmp_path: Path) -> None:
    write(tmp_path, {"a.yaml": playbook(name="a"), "b.yaml": playbook(name="b")})
    library = load_files([tmp_path])
    write(tmp_path, {"b.yaml": playbook(name="a")})
    library = library.reload()
    assert served(library) == {"a": "a.yaml", "b": "b.yaml"}
    assert "'a' is already the name" in library.by_name["b"].status


def test_escalating_to_a_playbook_nobody_wrote_is_refused_with_the_nearest(tmp_path: Path) -> None:
    write(tmp_path, {"a.yaml": escalating("a", "restrat"), "b.yaml": playbook(name="restart")})
    library = load_files([tmp_path])
    assert served(library) == {"restart": "b.yaml"}
    assert told(library, tmp_path) == [
        "a.yaml:5:35: no playbook is called 'restrat' (did you mean 'restart'?)"
    ]


def test_escalating_to_a_broken_playbook_is_a_doubt_and_not_a_refusal(tmp_path: Path) -> None:
    write(tmp_path, {"a.yaml": escalating("a", "slow"), "b.yaml": BROKEN})
    library = load_files([tmp_path])
    assert served(library) == {"a": "a.yaml"}
    assert "no playbook 'slow' serves now" in str(library.warnings[0])


def test_escalating_to_a_refused_duplicate_does_not_spread(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "a.yaml": escalating("a", "b"),
            "b.yaml": escalating("b", "missing"),
            "c.yaml": escalating("c", "person"),
        },
    )
    library = load_files([tmp_path])
    assert served(library) == {"a": "a.yaml", "c": "c.yaml"}
    assert [problem.path for problem in library.problems] == [str(tmp_path / "b.yaml")]


def test_escalation_in_a_circle_is_refused_in_every_file_of_it(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "a.yaml": escalating("a", "b"),
            "b.yaml": escalating("b", "c"),
            "c.yaml": escalating("c", "a"),
            "d.yaml": escalating("d", "a"),
        },
    )
    library = load_files([tmp_path])
    assert served(library) == {"d": "d.yaml"}
    assert told(library, tmp_path)[0] == (
        "a.yaml:5:35: escalation runs in a circle: a -> b -> c -> a "
        "(end it with escalate_to: person)"
    )


def test_an_edit_that_closes_a_circle_leaves_what_served_serving(tmp_path: Path) -> None:
    write(tmp_path, {"a.yaml": escalating("a", "b"), "b.yaml": escalating("b", "person")})
    library = load_files([tmp_path])
    before = {name: loaded.sha256 for name, loaded in library.by_name.items()}
    write(tmp_path, {"b.yaml": escalating("b", "a")})
    library = library.reload()
    assert {name: loaded.sha256 for name, loaded in library.by_name.items()} == before
    assert "circle" in library.by_name["b"].status


def test_a_target_written_out_must_be_in_the_inventory(tmp_path: Path) -> None:
    text = playbook().replace("${{ alert.labels.instance }}", "detektor-1")
    write(tmp_path, {"a.yaml": text})
    library = load_files([tmp_path], surroundings=INVENTORY)
    assert told(library, tmp_path) == [
        "a.yaml:4:1: no target is called 'detektor-1' (did you mean 'detector-1'?)"
    ]
    assert load_files([tmp_path]).problems == ()


def test_a_file_beyond_the_limit_is_refused_unread(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"# " + b"x" * MAX_BYTES)
    assert "larger than 256 kB" in str(load_files([tmp_path]).problems[0])


def test_a_file_that_is_not_utf_8_is_placed_at_the_byte(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes("name: a\nü: ".encode() + b"\xff\n")
    assert told(load_files([tmp_path]), tmp_path) == [
        "a.yaml:2:4: not UTF-8 (save the file as UTF-8)"
    ]


def test_a_pipe_among_the_files_does_not_hold_anybody_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.yaml")
    assert "not a file" in str(load_files([tmp_path]).problems[0])


def test_a_file_that_cannot_be_read_is_a_problem() -> None:
    # A regular file whose first byte nobody may read, root included.
    assert "cannot be read" in str(load_files([Path("/proc/self/mem")]).problems[0])


def waiting(name: str, other: str) -> str:
    guards = f"guards: [{{not_while: {{playbook: {other}}}}}]\n"
    return playbook(f"{guards}steps: [{{notify: {{message: hi}}}}]\n", name=name)


def test_waiting_for_a_playbook_nobody_wrote_is_refused_with_the_nearest(tmp_path: Path) -> None:
    write(tmp_path, {"a.yaml": waiting("a", "restrat"), "b.yaml": playbook(name="restart")})
    library = load_files([tmp_path])
    assert served(library) == {"restart": "b.yaml"}
    assert told(library, tmp_path) == [
        "a.yaml:5:23: no playbook is called 'restrat' (did you mean 'restart'?)"
    ]


def test_waiting_for_a_broken_playbook_is_a_doubt_and_two_may_wait_for_each_other(
    tmp_path: Path,
) -> None:
    write(tmp_path, {"a.yaml": waiting("a", "slow"), "b.yaml": BROKEN})
    library = load_files([tmp_path])
    assert served(library) == {"a": "a.yaml"}
    assert "no playbook 'slow' serves now; there is nothing to wait for" in str(library.warnings[0])
    write(tmp_path, {"a.yaml": waiting("a", "slow"), "b.yaml": waiting("slow", "a")})
    assert library.reload().problems == ()


def test_a_failure_escalates_to_a_playbook_that_exists_and_not_in_a_circle(tmp_path: Path) -> None:
    steps = "steps: [{notify: {message: hi}}]\n"
    failing = playbook(f"{steps}on_failure: {{escalate_to: b}}\n", name="a")
    write(tmp_path, {"a.yaml": failing})
    (problem,) = told(load_files([tmp_path]), tmp_path)
    assert problem.startswith("a.yaml:6:14: no playbook is called 'b'")
    write(tmp_path, {"b.yaml": escalating("b", "a")})
    library = load_files([tmp_path])
    assert served(library) == {}
    assert "a.yaml:6:14: escalation runs in a circle: a -> b -> a" in told(library, tmp_path)[0]
    write(tmp_path, {"b.yaml": escalating("b", "person")})
    assert served(load_files([tmp_path])) == {"a": "a.yaml", "b": "b.yaml"}


def test_a_query_on_which_the_parser_panics_stops_no_other_file(tmp_path: Path) -> None:
    panic = playbook("guards: [{require: {query: 'up offset - 1e30', above: 1}}]\n" + STEPS)
    write(tmp_path, {"a.yaml": panic, "b.yaml": playbook(name="b")})
    library = load_files([tmp_path])
    assert served(library) == {"b": "b.yaml"}
    assert "not PromQL: the parser fails on it" in told(library, tmp_path)[0]


def test_our_own_mistake_about_one_file_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = loader.load_bytes

    def flawed(data: bytes, *, path: str, surroundings: Surroundings) -> Loaded:
        if path.endswith("a.yaml"):
            raise RecursionError("too deep")
        return real(data, path=path, surroundings=surroundings)

    monkeypatch.setattr(loader, "load_bytes", flawed)
    write(tmp_path, {"a.yaml": playbook(name="a"), "b.yaml": playbook(name="b")})
    library = load_files([tmp_path])
    assert served(library) == {"b": "b.yaml"}
    assert "a.yaml:1:1: cannot be judged: RecursionError: too deep" in told(library, tmp_path)[0]


CALLS = {
    "body": "http: {endpoint: queue, body: '${{ alert.labels.x }}'}, undo: none",
    "arguments": "command: {run: flush, arguments: '${{ alert.labels.x }}'}, undo: none",
}


@pytest.mark.parametrize("key", CALLS)
def test_a_template_where_a_mapping_is_due_is_told_and_the_last_good_version_serves(
    tmp_path: Path, key: str
) -> None:
    write(tmp_path, {"a.yaml": playbook()})
    library = load_files([tmp_path])
    write(tmp_path, {"a.yaml": playbook(f"steps: [{{{CALLS[key]}, on_unknown: escalate}}]\n")})
    library = library.reload()
    (problem,) = told(library, tmp_path)
    assert f"{key}: '${{{{ alert.labels.x }}}}' is not a mapping of keys" in problem
    assert library.by_name["slow"].status.startswith("stale: ")
