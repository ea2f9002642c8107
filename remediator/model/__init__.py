"""Pure values and rules: no IO, no clock, no randomness. Everyone may import it."""

from __future__ import annotations
