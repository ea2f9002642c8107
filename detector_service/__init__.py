"""The protected service: a YOLO screen and cursor detector with run-time tunables."""

from __future__ import annotations
