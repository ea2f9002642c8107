"""Make the backgrounds, screenshots without a cursor, for the data set; run once before dataset.py.

Usage: python training/screens.py OUT [--pages 96]

Train backgrounds are drawn pages, photos and X programs; test backgrounds are other drawn pages and
real documents of Debian packages. The surprise: no folder is ever shared between the two.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import cv2
import matplotlib as mpl
import ultralytics
from browser import screenshot
from pages import draw_page
from x_screen import virtual_screen

WALLPAPERS = Path("/usr/share/backgrounds/mate")
HELD_OUT_PHOTOS = {"Storm.jpg", "TwoWings.jpg", "Wood.jpg", "Waves.png", "zidane.jpg"}
REAL_DOCUMENTS = (
    ("/usr/share/doc/libjs-bootstrap4/examples", "*/index.html"),
    ("/usr/share/doc/nodejs/api", "*.html"),
)
SIZES = ((1280, 720), (1600, 1000), (1920, 1080))
FIRST_TEST_SEED = 900_000


def photos(*, held_out: bool) -> tuple[Path, ...]:
    """Return the photos that may be used on one side of the split."""
    packaged = (
        Path(ultralytics.__file__).parent / "assets" / "bus.jpg",
        Path(ultralytics.__file__).parent / "assets" / "zidane.jpg",
        Path(mpl.get_data_path()) / "sample_data" / "grace_hopper.jpg",
    )
    wallpapers = sorted(p for p in WALLPAPERS.rglob("*.*") if "x" not in p.stem[-9:])
    found = (*packaged, *wallpapers)
    return tuple(p for p in found if (p.name in HELD_OUT_PHOTOS) is held_out)


def shoot_drawn(seed: int, out: Path, pool: tuple[Path, ...]) -> None:
    """Draw page `seed` and take its picture at one of three screen sizes."""
    page = out / f"{seed}.html"
    page.write_text(draw_page(seed, pool), encoding="utf-8")
    random = Random(seed)
    scale = random.choice((1.0, 1.0, 1.25, 1.5))
    screenshot(page, page.with_suffix(".png"), size=random.choice(SIZES), scale=scale)
    page.unlink()


def shoot_real(number: int, document: Path, out: Path) -> None:
    """Take the picture of a document that was written by somebody else."""
    screenshot(document, out / f"{number:03}-{document.stem}.png", size=SIZES[number % 3])


def shoot_programs(seed: int, out: Path) -> None:
    """Take the picture of terminals and small X programs, whose fonts no browser draws.

    The calculator is left out: it is in the recording that evaluate.py measures.
    """
    random = Random(seed)
    size = random.choice(SIZES)
    with virtual_screen(size, theme="DMZ-White", cursor_size=24) as screen:
        for _ in range(7):
            at = f"+{random.randrange(size[0] - 200)}+{random.randrange(size[1] - 150)}"
            screen.start(*program(random, at))
        time.sleep(3)
        with screen.grab(5, pointer=False) as grabbed:
            picture = next(grabbed.decode(video=0)).to_ndarray(format="bgr24")
    cv2.imwrite(str(out / f"x{seed:03}.png"), picture)


def program(random: Random, at: str) -> tuple[str, ...]:
    """Return the argv of a random X program whose window opens at `at` ("+X+Y")."""
    small = random.choice(("xclock", "xlogo", "xman", "xfontsel", "xedit", "xmag", "oclock"))
    if random.random() < 0.3:
        return (small, "-geometry", at)
    colours = random.choice((("white", "black"), ("black", "white"), ("#d8dee9", "#2e3440")))
    fonts = (("-fn", "fixed"), ("-fa", "DejaVu Sans Mono"), ("-fa", "Liberation Mono"))
    command = random.choice(
        (
            "ls -la /usr/bin | tail -99",
            "ls -C /usr/lib",
            "cat /etc/services",
            "cat /usr/share/common-licenses/GPL-3",
            "seq 9000",
        )
    )
    return (
        *("xterm", "-geometry", f"{random.randint(40, 110)}x{random.randint(12, 45)}{at}"),
        *("-fg", colours[0], "-bg", colours[1], *random.choice(fonts)),
        *("-fs", str(random.randint(7, 13)), "-e", "sh", "-c", f"{command}; sleep 60"),
    )


def main() -> None:
    """Write OUT/train, OUT/test and OUT/real, PNG files."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("out", type=Path)
    arguments.add_argument("--pages", type=int, default=96)
    options = arguments.parse_args()
    for name in ("train", "test", "real"):
        (options.out / name).mkdir(parents=True, exist_ok=True)
    documents = [
        path for folder, pattern in REAL_DOCUMENTS for path in sorted(Path(folder).glob(pattern))
    ]
    documents = sorted(Random(1).sample(documents, min(30, len(documents))))
    for seed in range(options.pages // 4):
        shoot_programs(seed, options.out / "train")
    with ThreadPoolExecutor(2) as pool:
        waits = [
            *(
                pool.submit(shoot_drawn, seed, options.out / "train", photos(held_out=False))
                for seed in range(options.pages)
            ),
            *(
                pool.submit(
                    shoot_drawn, FIRST_TEST_SEED + n, options.out / "test", photos(held_out=True)
                )
                for n in range(options.pages // 4)
            ),
            *(
                pool.submit(shoot_real, n, path, options.out / "real")
                for n, path in enumerate(documents)
            ),
        ]
        for wait in waits:
            wait.result()
    print(f"{len(waits)} screenshots in {options.out}")


if __name__ == "__main__":
    main()
