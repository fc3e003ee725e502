"""Small layers of happynear's Caffe: functions of single values, Gram matrices, coordinates."""

from __future__ import annotations

import math

import golden_layer as gl
import numpy as np
import pytest
import torch

from pycaffe_compat.errors import LayerError
from pycaffe_compat.layers import Layer

SHAPE = (2, 3, 4, 5)


def build(prototxt: str, phase: int = 0, shape: tuple[int, ...] = SHAPE) -> Layer:
    return gl.build(f'name: "l" {prototxt}', shape, dtype=torch.float64, phase=phase)


@pytest.mark.parametrize(
    ("prototxt", "function"),
    [
        ('type: "Cosine"', np.cos),
        ('type: "Arccos"', np.arccos),
        ('type: "Truncation" truncation_param { lower_bound: -0.2 upper_bound: 0.3 }', lambda x: np.clip(x, -0.2, 0.3)),
        ('type: "SoftTruncation" soft_truncation_param { c: 0.5 }', lambda x: 1 - np.exp(-x / 0.5)),
    ],
)
def test_functions_of_values(prototxt: str, function) -> None:
    x = torch.rand(SHAPE, dtype=torch.float64) * 1.8 - 0.9
    layer = build(prototxt)
    np.testing.assert_allclose(layer(x), function(x.numpy()), rtol=1e-6)
    gl.check_gradients(layer, x)


def test_gradients_at_the_ends() -> None:
    x = torch.tensor([1.0, 0.995], dtype=torch.float64, requires_grad=True)
    build('type: "Arccos"', shape=(2,))(x).sum().backward()
    np.testing.assert_allclose(x.grad, -1 / math.sqrt(1 - 0.99**2))
    x = torch.tensor([0.0, 5.0, 2.0], dtype=torch.float64, requires_grad=True)
    build('type: "Truncation"', shape=(3,))(x).sum().backward()
    assert x.grad.tolist() == [0, 0, 1]


def test_insanity_divides_by_random_numbers_in_training_and_by_their_mean_else() -> None:
    x = torch.randn(SHAPE, dtype=torch.float64)
    y = build('type: "Insanity" insanity_param { lb: 3 ub: 8 }')(x)
    below = x < 0
    ratio = (x / y)[below]
    assert torch.equal(y[~below], x[~below]) and 3 <= ratio.min() < 4 and 7 < ratio.max() <= 8
    y = build('type: "Insanity" insanity_param { lb: 3 ub: 8 }', phase=1)(x)
    np.testing.assert_allclose((x / y)[below], 5 / math.log(8 / 3))
    with pytest.raises(LayerError, match="ub: 3 must be above lb: 3"):
        build('type: "Insanity" insanity_param { lb: 3 ub: 3 }')


def test_noise_is_for_training() -> None:
    x = torch.full((100, 100), 4.0, dtype=torch.float64)
    noise = build('type: "Noise" noise_param { gaussian_std: 0.5 bias: 1 }', shape=(100, 100))(x) - x
    assert abs(noise.mean() - 1) < 0.1 and abs(noise.std() - 2) < 0.1
    noise = build('type: "Noise" noise_param { uniform_range: 2 bias: 1 }', shape=(100, 100))(x) - x
    assert -1 <= noise.min() < -0.9 and 2.9 < noise.max() <= 3
    assert torch.equal(build('type: "Noise" noise_param { uniform_range: 2 }', phase=1, shape=(100, 100))(x), x)
    with pytest.raises(LayerError, match="needs gaussian_std or uniform_range"):
        build('type: "Noise"')


def test_gram_and_slope() -> None:
    x = torch.randn(SHAPE, dtype=torch.float64)
    gram = build('type: "Gram"')
    want = np.einsum("nchw,ndhw->ncd", x, x) / (3 * 20)
    np.testing.assert_allclose(gram(x), want[..., None])
    gl.check_gradients(gram, x)
    y = build('type: "Slope"')(x.detach())
    assert y.shape == (2, 5, 4, 5) and torch.equal(y[:, :3], x)
    np.testing.assert_allclose(y[1, 3, :, 2], [0, 0.25, 0.5, 0.75])
    np.testing.assert_allclose(y[0, 4, 1], [0, 0.2, 0.4, 0.6, 0.8])


