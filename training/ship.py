"""Turn a training checkpoint into the file that is shipped; called by train.py, or by hand.

Usage: python training/ship.py CHECKPOINT OUT.pt

The surprise: a checkpoint remembers folders, the repository's root and every setting of the
machine it was made on. Only what a loader needs is kept: the fp16 model, its names, the licence.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path
from typing import Any

import cpu_yolo  # first: it makes torch and ultralytics usable
import torch
from ultralytics.utils.torch_utils import strip_optimizer

KEPT = ("version", "license", "docs", "epoch", "model")
KEPT_SETTINGS = ("task", "imgsz", "epochs", "batch", "optimizer", "lr0", "seed")


def ship(checkpoint: Path, out: Path) -> str:
    """Write `out` from `checkpoint`; return its SHA-256.

    Raises:
        ValueError: the checkpoint holds no model of one class "cursor".
    """
    strip_optimizer(str(checkpoint), str(out))
    # Our own file; it holds a whole model, which weights_only would have to be told about.
    held: dict[str, Any] = torch.load(out, map_location="cpu", weights_only=False)
    model = held["model"]
    if model.names != {0: "cursor"}:
        raise ValueError(f"{checkpoint} knows {model.names}, expected one class: cursor")
    settings = {name: held["train_args"][name] for name in KEPT_SETTINGS}
    model.args = dict(settings)
    model.pt_path = out.name  # the loader sets its own; ours would name the folder of --start
    kept = {name: held[name] for name in KEPT}
    torch.save(kept | {"train_args": settings, "ema": None}, out)
    return hashlib.sha256(out.read_bytes()).hexdigest()


def main() -> None:
    """Ship one checkpoint."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("checkpoint", type=Path)
    arguments.add_argument("out", type=Path)
    options = arguments.parse_args()
    digest = ship(options.checkpoint, options.out)
    size = options.out.stat().st_size
    classes = cpu_yolo.YOLO(options.out).names  # it loads, with weights_only
    print(f"{options.out}: {size} bytes, classes {classes}, sha256 {digest}")


if __name__ == "__main__":
    main()
