"""How a person is told: one file a channel."""

from __future__ import annotations
