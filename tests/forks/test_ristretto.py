"""The layers of Ristretto, whose numbers have few bits, against the fork's kernels written out number by number."""

from __future__ import annotations

import math

import golden_layer as gl
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pycaffe_compat.errors import LayerError
from pycaffe_compat.forks.ristretto.quantization import fixed_point, minifloat, power_of_two

VALUES = [0.0, 1e-45, 0.3, -0.3, 0.5, 0.75, -1.5, 2.5, 0.99999, -7.3, 127.6, -130.0, 1e5, -1e-3, 3.0, 0.0625]


def a_fixed_point(x: float, bits: int, fraction: int) -> float:
    x = max(min(x, (2 ** (bits - 1) - 1) * 2.0**-fraction), -(2 ** (bits - 1)) * 2.0**-fraction)
    return round(x / 2.0**-fraction) * 2.0**-fraction


def a_minifloat(x: float, mantissa: int, exponent: int) -> float:
    """base_ristretto_layer.cuh, from the bits of a float."""
    bits = int(np.float32(x).view(np.uint32))
    sign, power, part = bits >> 31, bits >> 23 & 255, bits & (1 << 23) - 1
    bias = 2 ** (exponent - 1) - 1
    new = power - 127 + bias
    if power == 0 or new < 0:
        return 0.0
    if new > 2**exponent - 1:
        new, part = 2**exponent - 1, 2**mantissa - 1
    else:
        part = round(part / 2 ** (23 - mantissa))
    return (-1) ** sign * (part + 2**mantissa) / 2**mantissa * 2.0 ** (new - bias)


def a_power_of_two(x: float, least: int, most: int) -> float:
    exponent = round(math.log2(abs(x))) if x else -math.inf
    return (1 if x >= 0 else -1) * 2.0 ** max(min(exponent, most), least)


def test_numbers_are_rounded_as_in_the_fork() -> None:
    x = torch.tensor(VALUES)
    for bits, fraction in ((8, 0), (8, 4), (4, -2), (16, 10)):
        want = [a_fixed_point(v, bits, fraction) for v in x.tolist()]
        assert fixed_point(x, bits, fraction, False).tolist() == want
    for mantissa, exponent in ((10, 5), (3, 4), (0, 3), (23, 8)):
        want = [a_minifloat(v, mantissa, exponent) for v in x.tolist()]
        assert minifloat(x, mantissa, exponent, False).tolist() == want
    for least, most in ((-8, -1), (-2, 3)):
        assert power_of_two(x, least, most, False).tolist() == [a_power_of_two(v, least, most) for v in x.tolist()]


def test_random_rounding_is_right_on_average() -> None:
    x = torch.full((20000,), 0.3)
    y = fixed_point(x, 8, 0, True)
    assert set(y.tolist()) == {0.0, 1.0} and abs(y.mean().item() - 0.3) < 0.02


@pytest.mark.parametrize("precision", ["DYNAMIC_FIXED_POINT", "MINIFLOAT", "INTEGER_POWER_OF_2_WEIGHTS"])
@pytest.mark.parametrize("kind", ["ConvolutionRistretto", "DeconvolutionRistretto", "FcRistretto"])
def test_layers_round_what_they_read_and_leave(kind: str, precision: str) -> None:
    numbers = "bw_layer_in: 6 fl_layer_in: 3 bw_layer_out: 8 fl_layer_out: 4 bw_params: 5 fl_params: 4 mant_bits: 3 exp_bits: 4"
    options = {"F": "inner_product_param { num_output: 3", "C": "convolution_param { num_output: 3 kernel_size: 2"}
    layer = gl.build(
        f'name: "q" type: "{kind}" {options["F" if kind[0] == "F" else "C"]} weight_filler {{ type: "gaussian" }} '
        f'bias_filler {{ type: "gaussian" }} }} quantization_param {{ precision: {precision} {numbers} }}',
        (2, 3, 4, 4),
        phase=1,
    )
    x = 2 * torch.randn(2, 3, 4, 4)

    def rounded(values: torch.Tensor, bits: int, fraction: int) -> torch.Tensor:
        mini = precision == "MINIFLOAT"
        rule = (lambda v: a_minifloat(v, 3, 4)) if mini else (lambda v: a_fixed_point(v, bits, fraction))
        return torch.tensor([rule(v) for v in values.flatten().tolist()]).view(values.shape)

    weight, bias = layer.weight.detach(), layer.bias.detach()
    if precision == "INTEGER_POWER_OF_2_WEIGHTS":
        weight = torch.tensor([a_power_of_two(v, -8, -1) for v in weight.flatten().tolist()]).view(weight.shape)
    else:
        weight, bias = rounded(weight, 5, 4), rounded(bias, 5, 4)
    given = rounded(x, 6, 3)
    if kind[0] == "F":
        y = F.linear(given.flatten(1), weight, bias)
    else:
        y = (F.conv2d if kind[0] == "C" else F.conv_transpose2d)(given, weight, bias)
    torch.testing.assert_close(layer(x).detach(), rounded(y, 8, 4), atol=0.07, rtol=0.13)  # sums in another order
    off = (layer(x).detach() != rounded(y, 8, 4)).float().mean()
    assert off < 0.02


