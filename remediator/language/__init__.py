"""YAML to model, with line and column."""

from __future__ import annotations
