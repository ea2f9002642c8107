"""Targets and the inventory: the only things a run may change.

Built by `app` from settings; read by dispatch. The surprise: lookup is by name or by the exact
`instance` label and by nothing else, so that no alert label can reach a target that a person did
not list.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from remediator.model.playbook import Mode


@dataclass(frozen=True)
class Target:
    """One thing a run may change.

    Attributes:
        name: unique; what people and the journal call it.
        instance: the `instance` label under which Prometheus scrapes it.
        job: its `job` label.
        pool: targets that can stand in for each other.
        actuators: which adapter serves which role: `settings` and `process`.
        caps: the boldest modes that the configuration allows here, by the setting that says so.
    """

    name: str
    instance: str = ""
    job: str = ""
    pool: str = ""
    actuators: dict[str, str] = field(default_factory=dict)
    caps: dict[str, Mode] = field(default_factory=dict)


class Inventory:
    """The known targets, by name or instance."""

    def __init__(self, targets: Iterable[Target]) -> None:
        self._by_name = {target.name: target for target in targets}
        self._by_instance = {t.instance: t for t in self._by_name.values() if t.instance}

    def find(self, value: str) -> Target | None:
        """Return the target of this name or instance, or None."""
        return self._by_name.get(value) or self._by_instance.get(value)

    def __iter__(self) -> Iterator[Target]:
        return iter(self._by_name.values())

    def __len__(self) -> int:
        return len(self._by_name)
