"""A file of playbook tests -> a `Script` with its playbooks, or everything that is wrong with it.

Called by `remediator test`. Like the playbook loader it never raises for what a file holds: what is
wrong is a list of problems with file:line:column and a hint. The surprise: names are checked before
anything is played. A test that expects something of a playbook that does not exist would pass for
ever if it expected nothing of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from remediator.errors import PlaybookError
from remediator.language.complaints import complaints
from remediator.language.finding import Finding, did_you_mean, one_of
from remediator.language.loader import TEST_SUFFIXES, load_files
from remediator.language.tree import MAX_BYTES, Node, read_tree
from remediator.model.duration import format_duration
from remediator.model.playbook import Pinned
from remediator.model.step import ACTION_KINDS
from remediator.rehearsal.script import Becomes, Scene, Script

Place = tuple[str | int, ...]
EXPECTED_AT = ("decisions", "runs", "actions", "would", "messages")
# The scope that has no name.
ALL = "all"
OF_PROCESSES = frozenset({Becomes.RUNNING, Becomes.STOPPED, Becomes.HUNG})


@dataclass(frozen=True)
class Prepared:
    """One file of tests, ready to be played unless it has problems.

    Attributes:
        path: the file as the user named it.
        script: what it says; None when there is any problem.
        library: the playbooks it tests, by name.
        lines: the line of each test.
    """

    path: str
    script: Script | None = None
    library: Mapping[str, Pinned] = field(default_factory=dict)
    rule_files: tuple[Path, ...] = ()
    lines: tuple[int, ...] = ()
    problems: tuple[PlaybookError, ...] = ()


def files_of_tests(paths: Iterable[Path]) -> list[Path]:
    """Return the files of tests that are named, or lie in a folder that is named."""
    found: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            inside = (one for one in path.rglob("*") if one.name.endswith(TEST_SUFFIXES))
            found |= dict.fromkeys(sorted(inside))
        else:
            found[path] = None
    return list(found)


def prepare(path: Path) -> Prepared:
    """Read one file of tests and the playbooks it names. Never raises for what they hold."""
    told = str(path)
    try:
        data = path.read_bytes()[: MAX_BYTES + 1]
        text = data.decode("utf-8").removeprefix("\ufeff")
    except OSError as error:
        return Prepared(told, problems=(_unread(told, f"cannot be read: {error.strerror}", ""),))
    except UnicodeDecodeError:
        return Prepared(told, problems=(_unread(told, "not UTF-8", "save the file as UTF-8"),))
    root, findings = read_tree(text, what="file of tests", begins="playbooks: [../NAME.yaml]")
    script = None
    if root is not None:
        plain = root.plain()
        findings += _spell_out(plain, root)
        try:
            script = Script.model_validate(plain)
        except ValidationError as error:
            findings += complaints(error, root, Script)
    if script is None or root is None or findings:
        return Prepared(told, problems=tuple(f.as_error(told) for f in sorted(findings)))
    return _with_playbooks(path, script, root)


def _with_playbooks(path: Path, script: Script, root: Node) -> Prepared:
    told, folder = str(path), path.parent
    rule_files = tuple((folder / name).resolve() for name in script.rule_files)
    findings = list(_missing(folder, script, root))
    library = load_files(folder / name for name in script.playbooks)
    served = {name: loaded for name, loaded in library.by_name.items() if loaded.playbook}
    problems = list(library.problems) if not findings else []
    if not findings and not problems:
        findings += _unknown_names(script, root, set(served))
    problems += [finding.as_error(told) for finding in sorted(findings)]
    if problems:
        return Prepared(told, problems=tuple(problems))
    pinned = {}
    for name, loaded in served.items():
        playbook = loaded.playbook
        assert playbook is not None  # noqa: S101 - for the type checker; filtered above
        if name in script.modes:
            playbook = playbook.model_copy(update={"mode": script.modes[name]})
        pinned[name] = Pinned(playbook=playbook, text=loaded.text, sha256=loaded.sha256)
    tests = root.get("tests")
    return Prepared(
        path=told,
        script=script,
        library=pinned,
        rule_files=rule_files,
        lines=tuple(node.line for node in tests.items()) if tests else (),
    )


def _spell_out(plain: Any, root: Node) -> Iterator[Finding]:
    """Put the named series where their names stand; yield the names that nobody gave."""
    named = plain.get("series")
    named = named if isinstance(named, dict) else {}
    for index, scene in enumerate(_list(plain.get("tests"))):
        holders: list[tuple[Place, Any, str]] = [((), scene, "input_series")]
        for key in ("events", "actuators"):
            found = _list(scene.get(key)) if isinstance(scene, dict) else []
            holders += [((key, place), one, "effect") for place, one in enumerate(found)]
        for above, holder, key in holders:
            if not isinstance(holder, dict) or key not in holder:
                continue
            said = holder[key]
            spelled: list[Any] = []
            for place, item in enumerate(said if isinstance(said, list) else [said]):
                if isinstance(item, str) and item not in named:
                    at = root.place("tests", index, *above, key, place)
                    hint = did_you_mean(item, named, otherwise="name it in series, at the top")
                    yield Finding(*at, f"there are no series {item!r}", hint)
                else:
                    spelled += _list(named[item]) if isinstance(item, str) else [item]
            holder[key] = spelled


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _missing(folder: Path, script: Script, root: Node) -> Iterator[Finding]:
    for key, names in (("playbooks", script.playbooks), ("rule_files", script.rule_files)):
        for index, name in enumerate(names):
            if not (folder / name).exists():
                hint = f"seen from {folder}"
                yield Finding(*root.place(key, index), f"there is no file {name!r}", hint)
    for index, scene in enumerate(script.tests):
        if scene.alerts_from_rules and not script.rule_files:
            message, hint = "no rules are named that could fire", "name them in rule_files"
            yield Finding(*root.place("tests", index, "alerts_from_rules"), message, hint)


def _unknown_names(script: Script, root: Node, playbooks: Collection[str]) -> Iterator[Finding]:
    targets = set(script.inventory)
    for name in script.modes:
        yield from _known("playbook", name, playbooks, root.place("modes", name))
    names: dict[str, int] = {}
    for index, scene in enumerate(script.tests):
        at: Place = ("tests", index)
        if scene.name in names:
            message = f"a test of this name stands on line {names[scene.name]}"
            yield Finding(*root.place(*at, "name"), message, "say what this one promises")
        names.setdefault(scene.name, root.place(*at, "name")[0])
        yield from _behind_the_end(scene, root, at)
        yield from _impossible(scene, script, root, at)
        yield from _scopes(scene, root, at, known=_in_scope(script, playbooks))
        for place, target in _targets_named(scene):
            yield from _known("target", target, targets, root.place(*at, *place))
        for place, playbook in _playbooks_named(scene):
            yield from _known("playbook", playbook, playbooks, root.place(*at, *place))


def _known(
    kind: str, name: str, known: Collection[str], place: tuple[int, int]
) -> Iterator[Finding]:
    if name not in known:
        listed = one_of(sorted(known)) if known else "there is none"
        hint = did_you_mean(name, known, otherwise=listed)
        yield Finding(*place, f"there is no {kind} {name!r}", hint)


def _behind_the_end(scene: Scene, root: Node, at: Place) -> Iterator[Finding]:
    expected = ((("expect", key), getattr(scene.expect, key)) for key in EXPECTED_AT)
    happens = (
        ((key,), getattr(scene, key)) for key in ("alerts", "events", "silences", "controls")
    )
    for place, found in (*happens, *expected):
        for index, one in enumerate(found or ()):
            if one.at is not None and one.at > scene.length:
                message = f"the test ends after {format_duration(scene.length)}"
                hint = "give it a greater length"
                yield Finding(*root.place(*at, *place, index, "at"), message, hint)
    yield from _never_ends(scene, root, at)


def _never_ends(scene: Scene, root: Node, at: Place) -> Iterator[Finding]:
    ends = [(("alerts", i, "until"), one.until) for i, one in enumerate(scene.alerts)]
    ends += [(("silences", i, "until"), one.until) for i, one in enumerate(scene.silences)]
    begins = [(("actuators", i, "after"), one.after) for i, one in enumerate(scene.actuators)]
    for place, moment in (*ends, *begins):
        if moment is not None and moment > scene.length:
            message = f"the test ends after {format_duration(scene.length)}"
            hint = "give it a greater length, or leave it out"
            yield Finding(*root.place(*at, *place), message, hint)


def _impossible(scene: Scene, script: Script, root: Node, at: Place) -> Iterator[Finding]:
    for index, event in enumerate(scene.events):
        target = script.inventory.get(event.target)
        if target is None:
            continue
        if event.becomes in OF_PROCESSES and not target.process:
            place = root.place(*at, "events", index, "becomes")
            yield Finding(*place, f"nothing runs {event.target}", "its process is false above")
        knobs = {*target.settings, "weight", "replicas"}
        if event.pin is not None and event.pin not in knobs:
            place = root.place(*at, "events", index, "pin")
            hint = did_you_mean(event.pin, knobs, otherwise=one_of(sorted(target.settings)))
            yield Finding(*place, f"{event.target} has no setting {event.pin!r}", hint)


def _in_scope(script: Script, playbooks: Collection[str]) -> Mapping[str, Collection[str]]:
    return {
        "playbook": playbooks,
        "target": script.inventory,
        "pool": {target.pool for target in script.inventory.values() if target.pool},
        "action": ACTION_KINDS,
    }


def _scopes(
    scene: Scene, root: Node, at: Place, *, known: Mapping[str, Collection[str]]
) -> Iterator[Finding]:
    for index, control in enumerate(scene.controls):
        for verb in ("pause", "resume", "stop"):
            scope = getattr(control, verb)
            if scope is None or scope == ALL:
                continue
            place = root.place(*at, "controls", index, verb)
            kind, colon, name = scope.partition(":")
            # What is under way cannot be stopped by what it does.
            kinds = [one for one in known if (verb, one) != ("stop", "action")]
            if kind not in kinds or not colon:
                hint = did_you_mean(kind, kinds, otherwise=f"write {ALL}, or KIND:NAME")
                message = f"{scope!r} is no scope: {one_of([ALL, *kinds])}"
                yield Finding(*place, message, hint)
            else:
                yield from _known(kind, name, known[kind], place)


def _targets_named(scene: Scene) -> Iterator[tuple[Place, str]]:
    for index, event in enumerate(scene.events):
        yield ("events", index, "target"), event.target
    for index, behaviour in enumerate(scene.actuators):
        if behaviour.target:
            yield ("actuators", index, "target"), behaviour.target
    for key in ("decisions", "runs", "actions", "would"):
        for index, one in enumerate(getattr(scene.expect, key) or ()):
            if one.target:
                yield ("expect", key, index, "target"), one.target
    for name in scene.expect.targets:
        yield ("expect", "targets", name), name


def _playbooks_named(scene: Scene) -> Iterator[tuple[Place, str]]:
    for index, control in enumerate(scene.controls):
        for verb in ("cancel", "approve", "reject"):
            name = getattr(control, verb)
            if name is not None:
                yield ("controls", index, verb), name
    for key in ("decisions", "runs"):
        for index, one in enumerate(getattr(scene.expect, key) or ()):
            if one.playbook:
                yield ("expect", key, index, "playbook"), one.playbook


def _unread(path: str, message: str, hint: str) -> PlaybookError:
    return PlaybookError(message, path=path, line=1, column=1, hint=hint)
