"""How a change reaches a target: one file a kind, all behind the engine's `Actuator` port.

Nothing registers itself here; `app` wires an explicit dict of kinds. Every actuator passes the
contract suite in `tests/actuators/contract.py`.
"""

from __future__ import annotations
