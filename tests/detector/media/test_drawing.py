"""Boxes and labels on images, and images as files."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image as Pillow

from detector_service.backends import Detection, Image
from detector_service.errors import MediaError
from detector_service.media import draw, picture
from detector_service.media.drawing import COLOURS

BOX = (40.0, 60.0, 120.0, 110.0)


def blank(width: int = 320, height: int = 180) -> Image:
    return np.full((height, width, 3), 40, np.uint8)


def found(*xyxy: float, class_id: int = 0, name: str = "cursor", sure: float = 0.87) -> Detection:
    left, top, right, bottom = xyxy or BOX
    return Detection(class_id, name, sure, (left, top, right, bottom))


def changed(image: Image) -> tuple[int, int, int, int]:
    """Return left, top, right, bottom (inclusive) of what differs from a blank image."""
    rows, columns = np.nonzero((image != 40).any(axis=2))
    return columns.min(), rows.min(), columns.max(), rows.max()


def test_a_box_lies_on_the_edges_of_what_was_found() -> None:
    drawn = draw(blank(), [found()])
    for row, column in ((60, 80), (110, 80), (85, 40), (85, 120)):
        assert tuple(drawn[row, column]) == COLOURS[0]
    assert tuple(drawn[85, 80]) == (40, 40, 40)


def test_the_image_given_is_never_written_into() -> None:
    image = blank()
    image.setflags(write=False)
    drawn = draw(image, [found()])
    assert (image == 40).all()
    assert not np.shares_memory(drawn, image)


def test_nothing_found_leaves_the_image_as_it_is() -> None:
    assert (draw(blank(), []) == blank()).all()


@pytest.mark.parametrize(("width", "height"), [(320, 180), (1280, 720), (3840, 2160)])
def test_labels_grow_with_the_image(width: int, height: int) -> None:
    box = (width * 0.2, height * 0.5, width * 0.6, height * 0.9)
    _, top, *_ = changed(draw(blank(width, height), [found(*box)]))
    label = height * 0.5 - top
    assert label >= 11
    assert height / 45 <= label <= height / 10


def test_a_label_has_two_colours_that_differ_clearly() -> None:
    for class_id in range(2 * len(COLOURS)):
        drawn = draw(blank(1280, 720), [found(100, 300, 500, 600, class_id=class_id)])
        label = drawn[280:299, 100:200].reshape(-1, 3).astype(int).sum(axis=1)
        assert label.max() - label.min() > 200


def test_classes_have_colours_of_their_own() -> None:
    colours = {
        tuple(draw(blank(), [found(class_id=class_id)])[110, 80])
        for class_id in range(len(COLOURS))
    }
    assert len(colours) == len(COLOURS)


@pytest.mark.parametrize(
    "xyxy",
    [
        (0, 0, 319, 179),
        (-50, -50, 400, 300),
        (300, 170, 320, 180),
        (10, 10, 10, 10),
        (50, 50, 20, 20),
        (1e30, -1e30, 1e30, 1e30),
        (float("nan"), 0, 10, 10),
        (float("inf"), 0, 10, 10),
    ],
)
def test_boxes_at_and_over_the_edges_are_cut(xyxy: tuple[float, ...]) -> None:
    assert draw(blank(), [found(*xyxy)]).shape == (180, 320, 3)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (8, 8), (5000, 4)])
def test_tiny_images_are_drawn_on(size: tuple[int, int]) -> None:
    assert draw(blank(*size), [found(0, 0, 5, 5)]).shape == (size[1], size[0], 3)


@pytest.mark.parametrize("name", ["", "Zeiger", "光标", "x" * 300, "a\nb"])
def test_any_class_name_is_drawn(name: str) -> None:
    assert (draw(blank(), [found(name=name)]) != 40).any()


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp"])
def test_an_image_becomes_a_file_of_each_kind(kind: str) -> None:
    image = blank()
    image[:, :, 0] = 200  # blue
    opened = Pillow.open(io.BytesIO(picture(image, f"image/{kind}")))
    assert (opened.format or "").lower() == kind
    red, green, blue = opened.convert("RGB").getpixel((160, 90))  # type: ignore[misc]
    assert abs(red - 40) < 9
    assert abs(green - 40) < 9
    assert abs(blue - 200) < 9


def test_an_unknown_kind_of_file_is_refused() -> None:
    with pytest.raises(MediaError, match="image/gif is none of") as told:
        picture(blank(), "image/gif")
    assert told.value.reason == "media_type"


def test_an_image_too_wide_for_the_kind_of_file_is_refused() -> None:
    with pytest.raises(MediaError, match="ask for PNG") as told:
        picture(blank(20_000, 2), "image/webp")
    assert told.value.reason == "too_many_pixels"
