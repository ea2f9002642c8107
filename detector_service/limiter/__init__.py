"""Admission: who may come in, who may run, and how many; used by the routes and the video jobs.

Surprise: nobody sets the limit. The ceiling is a setting; what runs below it is measured.
"""

from __future__ import annotations

from detector_service.limiter.adaptive import AdaptiveLimit
from detector_service.limiter.admission import Limiter, Limits, Place

__all__ = ["AdaptiveLimit", "Limiter", "Limits", "Place"]
