"""The HTTP surface: ``detect``, ``videos``, ``control``, ``legacy`` (the article's), ``health``.

``parts`` is what they reach, ``wire`` what they share; ``app`` mounts them in this order.
"""

from __future__ import annotations

from detector_service.routes import control, detect, health, legacy, videos
from detector_service.routes.parts import Parts

ROUTERS = (
    *(health.router, control.router, control.guarded, legacy.router),
    *(detect.router, videos.router),
)

__all__ = ["ROUTERS", "Parts"]
