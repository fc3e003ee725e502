"""ROIPooling and PSROIPooling, against a fork's numbers and against loops over cells as in the forks' sources."""

from typing import Any

import golden_layer as gl
import numpy as np
import pytest
import torch

from pycaffe_compat.errors import LayerError
from pycaffe_compat.forks.fast_rcnn import bins
from pycaffe_compat.layers import Layer, layer_class
from pycaffe_compat.proto import caffe_pb2, parse_text

f32 = np.float32


def layer_of(fork: str, options: str, *shapes: tuple[int, ...]) -> Layer:
    text = f'name: "r" type: "ROIPooling" bottom: "x" bottom: "rois" top: "y" roi_pooling_param {{ {options} }}'
    param = parse_text(text, caffe_pb2.LayerParameter())
    return layer_class(param, fork=fork)(param, list(shapes))


def c_round(value: float) -> int:
    return int(np.trunc(value + np.copysign(0.5, value))) if abs(value % 1 - 0.5) < 1e-3 else round(float(value))


def reference(x: np.ndarray, rois: np.ndarray, grad: np.ndarray, scale: float, fork: str, pad: float) -> Any:
    """The top and the gradient of ``x``, as ROIPoolForward and ROIPoolBackward of roi_pooling_layer.cu make them."""
    (_, channels, height, width), (_, _, tall, wide) = x.shape, grad.shape
    y, dx = np.full(grad.shape, np.finfo(f32).min), np.zeros_like(x)
    near = (lambda v: int(np.floor(f32(v + f32(0.5))))) if fork == "happynear" else c_round
    for r, (image, *box) in enumerate(rois):
        b, more_x, more_y = int(image), (box[2] - box[0] + 1) * f32(pad), (box[3] - box[1] + 1) * f32(pad)
        edges = (box[0] - more_x, box[1] - more_y, box[2] + more_x, box[3] + more_y)
        x1, y1, x2, y2 = (near(f32(v * f32(scale))) for v in edges)
        bin_h, bin_w = (f32(max(b - a + 1, 1)) / f32(p) for a, b, p in ((y1, y2, tall), (x1, x2, wide)))
        if fork == "mscnn":
            back = max(x1, 0), max(y1, 0), min(x2, c_round(width / scale) - 1), min(y2, c_round(height / scale) - 1)
        else:
            back = x1, y1, x2, y2
        back_h, back_w = (f32(max(back[i + 2] - back[i] + 1, 1)) / f32(p) for i, p in ((1, tall), (0, wide)))
        for c, i, j in np.ndindex(channels, tall, wide):
            top, bottom = (min(max(v + y1, 0), height) for v in (int(i * bin_h), int(np.ceil((i + 1) * bin_h))))
            left, right = (min(max(v + x1, 0), width) for v in (int(j * bin_w), int(np.ceil((j + 1) * bin_w))))
            if bottom <= top or right <= left:
                y[r, c, i, j] = 0
                continue
            place = None
            for h, w in np.ndindex(bottom - top, right - left):
                if x[b, c, top + h, left + w] > y[r, c, i, j]:
                    y[r, c, i, j], place = x[b, c, top + h, left + w], (top + h, left + w)
            if place is None:
                continue
            h, w = place[0] - back[1], place[1] - back[0]
            inside = h >= 0 and w >= 0 and place[0] <= back[3] and place[1] <= back[2]
            seen = np.floor(f32(h) / back_h) <= i < np.ceil(f32(h + 1) / back_h)
            seen = seen and np.floor(f32(w) / back_w) <= j < np.ceil(f32(w + 1) / back_w)
            if fork == "intel" or (inside and seen):
                dx[b, c, place[0], place[1]] += grad[r, c, i, j]
    return y, dx


@pytest.mark.parametrize("name", gl.names("roipool_", folder="forks"))
def test_layer_agrees_with_caffe(name: str) -> None:
    gl.check(name, "forks")