def test_training_rounds_weights_at_random_and_passes_gradients() -> None:
    layer = gl.build(
        'name: "q" type: "FcRistretto" inner_product_param { num_output: 1 bias_term: false weight_filler { value: 0.3 } } '
        "quantization_param { bw_params: 4 fl_params: 0 }",
        (1, 1000),
    )
    x = torch.full((1, 1000), 0.123, requires_grad=True)
    y = layer(x)
    assert y.item() == pytest.approx(0.123 * 300, rel=0.2) and y.item() != layer(x).item()
    y.backward()
    torch.testing.assert_close(layer.weight.grad, torch.full((1, 1000), 0.123))
    assert set(x.grad.flatten().tolist()) == {0.0, 1.0}


def test_lrn_rounds_each_number_in_between() -> None:
    text = "local_size: 3 alpha: 0.5 beta: 0.75 k: 2"
    layer = gl.build(
        f'name: "q" type: "LRNRistretto" lrn_param {{ {text} }} '
        "quantization_param { precision: MINIFLOAT mant_bits: 4 exp_bits: 5 }",
        (1, 5, 1, 2),
        phase=1,
    )
    x = torch.randn(1, 5, 1, 2)

    def q(v: float) -> float:
        return a_minifloat(np.float32(v).item(), 4, 5)

    want = np.zeros((5, 2))
    for place in range(2):
        values = [q(v) for v in x[0, :, 0, place].tolist()]
        total = 0.0
        for head in range(6):
            if head < 5:
                total = q(total + q(values[head] ** 2))
            if head >= 3:
                total = q(total - q(values[head - 3] ** 2))
            if head >= 1:
                scale = q(2 + q(total * (0.5 / 3)))
                want[head - 1, place] = q(values[head - 1] * q(scale**-0.75))
    torch.testing.assert_close(layer(x)[0, :, 0], torch.tensor(want).float())
    exact = gl.build(
        f'name: "q" type: "LRNRistretto" lrn_param {{ {text} }} quantization_param {{ precision: MINIFLOAT }}',
        (1, 5, 1, 2),
    )
    plain = gl.build(f'name: "q" type: "LRN" lrn_param {{ {text} }}', (1, 5, 1, 2))
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    weight = torch.randn(1, 5, 1, 2)
    (exact(a) * weight).sum().backward()
    (plain(b) * weight).sum().backward()
    torch.testing.assert_close(a.grad, b.grad)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            'type: "FcRistretto" inner_product_param { num_output: 1 } quantization_param { bw_params: 0 }',
            "bw_params: 0",
        ),
        ('type: "FcRistretto" inner_product_param { num_output: 1 } quantization_param { exp_bits: 9 }', "exp_bits: 9"),
        ('type: "FcRistretto" inner_product_param { num_output: 1 } quantization_param { exp_min: 3 }', "exp_min: 3"),
        ('type: "LRNRistretto"', "only MINIFLOAT"),
        (
            'type: "LRNRistretto" lrn_param { norm_region: WITHIN_CHANNEL } quantization_param { precision: MINIFLOAT }',
            "only ACROSS_CHANNELS",
        ),
    ],
)
def test_precisions_that_there_are_not(text: str, words: str) -> None:
    with pytest.raises(LayerError, match=words):
        gl.build(f'name: "q" {text}', (1, 2, 3, 3))


def test_lrn_needs_planes_of_channels() -> None:
    text = 'name: "q" type: "LRNRistretto" quantization_param { precision: MINIFLOAT }'
    with pytest.raises(LayerError, match="a channel at least, not 1×0×3×3"):
        gl.build(text, (1, 0, 3, 3))
    with pytest.raises(LayerError, match="a channel at least, not 1×4×3×3×1"):
        gl.build(text, (1, 4, 3, 3))(torch.ones(1, 4, 3, 3, 1))
