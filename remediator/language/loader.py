"""Playbook files -> the playbooks that serve, and everything that is wrong with the rest.

Called by `app` at start and on reload, and by `remediator check`. The surprise: nothing here raises
for what a file holds. A broken file is a value with problems in it, a broken edit leaves the last
good version serving, and no file can stop another.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType

from pydantic import ValidationError

from remediator.errors import PlaybookError
from remediator.language.complaints import complaints
from remediator.language.crossing import cross_check
from remediator.language.finding import MAX_FINDINGS, Finding
from remediator.language.lint import check_meaning, with_windows
from remediator.language.shape import texts_in
from remediator.language.surroundings import NOWHERE, Surroundings
from remediator.language.templates import templates_in
from remediator.language.text_checks import check_texts
from remediator.language.tree import MAX_BYTES, Node, read_tree
from remediator.model.playbook import Playbook
from remediator.model.template import render_playbook, render_schedule, template_values

SUFFIXES = (".yaml", ".yml")
# Tests of playbooks lie beside them (`remediator test`) and are none.
TEST_SUFFIXES = (".test.yaml", ".test.yml")
SERVING = "serving"
# For every label, to fill the templates in once; no filter that means anything empties it.
_SOME_VALUE = "some-value"


@dataclass(frozen=True)
class Loaded:
    """One version of one playbook file.

    Attributes:
        path: the file as the user named it.
        text: its exact text.
        sha256: hash of the text, in hex; a run pins it.
        playbook: the playbook, or None when there is any problem.
        problems: what keeps it from serving, ordered by line; at most `MAX_FINDINGS`.
        warnings: doubts that do not, ordered by line.
        status: `serving`, or `stale: FILE:LINE:COLUMN: ...` when the file has since been broken
            and this is the last good version of it.
        root: the text as a tree; None when it is not YAML.
    """

    path: str
    text: str
    sha256: str
    playbook: Playbook | None = None
    problems: tuple[PlaybookError, ...] = ()
    warnings: tuple[PlaybookError, ...] = ()
    status: str = SERVING
    root: Node | None = field(default=None, repr=False, compare=False)

    @property
    def name(self) -> str:
        """The playbook's name, also of a broken one where it can be read; else empty."""
        node = self.root.get("name") if self.root else None
        return node.value if node and isinstance(node.value, str) else ""


def load_text(text: str, *, path: str, surroundings: Surroundings = NOWHERE) -> Loaded:
    """Read one playbook. Never raises for what the text holds.

    Args:
        text: the YAML text.
        path: what to call it in messages.
        surroundings: what the configuration knows by name; a playbook may name nothing else.
    """
    clean = text.removeprefix("\ufeff")
    root, findings = read_tree(clean)
    playbook = None
    if root is not None:
        playbook, more = _build(root, surroundings)
        findings += more
    findings.sort()
    problems = tuple(finding.as_error(path) for finding in findings if finding.fatal)[:MAX_FINDINGS]
    return Loaded(
        path=path,
        text=text,
        sha256=sha256(text.encode("utf-8", "surrogatepass")).hexdigest(),
        playbook=None if problems else playbook,
        problems=problems,
        warnings=tuple(finding.as_error(path) for finding in findings if not finding.fatal),
        root=root,
    )


def load_bytes(data: bytes, *, path: str, surroundings: Surroundings = NOWHERE) -> Loaded:
    """Read one playbook from the bytes of its file. Never raises for what they are."""
    if len(data) > MAX_BYTES:
        return _unread(path, f"the file is larger than {MAX_BYTES // 1024} kB", hint="split it")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line = before.count(b"\n") + 1
        column = len(before.rpartition(b"\n")[2].decode("utf-8", "replace")) + 1
        hint = "save the file as UTF-8"
        return _unread(path, "not UTF-8", line=line, column=column, hint=hint)
    return load_text(text, path=path, surroundings=surroundings)


def load_file(path: Path, *, surroundings: Surroundings = NOWHERE) -> Loaded:
    """Read one playbook file. A file that cannot be read is a problem and not an exception."""
    try:
        if not path.is_file():
            return _unread(str(path), "not a file", hint="give a file or a directory that exists")
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        hint = "check its permissions"
        return _unread(str(path), f"cannot be read: {error.strerror or error}", hint=hint)
    return load_bytes(data, path=str(path), surroundings=surroundings)


@dataclass(frozen=True)
class Library:
    """The playbooks that serve.

    Attributes:
        paths: the files and directories they come from.
        surroundings: what the configuration knows by name.
        files: every file as it is now, broken ones included, in order of their paths.
        by_name: what serves, by the playbook's name. A version here may be older than its file;
            its `status` then says so.
        problems: everything wrong in the files as they are now, ordered by file and line.
        warnings: everything doubtful in them.
    """

    paths: tuple[Path, ...] = ()
    surroundings: Surroundings = NOWHERE
    files: tuple[Loaded, ...] = ()
    by_name: Mapping[str, Loaded] = field(default_factory=dict)
    problems: tuple[PlaybookError, ...] = ()
    warnings: tuple[PlaybookError, ...] = ()

    def reload(self) -> Library:
        """Read the files again.

        A new or changed file serves from now on; a deleted one does not; one that was broken by
        an edit goes on serving its last good version, and says so in its `status`.
        """
        return _assemble(self.paths, self.surroundings, previous=self)


