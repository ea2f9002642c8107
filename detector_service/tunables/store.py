"""The one writer of the settings document: checks, changes, makes durable, then answers.

Called by the routes from worker threads and by the ticker; readers take ``current`` with no lock,
since a document is never changed in place.
Order of the checks: a replay of an Idempotency-Key first (the retry of a write that succeeded must
not meet the 412 which its own success caused), then If-Match, then the fencing token.
Surprise: an expiry that cannot be written is still applied in memory. The file holds the absolute
expiry, so a restart comes to the same end, and a full disk does not keep a drain alive.
Times are wall-clock times, since they outlive the process; when that clock is set back while we
run, they are set back with it, so that nothing is held longer than it was given.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from detector_service.errors import RefusedError, StateWriteError
from detector_service.tunables.changes import advance, earlier
from detector_service.tunables.document import Document, KeptReply
from detector_service.tunables.history import EXPIRY, Author, recorded
from detector_service.tunables.statefile import StateFile

log = logging.getLogger(__name__)

Command = Callable[[Document, float], Document]
View = Callable[[Document], Mapping[str, Any]]
Watcher = Callable[[str, str], None]

KEPT_REPLIES = 128
JUMP_S = 1.0  # between two looks at the clock, one tick apart; less is a clock being slewed


@dataclass(frozen=True)
class Preconditions:
    """What the headers of a write ask for.

    Attributes:
        if_match: the raw ``If-Match`` header.
        fencing_token: the caller's token; a lower one than the highest seen is refused.
        key: the ``Idempotency-Key``.
        fingerprint: digest of method, path and body; one key belongs to one of them.
    """

    if_match: str | None = None
    fencing_token: int | None = None
    key: str | None = None
    fingerprint: str = ""


@dataclass(frozen=True)
class Reply:
    """What a write is answered with."""

    body: Mapping[str, Any]
    generation: int
    replayed: bool = False


class TunableStore:
    """Keeps the document; one write at a time, durable before it is visible."""

    def __init__(
        self,
        file: StateFile,
        document: Document,
        now: Callable[[], float],
        *,
        monotonic: Callable[[], float] = time.monotonic,
        watch: Watcher | None = None,
    ) -> None:
        """Start from a loaded document.

        Args:
            file: where it is kept.
            document: the state at start; what lapsed meanwhile is advanced by the first tick.
            now: seconds since the epoch.
            monotonic: seconds of a clock that nobody sets.
            watch: told ``(field, owner kind)`` of every changed setting.
        """
        self._file = file
        self._document = document
        self._now = now
        self._monotonic = monotonic
        self._looked_at = self._look()
        self._watch = watch or (lambda _field, _kind: None)
        self._lock = threading.Lock()
        self._unsaved = False  # memory is ahead of the file
        self._unsynced = False  # the file is what memory is, but may not survive a power cut

    @property
    def current(self) -> Document:
        """Return the document in force."""
        return self._document

    def apply(
        self,
        command: Command,
        preconditions: Preconditions,
        view: View,
        *,
        author: Author,
        counts: bool = True,
        dry_run: bool = False,
    ) -> Reply:
        """Run one write: check the preconditions, change, save, publish.

        Args:
            command: a rule of ``changes`` with its wish bound.
            preconditions: from the headers.
            view: makes the body of the answer from the changed document.
            author: who writes and why, for the history and the metric.
            counts: the write raises the generation (a drain does not).
            dry_run: check and answer, but change and keep nothing.

        Raises:
            RefusedError: 409, 412 or 422; nothing changed.
            StateWriteError: could not be made durable; nothing changed, or, where the error says
                ``replaced``, it is in force and a retry with the same key makes it durable.
        """
        with self._lock:
            now = self._time()
            before = self._advanced(now)
            kept = _replay(before, preconditions)
            if kept is not None:
                if self._unsynced:
                    self._keep(before)
                return Reply(kept.body, kept.generation, replayed=True)
            _check_match(before, preconditions.if_match)
            _check_fence(before, preconditions.fencing_token)
            after = command(before, now)
            token = max(before.fencing_token, preconditions.fencing_token or 0)
            after = replace(after, generation=before.generation + counts, fencing_token=token)
            after = recorded(before, after, author, now)
            if dry_run:
                shown = replace(after, generation=before.generation)
                return Reply({**view(shown), "dry_run": True}, before.generation)
            body = dict(view(after))
            after = _remember(after, preconditions, body)
            self._keep(after)
            return Reply(body, after.generation)

    def tick(self) -> bool:
        """Do what is due by the clock; returns whether anything changed."""
        with self._lock:
            now = self._time()
            after = self._advanced(now)
            changed = after is not self._document
            if not (changed or self._unsaved or self._unsynced):
                return False
            known = self._unsaved or self._unsynced
            try:
                self._keep(after)
            except StateWriteError as exc:
                if not known:
                    log.warning("an expiry is in force but not on disk: %s", exc)
                self._unsaved = True
                self._publish(after)
            return changed

    def _advanced(self, now: float) -> Document:
        """Return the document with what is due by the clock done; the same one if nothing is."""
        return recorded(self._document, advance(self._document, now), EXPIRY, now)

    def _time(self) -> float:
        """Return seconds since the epoch; move the document's times along if it was set back."""
        wall_before, steady_before = self._looked_at
        wall, steady = self._looked_at = self._look()
        back = (steady - steady_before) - (wall - wall_before)
        if back > JUMP_S:
            log.warning("the clock was set back by %.1f s; what expires does so no later", back)
            self._document = earlier(self._document, back)
            self._unsaved = True
        return wall

    def _look(self) -> tuple[float, float]:
        """Read both clocks at one moment: a process paused in between would see a jump."""
        while True:
            before, wall, after = self._monotonic(), self._now(), self._monotonic()
            if after - before < JUMP_S:
                return wall, after

    def _keep(self, after: Document) -> None:
        """Make it durable, then visible; what is in the file is visible even if unsynced."""
        try:
            self._file.save(after)
        except StateWriteError as exc:
            if exc.replaced:
                self._unsynced = True
                self._publish(after)
            raise
        self._unsaved = self._unsynced = False
        self._publish(after)

    def _publish(self, after: Document) -> None:
        known, self._document = set(self._document.history), after
        for change in (change for change in after.history if change not in known):
            # What others wrote is quoted: it must not be able to end a line of the log.
            by = f"{change.kind} by {change.owner!r}: {change.reason!r}"
            log.info("%s from %s to %s, %s", change.knob, change.before, change.after, by)
            if change.before != change.after:
                self._watch(change.knob, change.kind)


