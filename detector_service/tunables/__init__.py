"""The settings document: tunables, leases over bases, pins, drain, fencing, idempotent replies.

``knobs`` is the table, ``document`` the values, ``changes`` the rules, ``history`` what happened,
``statefile`` the disk, ``store`` the one writer, ``view`` what others see. The routes and ``app``
use it.
"""

from __future__ import annotations

from detector_service.tunables.changes import LEGACY_OWNER, PinWish, Write
from detector_service.tunables.document import Document, Drain
from detector_service.tunables.history import Author
from detector_service.tunables.knobs import KNOBS, Number
from detector_service.tunables.statefile import StateFile
from detector_service.tunables.store import Preconditions, Reply, TunableStore
from detector_service.tunables.view import Face, drain_view, history_view, rfc3339, settings_view

__all__ = [
    "KNOBS",
    "LEGACY_OWNER",
    "Author",
    "Document",
    "Drain",
    "Face",
    "Number",
    "PinWish",
    "Preconditions",
    "Reply",
    "StateFile",
    "TunableStore",
    "Write",
    "drain_view",
    "history_view",
    "rfc3339",
    "settings_view",
]
