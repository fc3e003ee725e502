"""Layers of multi-task network cascades, against what the fork's kernels compute, and its nets."""

from __future__ import annotations

import golden_layer as gl
import pytest
import torch

from pycaffe_compat.errors import LayerError

WARP = 'name: "w" type: "ROIWarping" roi_warping_param {{ {} }}'


@pytest.mark.parametrize("name", gl.names("mnc_", folder="forks"))
def test_it_is_as_in_the_fork(name: str) -> None:
    gl.check(name, "forks")


def test_the_gradient_of_regions_is_that_of_moving_them() -> None:
    x = torch.arange(12.0, dtype=torch.double).repeat(1, 1, 12, 1) ** 2  # rises to the right alone
    layer = gl.build(WARP.format("pooled_h: 2 pooled_w: 4"), x.shape, (1, 5))
    regions = torch.tensor([[0, 2, 1, 10, 9]], dtype=torch.double, requires_grad=True)
    layer(x, regions).sum().backward()
    _, left, top, right, bottom = regions.grad[0].tolist()
    assert left > 0 and right > 0 and top == bottom == 0


def test_masks_give_both_gradients() -> None:
    layer = gl.build('name: "m" type: "MaskPooling"', (2, 3, 4, 5), (2, 1, 4, 5))
    gl.check_gradients(layer, torch.randn(2, 3, 4, 5, dtype=torch.double), torch.randn(2, 1, 4, 5, dtype=torch.double))


@pytest.mark.parametrize(
    ("text", "shapes", "message"),
    [
        (WARP.format("pooled_h: 2"), [(1, 1, 4, 4), (1, 5)], r"needs roi_warping_param\.pooled_w, at least 1"),
        (WARP.format("pooled_h: 2 pooled_w: 2"), [(1, 4), (1, 5)], r"needs a bottom \(num, channels, height, width\)"),
        ('name: "m" type: "MaskPooling"', [(2, 3, 4, 4), (2, 1, 4, 5)], "masks R×1×H×W, not 2×3×4×4 and 2×1×4×5"),
        ('name: "m" type: "MaskResize"', [(2, 1, 4, 4)], r"needs mask_resize_param\.output_height and output_width"),
    ],
)
def test_what_cannot_be_is_an_error(text: str, shapes: list[tuple[int, ...]], message: str) -> None:
    with pytest.raises(LayerError, match=message):
        gl.build(text, *shapes)


def test_a_region_of_no_image_is_an_error() -> None:
    layer = gl.build(WARP.format("pooled_h: 2 pooled_w: 2"), (1, 1, 4, 4), (1, 5))
    with pytest.raises(LayerError, match=r"region 0 .* is not in the batch"):
        layer(torch.zeros(1, 1, 4, 4), torch.ones(1, 5))


def test_warping_needs_planes_with_places() -> None:
    with pytest.raises(LayerError, match=r"needs a bottom .*, not of shape 1×0×4×4"):
        gl.build(WARP.format("pooled_h: 2 pooled_w: 2"), (1, 0, 4, 4), (3, 5))
