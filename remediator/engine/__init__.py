"""Decisions: from stored alerts to runs, and from runs to verdicts. No IO library in here.

It meets the outside through `ports` and the journal through `store` functions.
"""

from __future__ import annotations
