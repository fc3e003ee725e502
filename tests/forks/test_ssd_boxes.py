"""SSD's boxes against the fork's formulas, one box at a time in numpy."""

import math

import numpy as np
import pytest
import torch
from box_reference import kept, overlap, random_boxes, size

from pycaffe_compat.forks.ssd import boxes as bx
from pycaffe_compat.proto import caffe_pb2

CODES = (bx.CORNER, bx.CENTER_SIZE, bx.CORNER_SIZE)


ODD = torch.tensor(
    [
        [0.1, 0.1, 0.5, 0.5],
        [0.5, 0.5, 0.1, 0.1],  # ends before it begins
        [0.5, 0.1, 0.9, 0.5],  # touches the first
        [0.2, 0.2, 0.2, 0.4],  # without area
        [math.nan, 0.1, 0.5, 0.5],
        [-math.inf, -math.inf, math.inf, math.inf],
        [0.1, 0.1, math.nan, math.nan],
        [0.1, 0.1, 0.5, 0.5],
    ]
)


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("normalized", [True, False])
def test_overlaps_and_sizes_are_the_forks(normalized: bool) -> None:
    boxes = torch.cat((ODD, random_boxes(8)))
    array = boxes.numpy()
    want = [[overlap(a, b, normalized) for b in array] for a in array]
    np.testing.assert_array_equal(bx.overlaps(boxes, boxes, normalized).numpy(), np.array(want, np.float32))
    np.testing.assert_array_equal(bx.sizes(boxes, normalized).numpy(), [size(a, normalized) for a in array])


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize(("threshold", "eta"), [(0.45, 1.0), (0.0, 1.0), (0.9, 0.8)])
@pytest.mark.parametrize("odd", [False, True])
def test_suppression_keeps_what_the_fork_keeps(threshold: float, eta: float, odd: bool) -> None:
    boxes = random_boxes(3, 90, size=0.8)
    candidates = torch.rand(3, 90, generator=torch.Generator().manual_seed(1)) < torch.tensor([[0.9], [0.3], [0.0]])
    if odd:
        boxes[0, 3 : 3 + len(ODD)] = ODD
    got = bx.suppress(boxes, candidates, threshold, eta)
    for group in range(3):
        want = kept(boxes[group].numpy(), candidates[group].numpy(), threshold, eta)
        np.testing.assert_array_equal(got[group].numpy(), want)
    assert got[0].sum() > 2
    assert not got[2].any()


@pytest.mark.parametrize("code_type", CODES)
@pytest.mark.parametrize("in_target", [False, True])
def test_a_box_is_the_code_of_its_code(code_type: int, in_target: bool) -> None:
    prior, box = random_boxes(20), random_boxes(20, seed=1)
    variance = torch.tensor([0.1, 0.1, 0.2, 0.3])
    code = bx.encode(code_type, in_target, prior, variance, box)
    torch.testing.assert_close(bx.decode(code_type, in_target, prior, variance, code), box)


def test_codes_have_the_forks_formulas() -> None:
    prior, box = torch.tensor([0.0, 0.0, 0.5, 0.25]), torch.tensor([0.125, 0.25, 0.375, 0.75])
    variance = torch.tensor([0.5, 0.25, 2.0, 4.0])
    want = {
        bx.CORNER: [0.25, 1.0, -0.0625, 0.125],
        bx.CORNER_SIZE: [0.5, 4.0, -0.125, 0.5],
        bx.CENTER_SIZE: [0.0, 6.0, math.log(0.5) / 2, math.log(2) / 4],
    }
    for code_type, values in want.items():
        torch.testing.assert_close(bx.encode(code_type, False, prior, variance, box), torch.tensor(values))


def test_boxes_are_put_back_into_the_picture() -> None:
    resize = caffe_pb2.ResizeParameter(height=300, width=300)
    boxes = torch.tensor([[-0.1, 0.25, 0.5, 0.75], [0.0, 0.0, 1.0, 0.1]])
    warped, areas = bx.in_picture(boxes, 100, 200, resize)
    assert warped.tolist()[0] == [0, 25, 100, 75]
    assert areas.tolist()[0] == 101 * 51
    resize.resize_mode = resize.FIT_LARGE_SIZE_AND_PAD  # 75 rows of padding above and below
    padded, _ = bx.in_picture(boxes, 100, 200, resize)
    torch.testing.assert_close(padded, torch.tensor([[0.0, 0.0, 100.0, 100.0], [0.0, 0.0, 200.0, 10.0]]))
    resize.resize_mode = resize.FIT_SMALL_SIZE
    assert torch.equal(bx.in_picture(boxes, 100, 200, resize)[0], warped)
    resize.height_scale, resize.width_scale = 400, 160
    scaled, areas = bx.in_picture(boxes, 100, 200, resize)
    assert scaled.tolist() == [[0, 100, 80, 100], [0, 0, 160, 40]]
    assert areas.tolist() == [0, 6400]
