"""Evidence: all that is asked before a decision, so that the transaction that decides asks nobody.

Gathered by admission; judged by the guards. The surprise: it carries no verdict and knows no
guard's limits. No answer is kept as such, with the reason why there is none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from remediator.engine.ports import MetricSource, SilenceSource
from remediator.errors import TemporaryError
from remediator.model.alert import Silence
from remediator.model.guard import HealthyOthersGuard, RequireGuard
from remediator.model.playbook import Playbook
from remediator.model.verdict import Reading, Vector

# So many series of an answer are shown with a decision.
SERIES_SHOWN = 50


@dataclass(frozen=True)
class Evidence:
    """What was asked, and when.

    Attributes:
        asked_at: the journal's clock before the first question (docs/decisions/0007).
        readings: answers of one number, by query.
        vectors: answers of several series, by query.
        silences: the active silences; empty as well when nobody could say.
        unsure: why nobody could say which silences there are; empty when somebody could.
    """

    asked_at: datetime
    readings: Mapping[str, Reading] = field(default_factory=dict)
    vectors: Mapping[str, Vector] = field(default_factory=dict)
    silences: tuple[Silence, ...] = ()
    unsure: str = ""

    def told(self) -> dict[str, Any]:
        """Return it as the record of a decision shows it, JSON-ready."""
        found: dict[str, Any] = {
            "readings": [
                {"query": r.query, "value": r.value, "said": r.describe(), "at": r.at.isoformat()}
                for r in self.readings.values()
            ]
        }
        if self.vectors:
            found["series"] = [
                {
                    "query": vector.query,
                    "values": dict(sorted(vector.by("instance").items())[:SERIES_SHOWN]),
                    "at": vector.at.isoformat(),
                }
                for vector in self.vectors.values()
            ]
        return found


async def gather(
    plan: Playbook, metrics: MetricSource, silences: SilenceSource, asked_at: datetime
) -> Evidence:
    """Ask whatever the guards of a playbook need to know. Never raises: no answer is evidence."""
    readings = {g.require.query for g in plan.guards if isinstance(g, RequireGuard)}
    vectors = {g.healthy_others.healthy for g in plan.guards if isinstance(g, HealthyOthersGuard)}
    in_force, unsure = await _silences(silences)
    return Evidence(
        asked_at=asked_at,
        readings={q: replace(await metrics.query(q), at=asked_at) for q in sorted(readings)},
        vectors={q: replace(await metrics.series(q), at=asked_at) for q in sorted(vectors)},
        silences=in_force,
        unsure=unsure,
    )


async def _silences(source: SilenceSource) -> tuple[tuple[Silence, ...], str]:
    try:
        return tuple(await source.silences()), ""
    except TemporaryError as error:
        return (), str(error)
