"""PSANet's attention between places, against its loops written out."""

from __future__ import annotations

import golden_layer as gl
import numpy as np
import pytest
import torch

from pycaffe_compat.errors import LayerError

F64 = torch.float64


def attended(features: np.ndarray, weights: np.ndarray, mask: tuple[int, int], collects: bool, softmax: bool):
    """pointwise_spatial_attention_layer.cpp: the buffer of shares, place by place of each mask, and the product."""
    n, c, h, w = features.shape
    half = [(side - 1) // 2 for side in mask]
    buffer = np.zeros((n, h * w, h * w))
    for image, row, column, i, j in np.ndindex(n, h, w, *mask):
        other = i + row - half[0], j + column - half[1]
        if 0 <= other[0] < h and 0 <= other[1] < w:
            pair = [other[0] * w + other[1], row * w + column]
            gives, gets = pair if collects else pair[::-1]
            buffer[image, gives, gets] = weights[image, i * mask[1] + j, row, column]
    if softmax:
        buffer = np.exp(buffer) / np.exp(buffer).sum(1, keepdims=True)
    return (features.reshape(n, c, -1) @ buffer).reshape(features.shape)


@pytest.mark.parametrize(
    ("mask", "options"),
    [
        ((7, 5), "psa_type: COLLECT is_softmax: true normalization_factor: 1"),
        ((7, 5), "psa_type: DISTRIBUTE is_softmax: true normalization_factor: 2"),
        ((3, 5), "attention_mask_height: 3 attention_mask_width: 5 psa_type: DISTRIBUTE"),
        ((3, 5), "attention_mask_height: 3 attention_mask_width: 5"),
    ],
)
def test_places_attend_to_each_other(mask: tuple[int, int], options: str) -> None:
    shapes = (2, 3, 4, 3), (2, mask[0] * mask[1], 4, 3)
    text = f'name: "a" type: "PointwiseSpatialAttention" pointwise_spatial_attention_param {{ {options} }}'
    layer = gl.build(text, *shapes)
    features, weights = (torch.randn(shape, dtype=F64) for shape in shapes)
    want = attended(features.numpy(), weights.numpy(), mask, "DISTRIBUTE" not in options, "softmax" in options)
    factor = 15 if "factor" not in options else float(options.split()[-1])
    torch.testing.assert_close(layer(features, weights), torch.from_numpy(want / factor))
    assert gl.meta_shapes(layer, shapes) == [shapes[0]]
    gl.check_gradients(layer, features, weights)


@pytest.mark.parametrize(
    ("options", "shapes", "says"),
    [
        ("", ((1, 2, 4, 3), (1, 34, 4, 3)), "masks of 7×5 for each place, must be 1×35×4×3, not 1×34×4×3"),
        ("attention_mask_height: 3", ((1, 2, 4, 3), (1, 9, 4, 3)), "give both attention_mask_height"),
        ("attention_mask_height: 3 attention_mask_width: 4", ((1, 2, 4, 3), (1, 12, 4, 3)), "3×4 must be odd"),
        ("normalization_factor: 0", ((1, 2, 4, 3), (1, 35, 4, 3)), "divides everything by zero"),
        ("", ((1, 2), (1, 35, 4, 3)), r"needs bottoms \(N, C, H, W\)"),
    ],
)
def test_masks_that_do_not_fit(options: str, shapes: tuple[tuple[int, ...], ...], says: str) -> None:
    text = f'name: "a" type: "PointwiseSpatialAttention" pointwise_spatial_attention_param {{ {options} }}'
    with pytest.raises(LayerError, match=says):
        gl.build(text, *shapes)
