"""What changed in the settings, when and by whom; the last changes, kept in the document.

``store`` records after every write and expiry; ``GET /v1/settings/history`` shows it.
Surprise: what moves no value is no change, except a pin. A controller that renews its lease every
few minutes would otherwise push everything else out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from detector_service.tunables.document import Change, Document

KEPT_CHANGES = 200


@dataclass(frozen=True)
class Author:
    """Who writes and why; ``kind`` is ``lease``, ``direct``, ``pin``, ``legacy`` or ``drain``."""

    kind: str
    owner: str = ""
    reason: str = ""


EXPIRY = Author("expiry")


def recorded(before: Document, after: Document, author: Author, now: float) -> Document:
    """Return ``after`` with what sets it apart from ``before`` in its history.

    An expiry is entered with the owner and the reason of the lease or the pin that ended.
    """
    fresh = tuple(
        _change(name, before, after, author, now)
        for name, value in after.values.items()
        if before.values.get(name) != value or before.pins.get(name) != after.pins.get(name)
    )
    if not fresh:
        return after
    return replace(after, history=(*before.history, *fresh)[-KEPT_CHANGES:])


def _change(name: str, before: Document, after: Document, author: Author, now: float) -> Change:
    ended = before.leases.get(name) or before.pins.get(name) if author == EXPIRY else None
    by = ended or author
    return Change(
        at=now,
        generation=after.generation,
        knob=name,
        before=before.values.get(name, after.values[name]),
        after=after.values[name],
        owner=by.owner,
        kind=author.kind,
        reason=by.reason,
    )
