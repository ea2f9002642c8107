"""Ultralytics made fit for a CPU; imported by train.py and evaluate.py before anything of torch.

The surprise: the order of this file matters. The environment must be set before torch starts its
threads, and torchvision must be made importable before ultralytics asks for it.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads starve each other
os.environ.setdefault("YOLO_AUTOINSTALL", "false")
os.environ.setdefault("YOLO_OFFLINE", "true")
os.environ.setdefault("ULTRALYTICS_SAFE_LOAD", "1")

import torch

from detector_service.backends.shim import ensure_torchvision

ensure_torchvision()

from ultralytics import YOLO  # noqa: E402 - after the shim
from ultralytics.engine import trainer  # noqa: E402 - after the shim
from ultralytics.utils import torch_utils  # noqa: E402 - after the shim


def use_threads(threads: int) -> None:
    """Use this many threads; ultralytics sets its own number, so call it after each set-up."""
    torch_utils.NUM_THREADS = threads
    torch.set_num_threads(threads)


def train_in_bf16() -> None:
    """Make the trainer compute in bf16: on a CPU it refuses, which costs half of the speed."""
    trainer.autocast = lambda *_arguments, **_options: torch.autocast("cpu", torch.bfloat16)


__all__ = ["YOLO", "train_in_bf16", "use_threads"]
