"""Train the cursor detector on a CPU, from random weights or on from ours; strip it for shipping.

Usage: python training/train.py DATA OUT.pt [--start OURS.pt] [--epochs 8] [--lr 0.002] [--seed 0]

Called by a person after dataset.py. The surprise: ultralytics refuses bf16 on a CPU and picks its
own number of threads; cpu_yolo.py overrides both, which halves the time of a step.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from cpu_yolo import YOLO, train_in_bf16, use_threads
from ship import ship


def train(data: Path, folder: Path, start: str, options: argparse.Namespace) -> Path:
    """Train from `start` on data/test.yaml and return the path of the last checkpoint."""
    threads = options.threads
    use_threads(threads)
    train_in_bf16()
    model = YOLO(start)
    model.add_callback("on_train_start", lambda _trainer: use_threads(threads))
    model.train(
        data=str(data / "test.yaml"),
        project=str(folder),
        name="run",
        exist_ok=True,
        pretrained=start.endswith(".pt"),
        device="cpu",
        imgsz=320,
        batch=16,
        epochs=options.epochs,
        optimizer="AdamW",
        lr0=options.lr,
        lrf=0.02,
        cos_lr=True,
        warmup_epochs=1,
        weight_decay=5e-4,
        mosaic=0,
        scale=0.3,
        translate=0.1,
        fliplr=0.0,  # a cursor that points to the right is somebody's icon
        hsv_h=0.02,
        hsv_s=0.5,
        hsv_v=0.3,
        erasing=0,
        cache="ram",
        workers=1,
        val=False,
        plots=False,
        seed=options.seed,
        deterministic=True,
    )
    return folder / "run" / "weights" / "last.pt"


def main() -> None:
    """Train, strip to fp16 and say how long it took."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("data", type=Path)
    arguments.add_argument("out", type=Path)
    arguments.add_argument("--epochs", type=int, default=8)
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--start", default="yolo11n.yaml", help="or weights of ours to go on")
    arguments.add_argument("--lr", type=float, default=0.002)
    arguments.add_argument("--seed", type=int, default=0)
    options = arguments.parse_args()
    started = time.monotonic()
    last = train(options.data, options.out.parent.resolve(), options.start, options)
    ship(last, options.out)
    size = options.out.stat().st_size
    print(f"{options.out}: {size} bytes after {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
