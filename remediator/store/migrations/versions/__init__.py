"""One file a version."""

from __future__ import annotations
