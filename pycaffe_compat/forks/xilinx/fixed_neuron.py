"""FixedNeuron, as Xilinx's Caffe has it (Xilinx/Vitis-AI, caffe-xilinx, fixed_neuron_layer.cpp and quantize.cpp)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...layers.base import Layer, Shape
from ...layers.registry import register


def fix(x: Tensor, step: Tensor, bits: int, truncate: bool) -> Tensor:
    """Multiples of ``step`` within ``bits`` bits, halves rounded up; or, to ``truncate``, cut off towards 0."""
    place = x / step
    if truncate:
        return place.trunc() * step
    whole = place.floor()
    whole = whole + (place - whole >= 0.5).to(x.dtype)
    most = 2 ** (bits - 1)
    return torch.fmin(torch.fmax(whole * step, -most * step), (most - 1) * step)  # like C's, they pass over a NaN


class _Straight(torch.autograd.Function):
    """:func:`fix`, through which the gradient passes as it is."""

    @staticmethod
    def forward(x: Tensor, step: Tensor, bits: int, truncate: bool) -> Tensor:
        return fix(x, step, bits, truncate)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore[override]
        return grad, None, None, None


@register("FixedNeuron", fork="xilinx")
class FixedNeuron(Layer):
    """Fixed-point numbers of ``bit_width`` bits, with the number of binary places in the blob, rounded as the DPU does.

    Halves are rounded towards positive infinity. With ``follow_data_layer`` numbers are cut off towards 0 and not bounded.
    Training, in which the fork chooses the places by what it sees, is not supported.
    """

    options = ("fixed_param",)
    blobs_declared = ("places",)
    places: Tensor

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.fixed_param
        self.enabled = options.enable
        self.bits = options.bit_width
        self.truncates = options.follow_data_layer
        if self.bits < 1:
            raise self.error(f"fixed_param.bit_width: {self.bits} must be at least 1")
        if self.enabled and self.training:
            raise self.error("trains quantised nets, which is not supported; in phase TEST it runs")
        self.add_blob("places", (1,), trainable=False)

    @property
    def step(self) -> float:
        """The value of the last binary place."""
        return math.ldexp(1, -math.floor(float(self.places)))

    def forward(self, x: Tensor) -> Tensor:
        if not self.enabled:
            return x.clone()
        step = torch.ldexp(x.new_ones(()), -self.places.floor())
        if not (torch.is_grad_enabled() and x.requires_grad):
            return fix(x, step, self.bits, self.truncates)
        result: Tensor = _Straight.apply(x, step, self.bits, self.truncates)  # type: ignore[no-untyped-call]
        return result