def load_files(paths: Iterable[Path], *, surroundings: Surroundings = NOWHERE) -> Library:
    """Read playbooks from files and directories.

    Args:
        paths: files, taken whatever they are called, and directories, searched for `*.yaml` and
            `*.yml` without looking into hidden ones, nor at `*.test.yaml`.
        surroundings: as for `load_text`.
    """
    return _assemble(tuple(paths), surroundings, previous=Library())


def _build(root: Node, surroundings: Surroundings) -> tuple[Playbook | None, list[Finding]]:
    findings = check_texts(root)
    try:
        playbook = Playbook.model_validate(root.plain())
    except ValidationError as error:
        told = [finding for finding in findings if finding.fatal]
        return None, findings + complaints(error, root, told=told)
    playbook = with_windows(playbook, root)
    findings += check_meaning(playbook, root, surroundings)
    if not any(finding.fatal for finding in findings):
        findings += _try_out(playbook, root)
    return playbook, findings


def _try_out(playbook: Playbook, root: Node) -> Iterator[Finding]:
    """Fill the templates in once, so that an alert is not the first to try."""
    names = {
        name for text in texts_in(root) for t in templates_in(text.node.value) for name in t.names
    }
    parts = {
        part: {name[2]: _SOME_VALUE for name in names if name[:2] == ("alert", part)}
        for part in ("labels", "annotations")
    }
    target = dict.fromkeys(("name", "instance", "job", "pool"), _SOME_VALUE)
    try:
        for trigger in playbook.on:
            if trigger.schedule is not None:
                render_schedule(playbook, trigger.schedule)
        render_playbook(playbook, template_values(parts["labels"], parts["annotations"], target))
    except ValidationError as error:
        for finding in complaints(error, root):
            message = f"filled in, {finding.message}"
            yield replace(finding, message=message, hint="say so by default(...), or otherwise")
    except (ValueError, TypeError) as error:
        said = str(error)
        texts = (text.node for text in texts_in(root) if repr(text.node.value) in said)
        node = next(texts, root)
        yield Finding(node.line, node.column, f"the templates cannot be filled in: {said}")


def _unread(path: str, message: str, *, line: int = 1, column: int = 1, hint: str = "") -> Loaded:
    problem = PlaybookError(message, path=path, line=line, column=column, hint=hint)
    return Loaded(path=path, text="", sha256="", problems=(problem,))


def _guarded(path: Path, surroundings: Surroundings) -> Loaded:
    try:
        return load_file(path, surroundings=surroundings)
    except Exception as error:  # noqa: BLE001 - our own mistake about one file stops no other
        message = f"cannot be judged: {type(error).__name__}: {str(error)[:200]}"
        return _unread(str(path), message, hint="please report this file")


def _assemble(paths: tuple[Path, ...], surroundings: Surroundings, *, previous: Library) -> Library:
    files = tuple(_guarded(path, surroundings) for path in _found(paths))
    warnings = [warning for loaded in files for warning in loaded.warnings]
    broken: dict[str, tuple[PlaybookError, ...]] = {}
    while True:
        now = tuple(_refused(loaded, broken.get(loaded.path)) for loaded in files)
        serving = _serving(now, previous)
        told = cross_check(serving, now)
        if not told.problems:
            break
        # Each round breaks at least one more file, so this ends.
        broken |= told.problems
    return Library(
        paths=paths,
        surroundings=surroundings,
        files=now,
        by_name=MappingProxyType(serving),
        problems=tuple(problem for loaded in now for problem in loaded.problems),
        warnings=(*warnings, *told.warnings),
    )


def _refused(loaded: Loaded, problems: tuple[PlaybookError, ...] | None) -> Loaded:
    return replace(loaded, problems=problems, playbook=None) if problems else loaded


def _serving(files: tuple[Loaded, ...], previous: Library) -> dict[str, Loaded]:
    last_good = {loaded.path: loaded for loaded in previous.by_name.values()}
    candidates: list[Loaded] = []
    for loaded in files:
        if loaded.playbook is not None:
            candidates.append(loaded)
        elif loaded.path in last_good:
            status = f"stale: {loaded.problems[0]}"
            candidates.append(replace(last_good[loaded.path], status=status))
    # Whoever serves a name already keeps it; among newcomers the first path wins.
    candidates.sort(key=lambda loaded: not _held(loaded, previous))
    serving: dict[str, Loaded] = {}
    for loaded in candidates:
        serving.setdefault(loaded.name, loaded)
    return dict(sorted(serving.items()))


def _held(loaded: Loaded, previous: Library) -> bool:
    holder = previous.by_name.get(loaded.name)
    return holder is not None and holder.path == loaded.path


def _found(paths: tuple[Path, ...]) -> list[Path]:
    found: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            found |= dict.fromkeys(_inside(path))
        else:
            found[path] = None
    return list(found)


def _inside(directory: Path) -> Iterator[Path]:
    collected: list[Path] = []
    for folder, folders, names in os.walk(directory):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        collected += [
            Path(folder) / name
            for name in names
            if name.endswith(SUFFIXES)
            and not name.endswith(TEST_SUFFIXES)
            and not name.startswith(".")
        ]
    yield from sorted(collected)
