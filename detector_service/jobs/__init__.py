"""Durable video jobs: accepted means it survives kill -9, and ends with the same result.

``video`` has the values, ``journal`` all the SQL and ``rows`` its tables, ``shelf`` the files,
``pipeline`` works one film off chunk by chunk, ``result`` streams what came of it, ``crew`` keeps
it all going, and ``desk`` is what the routes and ``app`` talk to.
Surprise: nothing but a committed chunk counts as done. There is no other trace of progress.
"""

from __future__ import annotations

from detector_service.jobs.bounds import Bounds
from detector_service.jobs.desk import Desk, Draft
from detector_service.jobs.pace import View
from detector_service.jobs.video import Job, Options, Recipe, State, is_id, slug_of

__all__ = [
    "Bounds",
    "Desk",
    "Draft",
    "Job",
    "Options",
    "Recipe",
    "State",
    "View",
    "is_id",
    "slug_of",
]