@pytest.mark.parametrize(
    ("options", "trained", "tested"),
    [("scale_train: false", 1, 0.75), ("sqrt_scale: true", 0.75**-0.5, 1), ("scale_train: true", 1 / 0.75, 1)],
)
def test_dropout_scales_where_the_fork_says(options: str, trained: float, tested: float) -> None:
    text = f'type: "Dropout" dropout_param {{ dropout_ratio: 0.25 {options} }}'
    x = torch.ones(100, 100, dtype=torch.float64, requires_grad=True)
    y = build(text, shape=(100, 100))(x)
    y.sum().backward()
    assert torch.equal(x.grad, y) and abs((y == 0).double().mean() - 0.25) < 0.02
    np.testing.assert_allclose(y.max().item(), trained)
    np.testing.assert_allclose(build(text, phase=1, shape=(100, 100))(x).unique().item(), tested)


def test_limits_of_a_scale_move_its_factors() -> None:
    layer = build('type: "Scale" scale_param { min_value: 0.5 max_value: 2 }')
    layer.weight.data.copy_(torch.tensor([0.1, 1, 3]))
    x = torch.randn(SHAPE, dtype=torch.float64)
    y = layer(x)
    assert layer.weight.tolist() == [0.5, 1, 2]
    np.testing.assert_allclose(y.detach(), x * torch.tensor([0.5, 1, 2])[:, None, None])


def test_a_parameter_has_a_filler() -> None:
    layer = gl.build('name: "p" type: "Parameter" parameter_param { shape { dim: 2 } blob_filler { value: 3 } }')
    assert layer().tolist() == [3, 3]


@pytest.mark.parametrize("options", ["", "do_backward_feature: false", "do_backward_scale: false", "do_forward: false"])
def test_channel_scale_and_what_its_gradients_leave_out(options: str) -> None:
    rng = np.random.default_rng(1)
    x, scale, seed = (rng.standard_normal(shape) for shape in ((2, 3, 4, 5), (2, 1, 4, 5), (2, 3, 4, 5)))
    layer = gl.build(f'name: "c" type: "ChannelScale" channel_scale_param {{ {options} }}', x.shape, scale.shape)
    a, b = torch.tensor(x, requires_grad=True), torch.tensor(scale, requires_grad=True)
    y = layer(a, b)
    np.testing.assert_allclose(y.detach(), x if "do_forward" in options else x * scale)
    y.backward(torch.tensor(seed))
    np.testing.assert_allclose(a.grad, seed if "feature" in options else seed * scale)
    want = (seed * x).sum(1, keepdims=True)
    np.testing.assert_allclose(0 * want if b.grad is None else b.grad, 0 * want if "_scale: f" in options else want)


def test_a_global_scale_follows_the_mean_of_the_scales() -> None:
    text = 'name: "c" type: "ChannelScale" top: "y" top: "s" channel_scale_param { global_scale: true max_global_scale: 5 }'
    layer = gl.build(text, (2, 3), (2, 1))
    x, wanted = torch.ones(2, 3), None
    for low, high in ((1, -3), (2, 4), (90, 90)):
        mean = (abs(low) + abs(high)) / 2
        wanted = min(mean if wanted is None else wanted * 0.99 + mean * 0.01, 5)
        y, s = layer(x, torch.tensor([[float(low)], [float(high)]]))
        np.testing.assert_allclose(s, [wanted], rtol=1e-6)
        np.testing.assert_allclose(y, np.full((2, 3), wanted), rtol=1e-6)
    assert layer.eval()(x, torch.ones(2, 1))[1] == s  # and stands still in tests
    with pytest.raises(LayerError, match="one factor for each place"):
        gl.build('name: "c" type: "ChannelScale"', (2, 3, 4), (2, 1, 3))


def test_label_specific_add_moves_the_scores_of_labels_in_training() -> None:
    scores, labels = torch.tensor([[0.9, 0.2], [0.1, 0.3]], dtype=torch.float64), torch.tensor([0.0, 1.0])
    options = "bias: 0.35"
    for sign, fork in ((-1, ""), (-1, "openvino")):
        text = f'name: "l" type: "LabelSpecificAdd" label_specific_add_param {{ {options if fork else "bias: -0.35"} }}'
        param = gl.text_format.Parse(f'{text} bottom: "a" bottom: "b" top: "t"', gl.caffe_pb2.LayerParameter())
        layer = gl.layer_class(param, fork=fork or "happynear")(param, [(2, 2), (2,)])
        np.testing.assert_allclose(layer(scores, labels), [[0.9 + sign * np.float32(0.35), 0.2], [0.1, 0.3]])
        gl.check_gradients(layer, scores.clone(), labels.long())
        assert torch.equal(layer.eval()(scores, labels), scores)


