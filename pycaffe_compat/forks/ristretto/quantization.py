"""Numbers of few bits, as Ristretto's Caffe rounds to them on a GPU (pmgysel/caffe, base_ristretto_layer.cu and .cuh)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...layers.base import Layer
from ...layers.slope import WithSlope
from ...proto import caffe_pb2

OPTIONS = caffe_pb2.QuantizationParameter
FRACTION = 16  # bits behind the point, by default
LEAST = torch.finfo(torch.float32).tiny  # smaller numbers are taken for 0


def fixed_point(x: Tensor, bits: int, fraction: int, random: bool) -> Tensor:
    """The nearest multiples of ``2 ** -fraction`` that ``bits`` bits hold, with the sign."""
    scale = 2.0**-fraction
    x = x.clamp(-(2.0 ** (bits - 1)) * scale, (2.0 ** (bits - 1) - 1) * scale)
    return _rounded(x / scale, random) * scale


def minifloat(x: Tensor, mantissa: int, exponent: int, random: bool) -> Tensor:
    """The nearest floating-point numbers with so many bits; there are none that are denormalised or infinite."""
    bias = 2 ** (exponent - 1) - 1
    most = 2**exponent - 1 - bias
    steps = 2.0**mantissa
    x = x.float()
    part, power = torch.frexp(x)
    power = power - 1
    part = _rounded((2 * part.abs() - 1) * steps, random)
    part = torch.where(power > most, steps - 1, part)
    value = x.sign() * (part + steps) / steps * torch.pow(2.0, power.clamp(max=most).to(x.dtype))
    return torch.where((x.abs() < LEAST) | (power < -bias), 0, value)


def power_of_two(x: Tensor, least: int, most: int, random: bool) -> Tensor:
    """The powers of two with exponents from ``least`` to ``most`` that are nearest in their logarithm; 0 is positive."""
    exponent = _rounded(x.abs().log2(), random).clamp(least, most)
    return torch.where(x >= 0, 1, -1) * torch.pow(2.0, exponent)


def _rounded(x: Tensor, random: bool) -> Tensor:
    return (x + torch.rand_like(x)).floor() if random else x.round()


def read_minifloat(layer: Layer, options: Any) -> tuple[int, int]:
    """The bits of mantissa and exponent that a ``QuantizationParameter`` gives; a ``LayerError`` if there are no such numbers."""
    mantissa, exponent = options.mant_bits, options.exp_bits
    if not (mantissa <= 23 and 1 <= exponent <= 8):
        raise layer.error(
            f"quantization_param.mant_bits: {mantissa} and exp_bits: {exponent} must be at most 23, and 1 to 8"
        )
    return mantissa, exponent


class Quantized(Layer):
    """A layer that rounds its weights, and in the TEST phase its bottoms and tops, by ``quantization_param``.

    Weights are rounded at random in training, and else by ``rounding_scheme``; gradients pass as if nothing were rounded.
    With ``INTEGER_POWER_OF_2_WEIGHTS`` biases are left as they are, and bottoms and tops are in fixed point. Halves go to the
    even neighbour, as on a GPU. In the fork rounding changes the bottom itself, also for other layers that read it.
    """

    def read_precision(self, options: Any) -> None:
        """Read and check the options, a ``QuantizationParameter``.

        Raises:
            LayerError: there cannot be such numbers.
        """
        self.precision, self.mini = options.precision, read_minifloat(self, options)
        self.of_bottom = (options.bw_layer_in, self._fraction(options, "fl_layer_in"))
        self.of_top = (options.bw_layer_out, self._fraction(options, "fl_layer_out"))
        self.of_weights = (options.bw_params, self._fraction(options, "fl_params"))
        self.exponents = (options.exp_min, options.exp_max)
        self.at_random = options.rounding_scheme == OPTIONS.STOCHASTIC
        self.random = self.at_random or self.training  # type: ignore[misc]
        widths = {"bw_layer_in": self.of_bottom, "bw_layer_out": self.of_top, "bw_params": self.of_weights}
        for name, (bits, _) in widths.items():
            if not 1 <= bits <= 64:
                raise self.error(f"quantization_param.{name}: {bits} must be from 1 to 64 bits")
        if self.exponents[0] > self.exponents[1]:
            raise self.error(
                f"quantization_param.exp_min: {self.exponents[0]} must not be above exp_max: {self.exponents[1]}"
            )

    def _fraction(self, options: Any, field: str) -> int:
        """The bits behind the point; Intel's Caffe has the fields too, with several numbers each."""
        numbers = list(getattr(options, field))
        if len(numbers) > 1:
            raise self.error(f"quantization_param.{field}: {len(numbers)} numbers, but takes one")
        return numbers[0] if numbers else FRACTION

    def round_bottom(self, x: Tensor) -> Tensor:
        """The bottom as the layer reads it."""
        return self._round_activations(x, self.of_bottom)

    def round_top(self, x: Tensor) -> Tensor:
        """The top as the layer leaves it."""
        return self._round_activations(x, self.of_top)

    def _round_activations(self, x: Tensor, widths: tuple[int, int]) -> Tensor:
        if self.training:
            return x
        if self.precision == OPTIONS.MINIFLOAT:
            value = minifloat(x.detach(), *self.mini, self.at_random)
        else:
            value = fixed_point(x.detach(), *widths, self.at_random)
        return WithSlope.apply(x, value.to(x.dtype), None)

    def round_weights(self, weight: Tensor, is_bias: bool = False) -> Tensor:
        """Weights, or biases, as the layer uses them."""
        at_random = self.at_random or self.training
        values = weight.detach()
        if self.precision == OPTIONS.MINIFLOAT:
            values = minifloat(values, *self.mini, at_random)
        elif self.precision == OPTIONS.DYNAMIC_FIXED_POINT:
            values = fixed_point(values, *self.of_weights, at_random)
        elif not is_bias:
            values = power_of_two(values, *self.exponents, at_random)
        return WithSlope.apply(weight, values.to(weight.dtype), None)
