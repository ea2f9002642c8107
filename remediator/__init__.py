"""Remediator: receives alerts, re-checks them, acts by playbook, proves the effect, undoes it."""

from __future__ import annotations