@pytest.mark.parametrize("few", [0, 1e9], ids=["by cells", "by windows"])
@pytest.mark.parametrize(
    ("fork", "pad"), [("fast_rcnn", 0), ("happynear", 0), ("intel", 0), ("mscnn", 0), ("mscnn", 0.25)]
)
def test_both_ways_to_pool_agree_with_the_loops_of_each_fork(fork: str, pad: float, few: float, monkeypatch) -> None:
    monkeypatch.setattr(bins, "_FEW", few)
    draw = np.random.default_rng(3)
    x = draw.standard_normal((2, 2, 9, 8)).astype(f32)
    x[0] = np.maximum(x[0].round(), 0)  # ties
    x[1, 0, ::2], x[1, 1, :, ::3] = np.nan, -np.inf
    corners = draw.uniform(-0.4, 1.4, (12, 4)) * (32, 36, 32, 36)
    corners[:2] = ((-2, -6, 5, 9), (-10, -2, 40, 40))  # halves, below 0 too
    rois = np.concatenate((np.arange(12)[:, None] % 2, corners), 1).astype(f32)
    grad = draw.standard_normal((12, 2, 5, 3)).astype(f32)
    option = f"pad_ratio: {pad}" if pad else ""
    layer = layer_of(fork, f"pooled_h: 5 pooled_w: 3 spatial_scale: 0.25 {option}", x.shape, rois.shape)
    bottom = torch.from_numpy(x).requires_grad_()
    top = layer(bottom, torch.from_numpy(rois))
    top.backward(torch.from_numpy(grad))
    y, dx = reference(x, rois, grad, 0.25, fork, pad)
    np.testing.assert_array_equal(top.detach().numpy(), y)
    np.testing.assert_allclose(bottom.grad.numpy(), dx, rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        assert torch.equal(layer(bottom, torch.from_numpy(rois)), top)


def test_gradient_in_float64() -> None:
    rois = torch.tensor([[1.0, 0, 2, 7, 9], [0, 3, 3, 3, 3], [1, -5, 4, 6, 20]]).long()
    x = torch.randn(2, 2, 6, 5, dtype=torch.float64)
    layer = gl.build('name: "r" type: "ROIPooling" roi_pooling_param { pooled_h: 2 pooled_w: 3 }', x.shape, rois.shape)
    gl.check_gradients(layer, x, rois)


@pytest.mark.parametrize("few", [0, 1e9], ids=["by cells", "by windows"])
def test_of_zeros_of_both_signs_the_first_gets_the_gradient(few: float, monkeypatch) -> None:
    monkeypatch.setattr(bins, "_FEW", few)
    layer = gl.build('name: "r" type: "ROIPooling" roi_pooling_param { pooled_h: 1 pooled_w: 1 }', (1, 1, 1, 3), (1, 5))
    x = torch.tensor([[[[-1.0, -0.0, 0.0]]]], requires_grad=True)
    layer(x, torch.tensor([[0.0, 0, 0, 2, 0]])).sum().backward()
    assert x.grad.flatten().tolist() == [0, 1, 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_regions_that_lie_outside_give_zeros_without_a_gradient(dtype: torch.dtype) -> None:
    rois = torch.tensor([[0.0, 90, 90, 99, 99], [0, -9, -9, -5, -5]])
    for kind, options in (
        ("ROIPooling", "roi_pooling_param { pooled_h: 2 pooled_w: 2 }"),
        ("PSROIPooling", "psroi_pooling_param { spatial_scale: 1 output_dim: 1 group_size: 2 }"),
    ):
        x = torch.ones(1, 4, 5, 5, dtype=dtype, requires_grad=True)
        top = gl.build(f'name: "r" type: "{kind}" {options}', x.shape, rois.shape)(x, rois)
        top.sum().backward()
        assert top.dtype == dtype and not top.any() and not x.grad.any()


def test_no_regions_give_an_empty_top() -> None:
    layer = gl.build('name: "r" type: "ROIPooling" roi_pooling_param { pooled_h: 2 pooled_w: 3 }', (1, 2, 4, 4), (0, 5))
    x = torch.ones(1, 2, 4, 4, requires_grad=True)
    y = layer(x, torch.empty(0, 5))
    y.sum().backward()
    assert y.shape == (0, 2, 2, 3) and not x.grad.any()


def test_intel_pools_volumes_in_the_order_z_x_y() -> None:
    x = torch.arange(3.0 * 4 * 5).reshape(1, 1, 3, 4, 5).requires_grad_()
    rois = torch.tensor([[0.0, 1, 3, 0, 2, 4, 1]])  # z 1 to 2, x 3 to 4, y 0 to 1
    layer = layer_of("", "pooled_size: 1 pooled_size: 2 pooled_size: 1", x.shape, rois.shape)
    top = layer(x, rois)
    top.sum().backward()
    assert top.shape == (1, 1, 1, 2, 1) and top.flatten().tolist() == [44, 49]
    assert x.grad.nonzero()[:, 2:].tolist() == [[2, 0, 4], [2, 1, 4]]
    assert layer_of("", "pooled_size: 3", (1, 1, 4, 4), (1, 5)).pooled == (3, 3)


@pytest.mark.parametrize(
    ("options", "shapes", "words"),
    [
        ("pooled_h: 2", ((1, 2, 4, 4), (1, 5)), "needs roi_pooling_param.pooled_w, at least 1"),
        (
            "pooled_h: 2 pooled_w: 2",
            ((1, 2), (1, 5)),
            r"needs a bottom \(num, channels, height, width\), not of shape 1×2",
        ),
        (
            "pooled_size: 2 pooled_size: 2 pooled_size: 2",
            ((1, 2, 4, 4), (1, 5)),
            "pooled_size once or 2 times, not 3 times",
        ),
        ("pooled_size: 0", ((1, 2, 4, 4), (1, 5)), "pooled_size: 0 must be at least 1"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: str, shapes: tuple[tuple[int, ...], ...], words: str) -> None:
    with pytest.raises(LayerError, match=words):
        layer_of("", options, *shapes)


@pytest.mark.parametrize(
    ("rois", "words"),
    [
        ([[0.0, 0, 0, 1, 1], [2, 0, 0, 1, 1]], r"region 1 \(2, 0, 0, 1, 1\) is not in the batch: .* its image, 0 to 1"),
        ([[0.0, float("nan"), 0, 1, 1]], r"region 0 \(0, nan, 0, 1, 1\)"),
        ([[0.0, 0, 0, 1]], "needs regions of 5 numbers .* not 1×4"),
    ],
)
def test_regions_outside_the_batch_are_errors(rois: list[list[float]], words: str) -> None:
    layer = gl.build('name: "r" type: "ROIPooling" roi_pooling_param { pooled_h: 1 pooled_w: 1 }', (2, 1, 4, 4), (1, 5))
    with pytest.raises(LayerError, match=rf'layer "r" \(ROIPooling\): {words}'):
        layer(torch.zeros(2, 1, 4, 4), torch.tensor(rois))


def mean_reference(x: np.ndarray, rois: np.ndarray, grad: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """The top and the gradient of ``x``, as intel/caffe's psroi_pooling_layer.cpp makes them."""
    (_, group, _), (height, width) = grad.shape[1:], x.shape[2:]
    y, dx = np.zeros(grad.shape, f32), np.zeros_like(x)
    for r, (image, *box) in enumerate(rois):
        x1, y1 = (f32(c_round(v)) * f32(scale) for v in box[:2])
        x2, y2 = (f32(c_round(v) + 1) * f32(scale) for v in box[2:])
        bin_w, bin_h = (f32(max(b - a, f32(0.1))) / f32(group) for a, b in ((x1, x2), (y1, y2)))
        for c, i, j in np.ndindex(grad.shape[1:]):
            top, left = max(int(np.floor(i * bin_h + y1)), 0), max(int(np.floor(j * bin_w + x1)), 0)
            bottom = min(int(np.ceil((i + 1) * bin_h + y1)), height)
            right = min(int(np.ceil((j + 1) * bin_w + x1)), width)
            if bottom > top and right > left:
                cells = int(image), (c * group + i) * group + j, slice(top, bottom), slice(left, right)
                y[r, c, i, j] = x[cells].mean()
                dx[cells] += grad[r, c, i, j] / x[cells].size
    return y, dx


def test_position_sensitive_means_agree_with_the_forks_loop() -> None:
    draw = np.random.default_rng(5)
    x = draw.standard_normal((2, 18, 7, 9)).astype(f32)
    corners = draw.uniform(-0.4, 1.4, (12, 4)) * (72, 56, 72, 56)
    corners[:2] = ((-0.5, 2.5, 20, 30), (40, 30, 20, 10))
    rois = np.concatenate((np.arange(12)[:, None] % 2, corners), 1).astype(f32)
    grad = draw.standard_normal((12, 2, 3, 3)).astype(f32)
    options = "psroi_pooling_param { output_dim: 2 group_size: 3 spatial_scale: 0.125 }"
    layer = gl.build(f'name: "p" type: "PSROIPooling" {options}', x.shape, rois.shape)
    bottom = torch.from_numpy(x).requires_grad_()
    top = layer(bottom, torch.from_numpy(rois))
    top.backward(torch.from_numpy(grad))
    y, dx = mean_reference(x, rois, grad, 0.125)
    np.testing.assert_allclose(top.detach().numpy(), y, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(bottom.grad.numpy(), dx, rtol=1e-5, atol=1e-6)
    gl.check_gradients(layer, torch.randn(2, 18, 3, 4, dtype=torch.float64), torch.from_numpy(rois[:3] / 2).long())
    assert gl.meta_shapes(layer, [(2, 18, 7, 9), (4, 5)]) == [(4, 2, 3, 3)]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("output_dim: 2 group_size: 3", "needs psroi_pooling_param.spatial_scale"),
        ("spatial_scale: 1 output_dim: 2", "needs psroi_pooling_param.group_size, at least 1"),
        ("spatial_scale: 1 output_dim: 2 group_size: 2", r"needs a bottom with 8 channels .* not of shape 1×18×4×4"),
    ],
)
def test_position_sensitive_pooling_refuses_what_does_not_fit(options: str, words: str) -> None:
    with pytest.raises(LayerError, match=words):
        gl.build(f'name: "p" type: "PSROIPooling" psroi_pooling_param {{ {options} }}', (1, 18, 4, 4), (1, 5))


def test_psroi_align_takes_points_of_each_bin_in_its_own_channels() -> None:
    """psroi_align_layer.cu of afantideng/R-FCN-PSROIAlign, point by point, with the gradients that it finds."""
    rng = np.random.default_rng(4)
    group, out, points, scale = 3, 2, 2, 0.25
    x, seed = rng.standard_normal((2, out * group**2, 7, 6)), rng.standard_normal((4, out, group, group))
    regions = np.array([[0, 2.3, 1, 17.7, 20], [1, -6, 3, 30, 40], [0, 5, 5, 5, 5], [1, 9.5, 10, 14, 26]])
    want, grad = np.zeros((4, out, group, group)), np.zeros_like(x)
    for n, (image, x1, y1, x2, y2) in enumerate(regions):
        low, high = np.array([y1, x1]) * scale, (np.array([y2, x2]) + 1) * scale
        length = np.maximum(high - low, 0.1) / group
        for c, i, j in np.ndindex(out, group, group):
            bin_ = np.array([i, j])
            start, stop = bin_ * length + low, (bin_ + 1) * length + low
            first, last = np.floor(start), np.ceil(stop)
            start, stop = np.clip(start, 0, [6, 5]), np.clip(stop, 0, [6, 5])
            plane, slope = x[int(image), (c * group + i) * group + j], grad[int(image), (c * group + i) * group + j]
            for p in np.ndindex(points, points):
                at = start + (np.array(p) + 1) * length / (points + 1)
                if (at >= stop).any():
                    continue
                for h in range(7):
                    for w in range(6):
                        away = np.abs(at - [h, w])
                        if (away < 1).all():
                            share = (1 - away).prod() / points**2
                            want[n, c, i, j] += plane[h, w] * share
                            if first[0] <= h < last[0] and first[1] <= w < last[1]:
                                slope[h, w] += share * seed[n, c, i, j]
    layer = gl.build(
        'name: "a" type: "PSROIAlign" psroi_align_param { spatial_scale: 0.25 output_dim: 2 group_size: 3 }',
        x.shape,
        regions.shape,
    )
    leaf = torch.tensor(x, requires_grad=True)
    y = layer(leaf, torch.tensor(regions))
    np.testing.assert_allclose(y.detach(), want, atol=1e-12)
    y.backward(torch.tensor(seed))
    np.testing.assert_allclose(leaf.grad, grad, atol=1e-12)
    with pytest.raises(LayerError, match="needs a bottom with 18 channels"):
        gl.build(
            'name: "a" type: "PSROIAlign" psroi_align_param { spatial_scale: 0.25 output_dim: 2 group_size: 3 }',
            (1, 9, 7, 6),
            (4, 5),
        )
