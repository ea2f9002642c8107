"""The HTTP surface: the Alertmanager webhook, the read API, and what people may change."""

from __future__ import annotations