def _replay(document: Document, asked: Preconditions) -> KeptReply | None:
    kept = document.replies.get(asked.key) if asked.key else None
    if kept is not None and kept.fingerprint != asked.fingerprint:
        raise RefusedError(
            409,
            "idempotency_key_reused",
            f"Idempotency-Key {asked.key!r} was used for another request; use a new key",
        )
    return kept


def _remember(document: Document, asked: Preconditions, body: Mapping[str, Any]) -> Document:
    if not asked.key:
        return document
    fresh = KeptReply(asked.fingerprint, document.generation, body)
    replies = [*document.replies.items(), (asked.key, fresh)]
    return replace(document, replies=dict(replies[-KEPT_REPLIES:]))


def _check_match(document: Document, if_match: str | None) -> None:
    wanted = {f'"{document.generation}"', f'W/"{document.generation}"', "*"}
    if if_match is None or wanted & {tag.strip() for tag in if_match.split(",")}:
        return
    raise RefusedError(
        412,
        "generation",
        f"the settings are at generation {document.generation}, not {if_match}; read them again",
        evidence={"generation": document.generation},
    )


def _check_fence(document: Document, token: int | None) -> None:
    if token is not None and token < document.fencing_token:
        raise RefusedError(
            412,
            "fencing",
            f"token {token} is older than {document.fencing_token}; another writer took over",
            evidence={"fencing_token": document.fencing_token},
        )