def test_label_specific_add_lets_the_bias_grow() -> None:
    options = "bias_base: 1 bias_gamma: 0.5 bias_power: 2 bias_max: 3 bias_min: 1 iteration: 1"
    layer = gl.build(
        f'name: "l" type: "LabelSpecificAdd" top: "y" top: "b" label_specific_add_param {{ {options} }}', (1, 2), (1,)
    )
    x, label = torch.ones(1, 2), torch.zeros(1)
    assert layer(x, label)[1].item() == 2.25
    layer.seek(layer.state())
    y, bias = layer(x, label)
    assert bias.item() == 3 and y.tolist() == [[4, 1]]


@pytest.mark.parametrize(
    ("options", "moved"),
    [
        ("positive_weight: 0.5", lambda x: x * 0.5),
        ("positive_weight: 0.5 bias_fix: true", lambda x: x * 0.5 + 0.5),
        ("positive_weight: 2 for_ip: true", lambda x: x * 2 if x > 0 else x),
        ("positive_weight: 3 power_on_positive: true", lambda x: math.copysign(abs(x) ** 3, x)),
    ],
)
def test_label_specific_rescale(options: str, moved) -> None:
    """Forward_cpu of label_specific_rescale.cpp."""
    text = f'name: "l" type: "LabelSpecificRescale" label_specific_rescale_param {{ negative_weight: 1.5 {options} }}'
    layer = gl.build(text, (2, 3), (2,))
    x, label = torch.tensor([[0.4, 0.2, -0.3], [0.1, 0.9, -0.7]], dtype=torch.float64), torch.tensor([0, 2])
    want = x.numpy() * 1.5
    for i, k in enumerate(label.tolist()):
        want[i, k] = moved(x[i, k].item())
    np.testing.assert_allclose(layer(x, label), want)
    gl.check_gradients(layer, x, label)
    assert torch.equal(layer.eval()(x, label), x)


def test_the_weight_of_a_label_specific_rescale_moves() -> None:
    options = "positive_weight_base: 4 gamma: 1 positive_weight_min: 1.25 iteration: 1"
    text = f'name: "l" type: "LabelSpecificRescale" top: "y" top: "w" label_specific_rescale_param {{ {options} }}'
    layer = gl.build(text, (1, 2), (1,))
    x, label = torch.ones(1, 2), torch.zeros(1)
    weights = [layer(x, label)[1].item() for _ in range(3)]
    np.testing.assert_allclose(weights, [4 / 3, 1.25, 1.25])
    layer.seek({"passes": 1, "weight": 1})
    np.testing.assert_allclose(layer(x, label)[1], [4 / 3])


def test_an_inner_product_with_weights_of_another_layer() -> None:
    text = 'name: "l" type: "InnerProduct" inner_product_param'
    layer = gl.build(f"{text} {{ bias_term: false }}", (2, 3, 2), (4, 6))
    x, weight, bias = (torch.randn(shape, dtype=torch.float64) for shape in ((2, 3, 2), (4, 6), (4,)))
    torch.testing.assert_close(layer(x, weight), x.flatten(1) @ weight.t())
    gl.check_gradients(layer, x, weight)
    layer = gl.build(f"{text} {{ }}", (2, 3, 2), (4, 6), (4,))
    torch.testing.assert_close(layer(x, weight, bias), x.flatten(1) @ weight.t() + bias)
    for options, shapes, message in (
        ("", ((2, 6), (4, 6)), "needs a third for the bias, or bias_term: false"),
        ("bias_term: false", ((2, 6), (4, 5)), r"takes weights \(outputs, 6\) for 2×6, not 4×5"),
        ("", ((2, 6), (4, 6), (5,)), "takes a bias for each of 4 outputs, not 5"),
        ("bias_term: false transpose: true", ((2, 6), (4, 6)), "transpose: true does not go with"),
    ):
        with pytest.raises(LayerError, match=message):
            gl.build(f"{text} {{ {options} }}", *shapes)
