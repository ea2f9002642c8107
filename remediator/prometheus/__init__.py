"""Clients of Prometheus and Alertmanager: where facts come from."""

from __future__ import annotations
