"""The room of the device: one thread owns it, frames wait in line for it.

``device`` is the thread, ``line`` decides who is next, ``room`` how many fit, ``pace`` how many
end in time, ``work`` has the values. Used by the detect route, the canary, video jobs and ``app``.
"""

from __future__ import annotations

from detector_service.batcher.device import Batcher
from detector_service.batcher.work import Answer, BatchLimits, DeviceState, Priority, Work

__all__ = ["Answer", "BatchLimits", "Batcher", "DeviceState", "Priority", "Work"]
