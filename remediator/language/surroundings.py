"""What a playbook may name that stands in the controller's configuration.

Made by `settings`, handed to the loader. The surprise: None means that nobody said, and then such a
name is not checked; an empty set means that there are none, and then every such name is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Surroundings:
    """The names that the configuration gives to things; None where it is not known.

    Attributes:
        targets: names and instances of the inventory.
        pools: the pools that its targets form.
        endpoints: what a step `http` may call.
        roles: what its targets have beside settings: `process`, `balancer`, `scaler`.
        commands: what a step `command` may run, each with the placeholders of its argv.
    """

    targets: frozenset[str] | None = None
    pools: frozenset[str] | None = None
    endpoints: frozenset[str] | None = None
    roles: frozenset[str] | None = None
    commands: Mapping[str, frozenset[str]] | None = None


NOWHERE = Surroundings()
