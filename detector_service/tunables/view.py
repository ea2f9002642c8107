"""How the settings document and the drain look from outside; used by the routes.

Surprise: times leave as RFC 3339 in UTC, while inside they are seconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from detector_service.tunables.document import Document, Lease, Pin
from detector_service.tunables.history import KEPT_CHANGES
from detector_service.tunables.knobs import KNOBS, Number, ranges


@dataclass(frozen=True)
class Face:
    """What the document's view says about the process itself.

    Attributes:
        instance: the name a balancer or an inventory knows this process by.
        started_at: seconds since the epoch.
        ineffective: knobs that this model, or this version, ignores.
        adaptive_limit: what the service allows itself under the ceiling; None: it does not choose.
        objective_s: the latency at which it aims.
    """

    instance: str
    started_at: float
    ineffective: frozenset[str] = frozenset()
    adaptive_limit: int | None = None
    objective_s: float | None = None


def rfc3339(seconds: float) -> str:
    """Return seconds since the epoch as ``2026-01-31T12:00:00.000Z``."""
    moment = datetime.fromtimestamp(seconds, tz=UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def settings_view(document: Document, face: Face) -> dict[str, Any]:
    """Return the body of ``GET /v1/settings``."""
    leases = {name: _lease(item, document.base[name]) for name, item in document.leases.items()}
    return {
        "generation": document.generation,
        "values": document.values,
        "base": dict(document.base),
        "ranges": ranges(),
        "effective": {name: name not in face.ineffective for name in KNOBS},
        "leases": leases,
        "pins": {name: _pin(item) for name, item in document.pins.items()},
        "owners": dict(document.owners),
        "fencing_token": document.fencing_token,
        "limiter": _limiter(document, face),
        "instance": face.instance,
        "started_at": rfc3339(face.started_at),
    }


def history_view(document: Document) -> dict[str, Any]:
    """Return the body of ``GET /v1/settings/history``: the last changes, newest first."""
    changes = [{**vars(change), "at": rfc3339(change.at)} for change in reversed(document.history)]
    return {"generation": document.generation, "kept": KEPT_CHANGES, "changes": changes}


def drain_view(document: Document, load: Mapping[str, float]) -> dict[str, Any]:
    """Return the body of ``GET /v1/drain``; ``load`` has inflight, queued and oldest_age_s."""
    drain = document.drain
    return {
        "draining": drain is not None,
        **load,
        "expires_at": rfc3339(drain.expires_at) if drain else None,
        "owner": drain.owner if drain else None,
        "reason": drain.reason if drain else None,
    }


def _limiter(document: Document, face: Face) -> dict[str, Any]:
    ceiling, chosen = int(document.values["max_concurrency"]), face.adaptive_limit
    return {
        "limit": ceiling if chosen is None else min(ceiling, chosen),
        "ceiling": ceiling,
        "adaptive": chosen is not None,
        "objective_s": face.objective_s,
    }


def _lease(lease: Lease, base: Number) -> dict[str, Any]:
    return {
        "owner": lease.owner,
        "value": lease.value,
        "base": base,
        "expires_at": rfc3339(lease.expires_at),
        "state": lease.state,
        "revert_step": lease.revert_step,
        "revert_every_s": lease.revert_every_s,
        "reason": lease.reason,
    }


def _pin(pin: Pin) -> dict[str, Any]:
    expires_at = None if pin.expires_at is None else rfc3339(pin.expires_at)
    return {"owner": pin.owner, "reason": pin.reason, "expires_at": expires_at}
