"""Guards that look at the other targets: who is healthy, who is disturbed, who is in trouble.

Pure. The surprise: every count has a defined zero. A pool nobody is in, an empty answer and a pool
of one refuse; a target that is down already needs no others to be disturbed.
"""

from __future__ import annotations

from decimal import Decimal
from math import floor

from remediator.engine.guards.facts import Facts
from remediator.model.decision import Denied, Reason
from remediator.model.guard import BlastRadius, HealthyOthers, Storm


def healthy_others(spec: HealthyOthers, facts: Facts) -> Denied | None:
    """Refuse to disturb a target when too few others are healthy and left alone."""
    vector = None if facts.evidence is None else facts.evidence.vectors.get(spec.healthy)
    if vector is None or vector.error or not vector.values:
        why = "it was not measured" if vector is None else vector.error or "no data"
        return Denied(Reason.UNKNOWN, why, {"query": spec.healthy})
    measured = vector.by("instance")
    own = measured.get(facts.target.instance)
    if own is not None and own <= 0:
        return None
    pool, targets = facts.pool_of(spec.pool)
    healthy = {one.name for one in targets if (measured.get(one.instance) or 0.0) > 0}
    left = sorted(healthy - facts.disturbed - {facts.target.name})
    if len(left) >= spec.at_least:
        return None
    return Denied(
        Reason.CAPACITY,
        f"{len(left)} others of {pool} are healthy and left alone; {spec.at_least} needed",
        {
            "query": spec.healthy,
            "values": {one.name: measured.get(one.instance) for one in targets},
            "healthy": left,
            "disturbed": sorted(facts.disturbed & {one.name for one in targets}),
            "at_least": spec.at_least,
            "pool": pool,
        },
    )


def blast_radius(spec: BlastRadius, facts: Facts) -> Denied | None:
    """Refuse when one more target of the pool would be acted on than may be at once."""
    pool, targets = facts.pool_of(spec.pool)
    if not targets:
        return Denied(
            Reason.BLAST_RADIUS, f"no target is in pool {pool}", {"pool": pool, "targets": 0}
        )
    at_most = spec.at_most
    if at_most is None:
        # As written: 0.29 of 100 is 29, and in binary it would be 28.
        at_most = max(1, floor(Decimal(str(spec.share)) * len(targets)))
    others = facts.disturbed & {one.name for one in targets} - {facts.target.name}
    if len(others) + 1 <= at_most:
        return None
    return Denied(
        Reason.BLAST_RADIUS,
        f"with this one {len(others) + 1} of {len(targets)} targets of {pool} would be acted on; "
        f"{at_most} allowed",
        {
            "disturbed": sorted(others),
            "at_most": at_most,
            "pool": pool,
            "targets": len(targets),
        },
    )


def storm(spec: Storm, facts: Facts) -> Denied | None:
    """Refuse when too many targets of the pool are in trouble at once."""
    pool, targets = facts.pool_of(spec.pool)
    in_trouble = sorted(facts.in_trouble & {one.name for one in targets})
    if len(in_trouble) <= spec.at_most:
        return None
    return Denied(
        Reason.STORM,
        f"{len(in_trouble)} of {len(targets)} targets of {pool} are in trouble at once; "
        f"{spec.at_most} allowed",
        {
            "in_trouble": in_trouble,
            "at_most": spec.at_most,
            "pool": pool,
            "targets": len(targets),
        },
    )
