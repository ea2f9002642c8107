"""What can only be said of several playbooks together: names taken twice, escalations, not_while.

Called by the loader, which keeps a playbook with a problem here from serving and asks again. The
surprise: naming a playbook whose file is broken is only a warning, because otherwise one broken
file would take others down with it; an escalation then goes to a person.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from remediator.errors import PlaybookError
from remediator.language.finding import Finding, did_you_mean
from remediator.language.tree import Node
from remediator.model.guard import NotWhileGuard
from remediator.model.playbook import Playbook
from remediator.model.step import PERSON, EscalateStep


class File(Protocol):
    """What is asked of a loaded file."""

    @property
    def path(self) -> str: ...  # noqa: D102 (a field)
    @property
    def name(self) -> str: ...  # noqa: D102 (a field)
    @property
    def playbook(self) -> Playbook | None: ...  # noqa: D102 (a field)
    @property
    def root(self) -> Node | None: ...  # noqa: D102 (a field)


@dataclass(frozen=True)
class Told:
    """What the cross-check found.

    Attributes:
        problems: by path, what keeps that file from serving.
        warnings: doubts that keep nothing from serving.
    """

    problems: dict[str, tuple[PlaybookError, ...]] = field(default_factory=dict)
    warnings: list[PlaybookError] = field(default_factory=list)


def cross_check(serving: Mapping[str, File], files: Iterable[File]) -> Told:
    """Check the playbooks against each other.

    Args:
        serving: what would serve, by name.
        files: every file as it is now; one without a playbook is broken.
    """
    told = Told()
    files = list(files)
    broken = [loaded for loaded in files if loaded.playbook is None]
    for loaded in files:
        if loaded.playbook is None or loaded.root is None:
            continue
        findings = [
            *_duplicate(loaded.name, loaded.path, loaded.root, serving),
            *_escalations(loaded.playbook, loaded.root, serving, broken),
            *_dependencies(loaded.playbook, loaded.root, serving, broken),
        ]
        problems = tuple(f.as_error(loaded.path) for f in sorted(findings) if f.fatal)
        if problems:
            told.problems[loaded.path] = problems
        told.warnings.extend(f.as_error(loaded.path) for f in sorted(findings) if not f.fatal)
    return told


def _duplicate(name: str, path: str, root: Node, serving: Mapping[str, File]) -> Iterator[Finding]:
    holder = serving.get(name)
    if holder is not None and holder.path != path:
        message = f"{name!r} is already the name of the playbook in {holder.path}"
        yield Finding(*root.place("name"), message, "rename one of them; that one goes on serving")


def _escalations(
    playbook: Playbook, root: Node, serving: Mapping[str, File], broken: list[File]
) -> Iterator[Finding]:
    for path, name in _successors(playbook):
        if name in {PERSON, playbook.name}:
            continue
        if name not in serving:
            otherwise = "this would escalate to a person"
            known = {*serving, PERSON} - {playbook.name}
            yield _not_there(root.place(*path), name, known, broken, otherwise)
        elif circle := _circle(playbook.name, name, serving):
            message = f"escalation runs in a circle: {' -> '.join(circle)}"
            yield Finding(*root.place(*path), message, "end it with escalate_to: person")


def _dependencies(
    playbook: Playbook, root: Node, serving: Mapping[str, File], broken: list[File]
) -> Iterator[Finding]:
    for index, guard in enumerate(playbook.guards):
        if not isinstance(guard, NotWhileGuard) or guard.not_while.playbook in serving:
            continue
        place = root.place("guards", index, "not_while", "playbook")
        name, known = guard.not_while.playbook, set(serving) - {playbook.name}
        # Its own name is told by the guards' checks.
        if name != playbook.name:
            yield _not_there(place, name, known, broken, "there is nothing to wait for")


def _not_there(
    place: tuple[int, int], name: str, known: set[str], broken: list[File], otherwise: str
) -> Finding:
    if any(loaded.name in {name, ""} for loaded in broken):
        message = f"no playbook {name!r} serves now; {otherwise}"
        return Finding(*place, message, "repair the broken file", fatal=False)
    use = "use person, or add that playbook" if PERSON in known else "add that playbook"
    hint = did_you_mean(name, known, otherwise=use)
    return Finding(*place, f"no playbook is called {name!r}", hint)


def _successors(playbook: Playbook) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield where a playbook names who follows when it fails, and the name."""
    for index, step in enumerate(playbook.steps):
        if isinstance(step, EscalateStep):
            yield ("steps", index, "escalate_to"), step.escalate_to
    if playbook.on_failure.escalate_to is not None:
        yield ("on_failure", "escalate_to"), playbook.on_failure.escalate_to


def _circle(start: str, following: str, serving: Mapping[str, File]) -> list[str]:
    """Return the names from `start` back to `start`; empty when the chain ends elsewhere."""
    chain = [start]
    name: str | None = following
    while name and name not in chain:
        chain.append(name)
        loaded = serving.get(name)
        name = _successor(loaded.playbook) if loaded and loaded.playbook else None
    return [*chain, start] if name == start else []


def _successor(playbook: Playbook) -> str | None:
    return next((name for _, name in _successors(playbook)), None)
