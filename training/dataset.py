"""Compose the cursor data set in YOLO format from screenshots and X cursor themes.

Usage: python training/dataset.py SCREENS OUT [--train 3600] [--held-out 300] [--seed 0]

Called after screens.py and before train.py. The same seeds give the same pixels. The surprise: the
order is the order of a real recording (cursor on the screen, then the video codec, then the
detector's resize), so small cursors are blurred the way they are blurred in life.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from random import Random

import av
import cv2
import numpy as np
import yaml
from xcursor import ICONS, KINDS, Cursor, load, visible_box

CROP = 320  # side of a training picture, px
KIND_WEIGHTS = {"arrow": 50, "hand": 16, "text": 12}  # every other kind weighs 2
NOMINAL_SIZES = (16, 20, 24, 24, 24, 24, 24, 28, 32, 32, 32, 36, 40, 48, 48, 64)
SCALES = (0.4, 1.3)  # detector pixels for one screen pixel, log-uniform

TRAIN_FAMILIES = (
    ("DMZ-White",),
    ("DMZ-Black",),
    ("whiteglass",),
    ("redglass", "handhelds"),
    tuple(sorted(p.name for p in ICONS.glob("Bibata-*"))),
    tuple(sorted(p.name for p in ICONS.glob("Chameleon-*"))),
    tuple(sorted(p.name for p in ICONS.glob("oxy-*"))),
)
HELD_OUT_FAMILIES = (("Adwaita",), ("breeze_cursors",), ("Breeze_Snow",))

Families = tuple[tuple[str, ...], ...]
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Split:
    """One side of the data: which pictures, which cursors, how many at most on one picture."""

    name: str
    screens: Path
    families: Families
    seed: int
    most_cursors: int


@cache
def screen(path: Path) -> np.ndarray:
    """Return a screenshot as BGR, kept in memory."""
    image = cv2.imread(str(path))
    if image is None:
        raise ValueError(f"{path} is no picture")
    return image


def draw_cursor(random: Random, families: Families) -> np.ndarray:
    """Return RGBA of a random cursor at a random nominal size, in screen pixels."""
    sizes: dict[int, Cursor] = {}
    while not sizes:
        theme = random.choice(random.choice(families))
        weights = [KIND_WEIGHTS.get(kind, 2) for kind in KINDS]
        sizes = load(theme, random.choices(list(KINDS), weights)[0])
    wanted = random.choice(NOMINAL_SIZES)
    nominal = min(sizes, key=lambda size: (size < wanted, abs(size - wanted)))
    rgba = sizes[nominal].rgba
    ratio = wanted / nominal
    if 0.8 < ratio < 1.25:  # a desktop shows the nearest bitmap, it does not resample by a little
        return rgba
    side = (max(1, round(rgba.shape[1] * ratio)), max(1, round(rgba.shape[0] * ratio)))
    return cv2.resize(rgba, side, interpolation=cv2.INTER_AREA if ratio < 1 else cv2.INTER_LINEAR)


def paste(image: np.ndarray, rgba: np.ndarray, x: int, y: int) -> Box | None:
    """Blend `rgba` (RGB order) on `image` (BGR) at x, y; return the visible box, clipped.

    Returns None, and leaves the image alone, if less than half of the cursor would be seen.
    """
    x1, y1, x2, y2 = visible_box(rgba)
    height, width = image.shape[:2]
    box = (max(0, x + x1), max(0, y + y1), min(width, x + x2), min(height, y + y2))
    seen = max(0, box[2] - box[0]) * max(0, box[3] - box[1])
    if seen < 0.5 * (x2 - x1) * (y2 - y1):
        return None
    left, top = max(0, -x), max(0, -y)
    piece = rgba[top : max(0, height - y), left : max(0, width - x)].astype(np.float32)
    region = image[max(0, y) : max(0, y) + piece.shape[0], max(0, x) : max(0, x) + piece.shape[1]]
    alpha = piece[..., 3:] / 255
    region[:] = (region * (1 - alpha) + piece[..., 2::-1] * alpha).round().astype(np.uint8)
    return box


def overlap(one: Box, other: Box) -> bool:
    """Tell whether two boxes touch."""
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def draw_lookalike(random: Random, image: np.ndarray) -> None:
    """Draw something that is no cursor: a triangle, an arrow, a bar, a plus, a letter."""
    x, y = random.randrange(image.shape[1]), random.randrange(image.shape[0])
    size = random.randint(6, 30)
    colour = tuple(random.randrange(256) for _ in range(3))
    draw = random.randrange(5)
    if draw == 0:
        corners = [
            (x + random.randint(-size, size), y + random.randint(-size, size)) for _ in "abc"
        ]
        cv2.fillPoly(image, [np.array(corners, np.int32)], colour, cv2.LINE_AA)
    elif draw == 1:
        end = (x + random.randint(-2 * size, 2 * size), y + random.randint(-2 * size, 2 * size))
        cv2.arrowedLine(image, (x, y), end, colour, random.randint(1, 3), cv2.LINE_AA)
    elif draw == 2:
        cv2.line(image, (x, y), (x, y + size), colour, random.randint(1, 2))
    elif draw == 3:
        cv2.drawMarker(image, (x, y), colour, cv2.MARKER_CROSS, size, random.randint(1, 3))
    else:
        letter = random.choice("IlT+>^?|X[]")
        font = random.randrange(4)
        cv2.putText(image, letter, (x, y), font, size / 22, colour, random.randint(1, 2), 16)


def through_h264(image: np.ndarray, crf: int) -> np.ndarray:
    """Return the picture after one intra frame of H.264 at constant rate factor `crf`."""
    held = io.BytesIO()
    side = (image.shape[1] // 2 * 2, image.shape[0] // 2 * 2)
    even = np.ascontiguousarray(image[: side[1], : side[0]])
    with av.open(held, "w", format="mp4") as out:
        stream = out.add_stream("libx264", rate=10)
        stream.width, stream.height = side
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": str(crf), "preset": "ultrafast", "threads": "1"}
        out.mux(stream.encode(av.VideoFrame.from_ndarray(even, format="bgr24")))
        out.mux(stream.encode())
    held.seek(0)
    with av.open(held) as encoded:
        return next(encoded.decode(video=0)).to_ndarray(format="bgr24")


def through_jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    """Return the picture after JPEG at `quality` (1-100)."""
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], 1)


def degrade(random: Random, image: np.ndarray) -> np.ndarray:
    """Send most pictures through a codec, as recordings and uploads go."""
    draw = random.random()
    if draw < 0.45:
        return through_h264(image, random.randint(18, 34))
    return through_jpeg(image, random.randint(35, 95)) if draw < 0.75 else image


def busy_crop(random: Random, background: np.ndarray, side: int) -> np.ndarray:
    """Return the busier of two random crops: most of a page is empty, and emptiness is easy."""
    crops = []
    for _ in range(2):
        x, y = (random.randint(0, background.shape[axis] - side) for axis in (1, 0))
        crops.append(background[y : y + side, x : x + side])
    return max(crops, key=lambda crop: float(crop[::4, ::4].std()))


def compose(random: Random, split: Split, screens: list[Path]) -> tuple[np.ndarray, list[Box]]:
    """Return a CROP x CROP picture and the boxes on it, in its pixels."""
    scale = float(np.exp(random.uniform(*np.log(SCALES))))
    background = screen(random.choice(screens))
    side = min(round(CROP / scale) // 2 * 2, *(n // 2 * 2 for n in background.shape[:2]))
    image = busy_crop(random, background, side).copy()
    for _ in range(random.choice((0, 0, 0, 1, 2, 4))):
        draw_lookalike(random, image)
    boxes: list[Box] = []
    wanted = random.choices((0, 1, split.most_cursors), (15, 55, 30))[0]
    for _ in range(wanted):
        rgba = draw_cursor(random, split.families)
        x, y = (random.randint(-rgba.shape[0] // 2, side - rgba.shape[0] // 2) for _ in "xy")
        x1, y1, x2, y2 = visible_box(rgba)
        if not any(overlap((x + x1, y + y1, x + x2, y + y2), box) for box in boxes):
            box = paste(image, rgba, x, y)
            boxes += [box] if box else []
    image = degrade(random, image)
    down = cv2.INTER_LINEAR if random.random() < 0.6 else cv2.INTER_AREA
    image = cv2.resize(image, (CROP, CROP), interpolation=down)
    ratio = CROP / side
    return image, [(a * ratio, b * ratio, c * ratio, d * ratio) for a, b, c, d in boxes]


def write_one(split: Split, out: Path, number: int) -> None:
    """Write picture `number` of a split and its label file."""
    random = Random(split.seed + number)
    image, boxes = compose(random, split, sorted(split.screens.glob("*.png")))
    lines = [
        f"0 {(a + c) / 2 / CROP:.6f} {(b + d) / 2 / CROP:.6f} "
        f"{(c - a) / CROP:.6f} {(d - b) / CROP:.6f}\n"
        for a, b, c, d in boxes
    ]
    cv2.imwrite(str(out / "images" / split.name / f"{number:05}.png"), image)
    label = out / "labels" / split.name / f"{number:05}.txt"
    label.write_text("".join(lines), encoding="ascii")


def write_split(
    split: Split, count: int, out: Path, run: Callable[..., object], chunk: int
) -> None:
    """Write `count` pictures of a split."""
    for kind in ("images", "labels"):
        (out / kind / split.name).mkdir(parents=True, exist_ok=True)
    list(run(partial(write_one, split, out), range(count), chunksize=chunk))


def main() -> None:
    """Write the splits and one YOLO data file for each set that is evaluated."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("screens", type=Path)
    arguments.add_argument("out", type=Path)
    arguments.add_argument("--train", type=int, default=3600)
    arguments.add_argument("--held-out", type=int, default=300)
    arguments.add_argument("--seed", type=int, default=0, help="of the train split")
    options = arguments.parse_args()
    train = Split("train", options.screens / "train", TRAIN_FAMILIES, options.seed, 3)
    held_out = [
        Split("test", options.screens / "test", HELD_OUT_FAMILIES, 10_000_000, 1),
        Split("real", options.screens / "real", HELD_OUT_FAMILIES, 20_000_000, 1),
        Split("breeze", options.screens / "real", HELD_OUT_FAMILIES[1:], 30_000_000, 1),
    ]
    with ProcessPoolExecutor(2) as pool:
        write_split(train, options.train, options.out, pool.map, 25)
        for split in held_out:
            write_split(split, options.held_out, options.out, pool.map, 25)
    for split in held_out:
        data = {
            "path": str(options.out.resolve()),
            "train": "images/train",
            "val": f"images/{split.name}",
            "names": {0: "cursor"},
        }
        (options.out / f"{split.name}.yaml").write_text(yaml.safe_dump(data), encoding="utf-8")
    print(f"{options.train} + {len(held_out)} x {options.held_out} pictures in {options.out}")


if __name__ == "__main__":
    main()
