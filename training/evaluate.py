"""Measure the detector: on held-out cursor themes, on the canary, on the real recording.

Usage: python training/evaluate.py WEIGHTS DATA [--samples detector_service/samples]

Called by a person after train.py; its lines are the figures of docs/model-card.md. The surprise:
the service predicts at 640 px, so the recording and the canary are measured at 640, 480 and 320.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

import av
import cv2
import numpy as np
from cpu_yolo import YOLO, use_threads

CONFIDENCE = 0.3  # the threshold of the original ScreenFilter
MATCH = 0.5  # IoU from which a box counts as found


def iou(one: list[float], other: list[float]) -> float:
    """Return intersection over union of two x1, y1, x2, y2 boxes."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(0.0, width) * max(0.0, height)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return shared / (sum(areas) - shared)


def found(model: YOLO, image: np.ndarray, imgsz: int) -> list[tuple[float, list[float]]]:
    """Return (confidence, box) of every detection, the surest first."""
    boxes = model.predict(image, imgsz=imgsz, conf=CONFIDENCE, verbose=False)[0].boxes
    return list(zip(boxes.conf.tolist(), boxes.xyxy.tolist(), strict=True))


def held_out(weights: Path, data: Path) -> None:
    """Print mAP on the three sets of cursor themes that were never trained on."""
    for name in ("test", "real", "breeze"):
        model = YOLO(weights)
        scores = model.val(
            data=str(data / f"{name}.yaml"),
            imgsz=320,
            batch=16,
            device="cpu",
            workers=0,
            plots=False,
            verbose=False,
            project=str(data.resolve() / "val"),
            exist_ok=True,
        ).box
        print(
            f"{name}: mAP50 {scores.map50:.3f} mAP50-95 {scores.map:.3f} "
            f"precision {scores.mp:.3f} recall {scores.mr:.3f}"
        )


def canary(model: YOLO, samples: Path) -> None:
    """Print what is found on the canary picture at each size."""
    truth = json.loads((samples / "canary.json").read_text(encoding="utf-8"))
    image = cv2.imread(str(samples / "canary.png"))
    for imgsz in (640, 480, 416, 320, 256):
        lines = [
            f"confidence {sure:.2f} IoU {iou(box, truth['xyxy']):.2f}"
            for sure, box in found(model, image, imgsz)
        ]
        print(f"canary at {imgsz}: {'; '.join(lines) or 'nothing'}")


def recording(model: YOLO, samples: Path) -> None:
    """Print how often the surest box of a frame of the recording is the cursor."""
    truth = json.loads((samples / "screen.json").read_text(encoding="utf-8"))["frames"]
    with av.open(str(samples / "screen.mp4")) as film:
        frames = [frame.to_ndarray(format="bgr24") for frame in film.decode(video=0)]
    shown = Counter(told["shape"] for told in truth)
    for imgsz in (960, 640, 480, 320):
        seen: Counter[str] = Counter()
        first = right = boxes = 0
        for image, told in zip(frames, truth, strict=True):
            hits = [iou(box, told["xyxy"]) >= MATCH for _, box in found(model, image, imgsz)]
            first += bool(hits) and hits[0]
            right += any(hits)
            seen[told["shape"]] += any(hits)
            boxes += len(hits)
        print(
            f"recording at {imgsz}: cursor found in {right}/{len(frames)} frames, as the surest "
            f"box in {first}; {boxes - right} boxes are no cursor; "
            + ", ".join(f"{kind} {seen[kind]}/{shown[kind]}" for kind in sorted(shown))
        )


def main() -> None:
    """Print every figure."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("weights", type=Path)
    arguments.add_argument("data", type=Path)
    arguments.add_argument("--samples", type=Path, default=Path("detector_service/samples"))
    options = arguments.parse_args()
    use_threads(2)
    model = YOLO(options.weights)
    canary(model, options.samples)
    recording(model, options.samples)
    held_out(options.weights, options.data)


if __name__ == "__main__":
    main()
