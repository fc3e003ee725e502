"""What is shown of a scene, in numbers worked out by hand from image_gt_data_layer.cpp of MS-CNN, and where its boxes lie."""

from __future__ import annotations

import numpy as np
import pytest

from pycaffe_compat.errors import DataError
from pycaffe_compat.forks.mscnn.scene_reader import too_small_or_outside
from pycaffe_compat.forks.mscnn.views import (
    ACROSS,
    BOX,
    DOWN,
    NOISE_X,
    NOISE_Y,
    WORDS,
    Cut,
    View,
    choose_centre,
    placed,
    rescaled,
)

STILL = {NOISE_X: 10, NOISE_Y: 10}  # words of no noise


def drawn(numbers: dict[int, int]) -> list[int]:
    return [numbers.get(at, 0) for at in range(WORDS)]


def view(height: int, width: int, *boxes: tuple[int, int, int, int]) -> View:
    """A black picture with white boxes, and a region of no interest that is the first of them."""
    picture = np.zeros((height, width, 3), np.uint8)
    for x1, y1, x2, y2 in boxes:
        picture[y1:y2, x1:x2] = 255
    corners = np.array(boxes, np.float32).reshape(-1, 4)
    return View(picture, corners, corners[:1])


def lies_under_its_box(shown: View) -> bool:
    """Whether the white of a picture is where its box is, to the pixel that resizing blurs."""
    rows, columns = np.nonzero(shown.picture[..., 0] > 127)
    found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    return bool(np.abs(shown.boxes[0] - found).max() <= 1) and np.array_equal(shown.others, shown.boxes[:1])


def test_the_middle_is_that_of_a_box_that_is_drawn() -> None:
    shown = view(40, 60, (10, 4, 20, 10), (30, 20, 50, 36))
    assert choose_centre(shown, (20, 20), drawn({BOX: 6})) == (15, 7, 0)
    assert choose_centre(shown, (20, 20), drawn({BOX: 7})) == (40, 28, 1)


@pytest.mark.parametrize(
    ("size", "numbers", "middle"),
    [
        ((20, 30), {}, (15, 10)),
        ((20, 30), {ACROSS: 30, DOWN: 20}, (45, 30)),
        ((20, 30), {ACROSS: 31, DOWN: 21}, (15, 10)),
        ((20, 30), {ACROSS: 7, DOWN: 3}, (22, 13)),
        ((40, 60), {ACROSS: 9, DOWN: 9}, (30, 20)),
        ((41, 61), {ACROSS: 9, DOWN: 9}, (30, 20)),
    ],
)
def test_without_boxes_the_cut_lies_anywhere_in_the_picture(
    size: tuple[int, int], numbers: dict[int, int], middle: tuple[float, float]
) -> None:
    assert choose_centre(view(40, 60), size, drawn(numbers)) == (*middle, None)


@pytest.mark.parametrize(
    ("factor", "size", "box", "middle"),
    [
        ((1.2, 1.5), (120, 144), (108, 7.5, 132, 22.5), (120, 15)),
        ((0.5, 0.25), (20, 60), (45, 1.25, 55, 3.75), (50, 2.5)),
        ((2, 1.6), (96, 144), (84, 8, 124, 24), (104, 16)),  # cut to 60 × 72 first, from (48, 0)
        ((1, 4), (96, 120), (90, 20, 110, 60), (100, 40)),  # cut to 24 × 120
    ],
)
def test_a_picture_that_grows_much_is_cut_around_its_middle_first(
    factor: tuple[float, float],
    size: tuple[int, int],
    box: tuple[float, ...],
    middle: tuple[float, float],
) -> None:
    shown, centre = rescaled(view(80, 120, (90, 5, 110, 15)), factor, (100, 10))
    assert shown.size == size and centre == pytest.approx(middle)
    np.testing.assert_allclose(shown.boxes, [box], rtol=1e-6)
    assert lies_under_its_box(shown)


def test_scaling_by_nothing_and_to_nothing() -> None:
    shown = view(8, 9, (1, 1, 5, 5))
    assert rescaled(shown, (1, 1), (3, 4)) == (shown, (3, 4))
    with pytest.raises(DataError, match=r"would be scaled to 0 × 1 pixels \(height × width\)"):
        rescaled(shown, (0.1, 0.05), (3, 4))


@pytest.mark.parametrize(
    ("centre", "numbers", "start"),
    [
        ((30, 20), {}, (15, 10)),
        ((30, 20), {NOISE_X: 13, NOISE_Y: 29}, (18, 9)),
        ((30, 20), {NOISE_X: 0, NOISE_Y: 20}, (5, 0)),
        ((1, 1), {}, (0, 0)),
        ((58, 39), {}, (30, 20)),
    ],
)
def test_a_larger_picture_is_cut(centre: tuple[int, int], numbers: dict[int, int], start: tuple[int, int]) -> None:
    box = (34, 22, 36, 24)
    shown, cut = placed(view(40, 60, box), (20, 30), centre, drawn({**STILL, **numbers}))
    assert cut == Cut(0, 0, 30, 20) and shown.size == (20, 30)
    x, y = start
    assert shown.boxes.tolist() == [[box[0] - x, box[1] - y, box[2] - x, box[3] - y]]
    assert not 0 <= box[0] - x < 29 or not 0 <= box[1] - y < 19 or lies_under_its_box(shown)


@pytest.mark.parametrize(
    ("size", "numbers", "begin"),
    [
        ((30, 50), {}, (15, 10)),
        ((30, 50), {NOISE_X: 19, NOISE_Y: 14}, (24, 14)),
        ((30, 50), {NOISE_X: 0, NOISE_Y: 0}, (5, 0)),
        ((12, 22), {NOISE_X: 19, NOISE_Y: 0}, (2, 0)),
        ((10, 20), {NOISE_X: 19, NOISE_Y: 0}, (0, 0)),
    ],
)
def test_a_smaller_picture_is_laid_near_the_middle(
    size: tuple[int, int], numbers: dict[int, int], begin: tuple[int, int]
) -> None:
    shown, cut = placed(view(10, 20, (4, 3, 9, 8)), size, (0, 0), drawn({**STILL, **numbers}))
    x, y = begin
    assert cut == Cut(x, y, 20, 10) and shown.size == (10, 20)
    assert shown.boxes.tolist() == [[4 + x, 3 + y, 9 + x, 8 + y]]


def test_boxes_to_ignore() -> None:
    boxes = np.array(
        [[0, 0, 9, 9], [0, 0, 8, 9], [0, 0, 9, 3], [-9, 0, 8, 9], [-9, 0, 9, 9], [11, 0, 28, 9], [11, 0, 29, 9]],
        np.float32,
    )
    found = too_small_or_outside(boxes, (15, 20), (5, 10))
    assert found.tolist() == [False, True, True, True, False, False, True]
