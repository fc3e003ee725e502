"""ImResize and Nms of realtime pose estimation, value by value as in caffe_rtpose's imresize_layer.cu and nms_layer.cu."""

from __future__ import annotations

import math

import golden_layer as gl
import numpy as np
import pytest
import torch

from pycaffe_compat.errors import LayerError


def resized(x: np.ndarray, height: int, width: int, start: float, gap: float) -> np.ndarray:
    """imresize_cubic_kernel, one pixel after the other."""
    items, channels, h, w = x.shape
    out = np.zeros((channels, height, width))

    def neighbours(at: int, target: int, side: int, pad: int) -> tuple[list[int], float]:
        inside = side - 2 * pad
        on = (at - (target / inside / 2 - 0.5)) * (inside / target)
        second = max(int(on + 1e-5), 0)
        third = inside - 1 if second + 1 >= inside else second + 1
        fourth = inside - 1 if third + 1 >= inside else third + 1
        return [p + pad for p in (max(second - 1, 0), second, third, fourth)], on - second

    def cubic(v: list[float], d: float) -> float:
        return (
            (-0.5 * v[0] + 1.5 * v[1] - 1.5 * v[2] + 0.5 * v[3]) * d**3
            + (v[0] - 2.5 * v[1] + 2 * v[2] - 0.5 * v[3]) * d**2
            + (-0.5 * v[0] + 0.5 * v[2]) * d
            + v[1]
        )

    for n in range(items):
        pads = [math.floor(side // 2 * (1 - start + n * gap)) for side in (h, w)]
        for row in range(height):
            ys, dy = neighbours(row, height, h, pads[0])
            for column in range(width):
                xs, dx = neighbours(column, width, w, pads[1])
                for c in range(channels):
                    out[c, row, column] += cubic([cubic([x[n, c, y, at] for at in xs], dx) for y in ys], dy) / items
    return out[None]


@pytest.mark.parametrize(
    ("options", "height", "width", "start", "gap"),
    [
        ("factor: 4", 24, 32, 1, 0.1),
        ("target_spatial_width: 11 target_spatial_height: 7 start_scale: 0.9 scale_gap: 0.3", 7, 11, 0.9, 0.3),
        ("target_spatial_width: 5 target_spatial_height: 3 scale_gap: 0.3", 3, 5, 1, 0.3),
    ],
)
def test_items_of_several_scales_become_one(options: str, height: int, width: int, start: float, gap: float) -> None:
    layer = gl.build(f'type: "ImResize" imresize_param {{ {options} }}', (3, 2, 6, 8))
    x = torch.rand(3, 2, 6, 8)
    top = layer(x)
    assert gl.meta_shapes(layer, [(3, 2, 6, 8)]) == [(1, 2, height, width)]
    np.testing.assert_allclose(top, resized(x.double().numpy(), height, width, start, gap), atol=1e-5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("factor: 0.01", "makes a top of 0 × 0"),
        ("start_scale: 0.1", "leave nothing of item 1"),
        ("start_scale: 2", "makes item 0 larger than its bottom"),
    ],
)
def test_sizes_that_nothing_can_be_resized_to(options: str, words: str) -> None:
    with pytest.raises(LayerError, match=words):
        gl.build(f'type: "ImResize" imresize_param {{ scale_gap: 0.2 {options} }}', (2, 2, 6, 8))


def test_more_items_than_the_scales_allow_are_refused_in_a_pass():
    layer = gl.build(
        'name: "r" type: "ImResize" imresize_param { target_spatial_width: 11 target_spatial_height: 7 start_scale: 0.9 '
        "scale_gap: 0.3 }",
        (2, 2, 6, 8),
    )
    with pytest.raises(
        LayerError, match=r'layer "r" \(ImResize\): start_scale 0.9 and scale_gap 0.3 leave nothing of item'
    ):
        layer(torch.zeros(4, 2, 6, 8))


@pytest.mark.parametrize("size", [(20, 14), (9, 23)])
def test_peaks_of_heat_maps(size: tuple[int, int]) -> None:
    """nms_register_kernel and writeResultKernel."""
    h, w = size
    parts, most, threshold = 2, 3, 0.8
    layer = gl.build(
        f'type: "Nms" nms_param {{ threshold: {threshold} num_parts: {parts} max_peaks: {most} }}', (2, 3, h, w)
    )
    x = torch.rand(2, 3, h, w) * 1.2 - 0.2
    flat = x.numpy().ravel()
    want = np.zeros((2, parts, most + 1, 3))
    for plane in range(2 * parts):
        start, found = plane * h * w, 0
        for y in range(1, h - 1):
            for column in range(1, w - 1):
                value = flat[start + y * w + column]
                others = [
                    flat[start + (y + dy) * w + column + dx] for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx
                ]
                if not (value > threshold and all(value > other for other in others)):
                    continue
                if found < most:
                    sums = np.zeros(3)
                    for py in range(y - 3, y + 4):
                        for px in range(column - 3, column + 4):
                            score = flat[start + py * w + px] if 0 < py < w and 0 < px < w else 0
                            sums += max(score, 0) * np.array([px, py, 1])
                    want[plane // parts, plane % parts, found + 1] = [sums[0] / sums[2], sums[1] / sums[2], value]
                found += 1
        want[plane // parts, plane % parts, 0, 0] = found
    assert want[..., 0, 0].max() > most
    np.testing.assert_allclose(layer(x), want, rtol=1e-5)
    assert gl.meta_shapes(layer, [(2, 3, h, w)]) == [(2, parts, most + 1, 3)]


def test_heat_maps_are_as_many_as_parts() -> None:
    with pytest.raises(LayerError, match="num_parts: 15 must be at least 1 and at most the channels of 1×14×8×8"):
        gl.build('type: "Nms"', (1, 14, 8, 8))
    assert not gl.build('type: "Nms" nms_param { num_parts: 1 }', (1, 1, 2, 8))(torch.ones(1, 1, 2, 8)).any()
