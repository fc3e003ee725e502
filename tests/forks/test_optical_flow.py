"""The layers of FlowNet2, against its kernels written out place by place, and the gradients that they have."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import golden_layer as gl
import numpy as np
import pytest
import torch

import pycaffe_compat
from pycaffe_compat.data.mean import write_mean
from pycaffe_compat.errors import LayerError

F64 = torch.float64


def correlation(a, b, kernel, reach, pad, stride_1, stride_2, subtract=False, direction=None):
    """correlation_layer.cu and, with a ``direction``, correlation_layer1d.cu: what the threads of one place add up."""
    n, c, h, w = a.shape
    rows = 0 if direction is not None else pad
    room = 8  # what the fork reads to the left of a row is the padding of the one before
    a, b = (np.pad(x, ((0, 0), (0, 0), (rows, rows), (pad + room, pad + room))) for x in (a, b))
    border = reach + (kernel - 1) // 2
    width = math.ceil((w + 2 * pad - 2 * border) / stride_1)
    height = math.ceil((h + 2 * rows - 2 * (border if direction is None else (kernel - 1) // 2)) / stride_1)
    steps = reach // stride_2
    shift, number = {None: (-steps, 2 * steps + 1), 0: (-steps, 2 * steps + 1), 1: (0, steps + 1)}.get(
        direction, (-steps - 1, steps + 1)
    )
    down = range(-steps, steps + 1) if direction is None else [0]
    top = np.zeros((n, len(down) * number, height, width))
    for channel, (p, o) in enumerate(itertools.product(down, range(shift, shift + number))):
        for y, x in itertools.product(range(height), range(width)):
            y1, x1 = y * stride_1 + (reach if direction is None else 0), x * stride_1 + reach + room
            y2, x2 = y1 + p * stride_2, x1 + o * stride_2
            one, two = a[:, :, y1 : y1 + kernel, x1 : x1 + kernel], b[:, :, y2 : y2 + kernel, x2 : x2 + kernel]
            top[:, channel, y, x] = (abs(one - two) if subtract else one * two).sum((1, 2, 3)) / (kernel**2 * c)
    return top


@pytest.mark.parametrize(
    ("kernel", "reach", "pad", "stride_1", "stride_2"),
    [(1, 4, 4, 1, 2), (3, 2, 3, 2, 1), (1, 3, 1, 3, 2), (3, 0, 0, 1, 1)],
)
@pytest.mark.parametrize("direction", [None, 0, -1, 1])
@pytest.mark.parametrize("subtract", [False, True])
def test_correlation_is_the_forks(kernel, reach, pad, stride_1, stride_2, direction, subtract) -> None:
    if direction == -1 and pad < stride_2:
        pad = stride_2
    name = "Correlation" if direction is None else "Correlation1D"
    layer = gl.build(
        f'name: "c" type: "{name}" correlation_param {{ kernel_size: {kernel} max_displacement: {reach} pad: {pad} '
        f"stride_1: {stride_1} stride_2: {stride_2} single_direction: {direction or 0} "
        f"correlation_type: {'SUBTRACT' if subtract else 'MULTIPLY'} }}",
        *[(2, 3, 7, 8)] * 2,
    )
    a, b = torch.randn(2, 2, 3, 7, 8, dtype=F64)
    want = correlation(a.numpy(), b.numpy(), kernel, reach, pad, stride_1, stride_2, subtract, direction)
    torch.testing.assert_close(layer(a, b), torch.from_numpy(want))
    assert gl.meta_shapes(layer, [a.shape, b.shape]) == [want.shape]
    if not subtract:
        gl.check_gradients(layer, a[:1], b[:1])


def test_the_gradient_of_differences_compares_maps_at_one_place() -> None:
    layer = gl.build(
        'name: "c" type: "Correlation" correlation_param { kernel_size: 1 max_displacement: 1 pad: 1 '
        "correlation_type: SUBTRACT }",
        *[(1, 2, 3, 4)] * 2,
    )
    a, b, weight = (torch.randn(*shape, dtype=F64) for shape in ((1, 2, 3, 4), (1, 2, 3, 4), (1, 9, 3, 4)))
    a.requires_grad_(), b.requires_grad_()
    (layer(a, b) * weight).sum().backward()
    one, two = (np.pad(x.detach().numpy()[0], ((0, 0), (1, 1), (1, 1))) for x in (a, b))
    sign = np.where(one >= two, 1.0, -1.0)
    first, second = np.zeros((2, 2, 5, 6))
    for (y, x), (p, o) in itertools.product(np.ndindex(3, 4), np.ndindex(3, 3)):
        g = weight[0, 3 * p + o, y, x].item() / 2
        first[:, y + 1, x + 1] += g * sign[:, y + p, x + o]
        second[:, y + p, x + o] -= g * sign[:, y + 1, x + 1]
    np.testing.assert_allclose(a.grad.numpy()[0], first[:, 1:-1, 1:-1])
    np.testing.assert_allclose(b.grad.numpy()[0], second[:, 1:-1, 1:-1])


@pytest.mark.parametrize("fill", ["ZERO", "NOT_A_NUMBER"])
def test_flow_warp_reads_where_the_flow_points(fill: str) -> None:
    layer = gl.build(f'name: "w" type: "FlowWarp" flow_warp_param {{ fill_value: {fill} }}', (2, 3, 4, 5), (2, 2, 4, 5))
    image, flow = torch.randn(2, 3, 4, 5, dtype=F64), 3 * torch.randn(2, 2, 4, 5, dtype=F64)
    flow[0, :, 0, 0], flow[1, :, 1, 1] = 0, math.nan
    flow[1, :, 3, 4] = torch.tensor([0.5, 0.25])  # beyond the last place, yet inside
    want = np.full((2, 3, 4, 5), 0.0 if fill == "ZERO" else math.nan)
    for n, y, x in np.ndindex(2, 4, 5):
        x2, y2 = x + flow[n, 0, y, x].item(), y + flow[n, 1, y, x].item()
        if 0 <= x2 < 5 and 0 <= y2 < 4:
            left, top = int(x2), int(y2)
            right, bottom = min(left + 1, 4), min(top + 1, 3)
            a, b = x2 - left, y2 - top
            at = image.numpy()[n]
            upper = (1 - a) * at[:, top, left] + a * at[:, top, right]
            want[n, :, y, x] = (1 - b) * upper + b * ((1 - a) * at[:, bottom, left] + a * at[:, bottom, right])
    torch.testing.assert_close(layer(image, flow), torch.from_numpy(want), equal_nan=True)
    if fill == "ZERO":
        gl.check_gradients(layer, image[:1], flow[:1].clone() + 0.01)


def test_channel_norm_has_a_gradient_at_nothing_too() -> None:
    layer = gl.build('name: "n" type: "ChannelNorm"', (2, 3, 2, 2))
    x = torch.randn(2, 3, 2, 2, dtype=F64)
    torch.testing.assert_close(layer(x), x.norm(dim=1, keepdim=True))
    gl.check_gradients(layer, x)
    nothing = torch.zeros(2, 3, 2, 2, requires_grad=True)
    layer(nothing).sum().backward()
    assert not nothing.grad.any()


def test_neg_relu_passes_what_is_below_nothing() -> None:
    layer = gl.build('name: "n" type: "NegReLU" relu_param { negative_slope: 0.1 }', (4,))
    x = torch.tensor([-2.0, 0, 3, -1], requires_grad=True)
    y = layer(x)
    y.sum().backward()
    torch.testing.assert_close(y.detach(), torch.tensor([-2, 0, 0.3, -1]))
    torch.testing.assert_close(x.grad, torch.tensor([1, 0.1, 0.1, 1]))


def resampled(image: np.ndarray, size: tuple[int, int], kind: str, antialias: bool) -> np.ndarray:
    """resample_layer.cu, one plane."""
    h, w = image.shape
    fy, fx = h / size[0], w / size[1]
    wider = antialias and max(fx, fy) > 1
    ax, ay = (1 / fx, 1 / fy) if wider else (1.0, 1.0)
    wide = 4 if kind == "CUBIC" else 2
    rx, ry = (2 if f < 1 else math.ceil(wide / s) for f, s in ((fx, ax), (fy, ay)))

    def coefficient(x: float) -> float:
        x = abs(x)
        if kind == "LINEAR":
            return max(0.0, 1 - x)
        if x <= 1:
            return x * x * (1.5 * x - 2.5) + 1
        return x * (x * (-0.5 * x + 2.5) - 4) + 2 if x < 2 else 0.0

    top = np.zeros(size)
    for yo, xo in np.ndindex(*size):
        xi, yi = xo * fx + fy / 2 - 0.5, yo * fy + fx / 2 - 0.5
        xr, yr = (math.floor(v + 0.5) if v >= 0 else math.ceil(v - 0.5) for v in (xi, yi))
        if kind == "NEAREST":
            top[yo, xo] = image.flatten()[yr * w + xr]
            continue
        value = weight = 0.0
        for y, x in itertools.product(range(yr - ry, yr + ry + 1), range(xr - rx, xr + rx + 1)):
            if 0 <= y < h and 0 <= x < w:
                k = ax * coefficient(ax * (xi - x)) * ay * coefficient(ay * (yi - y))
                value, weight = value + k * image[y, x], weight + k
        top[yo, xo] = value / weight if weight else 0
    return top


@pytest.mark.parametrize("size", [(12, 20), (3, 5), (2, 10), (9, 4)])
@pytest.mark.parametrize(
    ("kind", "antialias"), [("LINEAR", True), ("LINEAR", False), ("CUBIC", True), ("NEAREST", True)]
)
def test_resample_is_the_forks(size: tuple[int, int], kind: str, antialias: bool) -> None:
    if kind == "NEAREST" and size in ((2, 10), (9, 4)):
        pytest.skip("the fork reads other planes there")
    layer = gl.build(
        f'name: "r" type: "Resample" resample_param {{ height: {size[0]} width: {size[1]} type: {kind} '
        f"antialias: {str(antialias).lower()} }}",
        (2, 2, 6, 10),
    )
    x = torch.randn(2, 2, 6, 10, dtype=F64)
    want = np.stack([resampled(plane, size, kind, antialias) for plane in x.flatten(0, 1).numpy()])
    torch.testing.assert_close(layer(x).flatten(0, 1), torch.from_numpy(want), atol=1e-5, rtol=1e-5)
    assert gl.meta_shapes(layer, [x.shape]) == [(2, 2, *size)]


def test_downsample_leaves_out_what_is_no_number() -> None:
    layer = gl.build('name: "d" type: "Downsample"', (1, 1, 7, 9), (1, 5, 3, 4))
    x = torch.randn(1, 1, 7, 9, dtype=F64)
    x[0, 0, 0, :3], x[0, 0, 3, 4] = math.nan, math.nan
    want = np.zeros((3, 4))
    plane = x[0, 0].numpy()
    for y, x0 in np.ndindex(3, 4):
        by, bx = y / 2 * 6, x0 / 3 * 8
        value = known = unknown = 0.0
        for v, u in itertools.product(range(7), range(9)):
            k = max(0, 1 - abs(u - bx) / (8 / 3)) * max(0, 1 - abs(v - by) / 3)
            if np.isnan(plane[v, u]):
                unknown += k
            else:
                value, known = value + k * plane[v, u], known + k
        want[y, x0] = math.nan if unknown / known > 0.5 else value / known
    assert np.isnan(want).any() and not np.isnan(want).all()
    top = layer(x, torch.zeros(1, 5, 3, 4))
    torch.testing.assert_close(top[0, 0], torch.from_numpy(want), equal_nan=True, atol=1e-5, rtol=1e-5)


def test_accum_enlarges_what_it_joins() -> None:
    shapes = (1, 2, 3, 4), (1, 1, 5, 4)
    layer = gl.build('name: "a" type: "Accum" accum_param { size_divisible_by: 8 }', *shapes)
    assert gl.meta_shapes(layer, shapes) == [(1, 3, 8, 8)]
    gl.check_gradients(layer, *(torch.randn(shape, dtype=F64) for shape in shapes))
    layer = gl.build('name: "a" type: "Accum" accum_param { have_reference: true }', *shapes)
    assert gl.meta_shapes(layer, shapes) == [(1, 2, 5, 4)]


def test_mean_adds_or_subtracts_values_or_a_file(tmp_path: Path) -> None:
    x = torch.randn(2, 4, 2, 3)
    layer = gl.build(
        'name: "m" type: "Mean" mean_param { operation: SUBTRACT value: 1 value: 2 mean_scale: 3 input_scale: 4 '
        "output_scale: 0.5 }",
        x.shape,
    )
    want = 0.5 * (4 * x - 3 * torch.tensor([1.0, 2, 1, 2])[:, None, None])
    torch.testing.assert_close(layer(x)[0], want)
    mean = np.random.default_rng(0).normal(size=(2, 2, 3)).astype(np.float32)
    write_mean(tmp_path / "mean.binaryproto", mean)
    layer = gl.build(
        f'name: "m" type: "Mean" mean_param {{ operation: ADD file: "{tmp_path}/mean.binaryproto" }}', x.shape
    )
    torch.testing.assert_close(layer(x)[0], x + torch.from_numpy(mean).repeat(2, 1, 1))


def test_lpq_loss_has_its_value_and_gradient() -> None:
    text = 'name: "l" type: "LpqLoss" lpq_loss_param { p: 1.5 q: 0.3 p_epsilon: 0.1 q_epsilon: 0.2'
    a, b = torch.randn(2, 2, 3, 2, 2, dtype=F64)
    layer = gl.build(f"{text} }}", *[(2, 3, 2, 2)] * 2)
    want = (((a - b).abs() + 0.1).pow(1.5).sum(1) + 0.2).pow(0.3).sum() / 2
    torch.testing.assert_close(layer(a, b), want)
    gl.check_gradients(layer, a.clone(), b.clone())
    a[0, 0, 0, 0] = math.nan
    layer = gl.build(f"{text} normalize_by_num_entries: true l2_prescale_by_channels: true }}", (2, 3, 2, 2))
    value = ((a.nan_to_num().abs() + 0.1).pow(1.5).mean(1) + 0.2).pow(0.3).sum() / (23 / 3)
    torch.testing.assert_close(layer(a), value)


def test_data_augmentation_cuts_the_middle_and_follows_the_mean() -> None:
    layer = gl.build(
        'name: "d" type: "DataAugmentation" top: "a" top: "b" augmentation_param { crop_width: 4 crop_height: 5 '
        "recompute_mean: 2 mean_per_pixel: false mirror { prob: 0.5 } }",
        (2, 3, 5, 7),
        phase=1,
    )
    batches = torch.rand(3, 2, 3, 5, 7)
    mean = torch.zeros(3)
    for number, batch in enumerate(batches):
        y = torch.cat([batch[..., :4, :], 0.05 * batch[..., 3:4, :] + 0.95 * batch[..., 4:, :]], 2)
        y = 0.5 * (y[..., 1:5] + y[..., 2:6])  # (7 - 4) / 2 lies between two columns
        if number < 2:
            mean = (mean * number + y.mean((0, 2, 3))) / (number + 1)
        top, coefficients = layer(batch)
        torch.testing.assert_close(top, y - mean[:, None, None], atol=1e-5, rtol=1e-5)
    assert layer.passes.item() == 3 and coefficients.shape == (2, 42, 1, 1) and not coefficients.any()


def test_data_augmentation_takes_the_mean_of_another_size(tmp_path: Path) -> None:
    text = """name: "n"
      layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ dim: [1, 3, {0}, {0}] }} }} }}
      layer {{ name: "aug" type: "DataAugmentation" bottom: "data" top: "aug"
        augmentation_param {{ recompute_mean: 5 mean_per_pixel: true }} }}"""
    for side in (4, 6):
        (tmp_path / f"{side}.prototxt").write_text(text.format(side))
    net = pycaffe_compat.load(tmp_path / "4.prototxt", phase="TEST")
    layer = net.layers["aug"]
    mean = torch.rand(1, 3, 4, 4)
    layer.passes.fill_(9), layer.mean.copy_(mean), layer.channel_mean.copy_(mean.mean((2, 3), keepdim=True))
    net.save(tmp_path / "a.caffemodel")
    other = pycaffe_compat.load(tmp_path / "6.prototxt", weights=tmp_path / "a.caffemodel", phase="TEST")
    x = torch.rand(1, 3, 6, 6)
    torch.testing.assert_close(other(data=x)["aug"], x - mean.mean((2, 3), keepdim=True))


@pytest.mark.parametrize(
    ("text", "shapes", "words"),
    [
        (
            'type: "Correlation" correlation_param { kernel_size: 2 max_displacement: 1 }',
            2,
            "kernel_size: 2 must be odd",
        ),
        ('type: "Correlation" correlation_param { kernel_size: 1 }', 2, "needs correlation_param.max_displacement"),
        (
            'type: "Correlation" correlation_param { kernel_size: 1 max_displacement: 9 }',
            2,
            "do not fit into planes of 4×4",
        ),
        (
            'type: "Correlation1D" correlation_param { kernel_size: 1 max_displacement: 1 single_direction: 2 }',
            2,
            "single_direction: 2 must be",
        ),
        ('type: "FlowWarp"', 2, "needs an image"),
        ('type: "Resample" resample_param { width: 3 }', 1, "needs resample_param.height and width"),
        ('type: "Resample" resample_param { width: 3 height: 3 type: AREA }', 1, "AREA"),
        ('type: "Downsample"', 1, "needs downsample_param.top_height"),
        ('type: "Mean" mean_param { operation: ADD value: 1 value: 2 }', 1, "does not fit a bottom of 1×3×4×4"),
        ('type: "LpqLoss" lpq_loss_param { p: 1 p: 2 q: 1 q: 2 }', 1, "needs as many p as q"),
        (
            'type: "LpqLoss" lpq_loss_param { p: 1 p: 2 q: 1 q: 2 pq_episode_starts_at_iter: 0 pq_episode_starts_at_iter: 9 }',
            1,
            "2 episodes",
        ),
        ('type: "DataAugmentation" augmentation_param { crop_width: 9 crop_height: 2 }', 1, "do not fit into 4×4"),
        ('type: "Accum" accum_param { have_reference: true }', 1, "at least 2 bottoms"),
    ],
)
def test_what_does_not_fit_is_an_error(text: str, shapes: int, words: str) -> None:
    with pytest.raises(LayerError, match=words):
        gl.build(f'name: "x" {text}', *[(1, 3, 4, 4)] * shapes)


def test_warp_of_liteflownet_reads_at_places() -> None:
    layer = gl.build('name: "w" type: "Warp"', (1, 2, 4, 5), (1, 2, 4, 5), fork="liteflownet")
    image, places = torch.randn(1, 2, 4, 5, dtype=F64), 2 + 2 * torch.randn(1, 2, 4, 5, dtype=F64)
    want = np.zeros((2, 4, 5))
    for y, x in np.ndindex(4, 5):
        u, v = places[0, :, y, x].tolist()
        for row, column in itertools.product((math.floor(v), math.floor(v) + 1), (math.floor(u), math.floor(u) + 1)):
            if 0 <= row < 4 and 0 <= column < 5:
                want[:, y, x] += (1 - abs(v - row)) * (1 - abs(u - column)) * image[0, :, row, column].numpy()
    torch.testing.assert_close(layer(image, places)[0], torch.from_numpy(want))
    gl.check_gradients(layer, image, places)


def test_warp_of_pwc_net_has_a_gradient_at_whole_places() -> None:
    layer = gl.build('name: "w" type: "Warp"', (1, 1, 3, 4), (1, 2, 3, 4), fork="pwcnet")
    image, flow = torch.randn(1, 1, 3, 4, dtype=F64), torch.randn(1, 2, 3, 4, dtype=F64)
    same = gl.build('name: "w" type: "FlowWarp"', (1, 1, 3, 4), (1, 2, 3, 4))
    x = torch.arange(4) + flow[:, 0]
    y = torch.arange(3)[:, None] + flow[:, 1]
    inside = ((x >= 0) & (x <= 3) & (y >= 0) & (y <= 2))[:, None]
    torch.testing.assert_close(layer(image, flow), torch.where(inside, same(image, flow), 0))
    gl.check_gradients(layer, image, flow)
    still = torch.zeros(1, 2, 3, 4, dtype=F64, requires_grad=True)
    layer(image, still).sum().backward()
    plane = np.pad(image[0, 0].detach().numpy(), 1, mode="edge")  # a step that leads outside counts as 0
    np.testing.assert_allclose(still.grad[0, 0].numpy(), (plane[1:-1, 2:] - plane[1:-1, :-2]) / 2)
    np.testing.assert_allclose(still.grad[0, 1].numpy(), (plane[2:, 1:-1] - plane[:-2, 1:-1]) / 2)


def test_the_other_layers_of_liteflownet() -> None:
    grid = gl.build('name: "g" type: "Grid"', (2, 3, 2, 3))(torch.randn(2, 3, 2, 3))
    assert grid.shape == (2, 2, 2, 3) and grid[1].tolist() == [[[0, 1, 2]] * 2, [[0, 0, 0], [1, 1, 1]]]
    assert gl.build('name: "n" type: "NegSquare"', (2,))(torch.tensor([2.0, -3])).tolist() == [-4, -9]
    layer = gl.build('name: "e" type: "ExpMax" expmax_param { base: 2 scale: 0.5 shift: 1 }', (2, 3, 1, 2))
    x = torch.randn(2, 3, 1, 2, dtype=F64, requires_grad=True)
    most = torch.cat([x.detach()[:1].amax(1, keepdim=True), torch.zeros(1, 1, 1, 2, dtype=F64)])
    y = layer(x)
    torch.testing.assert_close(y, 2 ** (1 + 0.5 * (x - most)))
    y.sum().backward()
    torch.testing.assert_close(x.grad, y.detach() * 0.5 * math.log(2))


def test_a_pwc_net_is_known_by_its_warp_and_writes_its_flow(tmp_path: Path) -> None:
    net = tmp_path / "net.prototxt"
    net.write_text(f"""input: "img0" input_dim: [1, 2, 4, 6] input: "img1" input_dim: [1, 2, 4, 6]
      layer {{ name: "corr" type: "Correlation" bottom: "img0" bottom: "img1" top: "corr"
        correlation_param {{ pad: 1 kernel_size: 1 max_displacement: 1 }} }}
      layer {{ name: "half" type: "Eltwise" bottom: "img1" top: "half" eltwise_param {{ coeff: 0.5 }} }}
      layer {{ name: "warped" type: "Warp" bottom: "half" bottom: "img0" top: "warped" }}
      layer {{ name: "scale" type: "Convolution" bottom: "warped" top: "flow" convolution_param {{ num_output: 2 kernel_size: 1
        weight_filler {{ type: "diagonal" diag_val: 2 diag_val: 0.5 }} }} }}
      layer {{ name: "write" type: "FLOWriter" bottom: "flow" writer_param {{ folder: "{tmp_path}/out" prefix: "p-" }} }}""")
    model = pycaffe_compat.load(net, phase="TEST")
    assert model.layers["warped"].fork == "pwcnet"
    image = torch.rand(1, 2, 4, 6)
    for _ in range(2):
        model(img0=torch.zeros(1, 2, 4, 6), img1=image)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["p-0000000.flo", "p-0000001.flo"]
    written = (tmp_path / "out" / "p-0000001.flo").read_bytes()
    assert written[:4] == b"PIEH" and np.frombuffer(written[4:12], "<i4").tolist() == [6, 4]
    flow = np.frombuffer(written[12:], "<f4").reshape(4, 6, 2).transpose(2, 0, 1)
    np.testing.assert_allclose(flow, image[0].numpy() * np.array([1, 0.25])[:, None, None], rtol=1e-6)
