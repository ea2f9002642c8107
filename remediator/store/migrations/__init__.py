"""Alembic's environment and the versions of the tables."""

from __future__ import annotations
