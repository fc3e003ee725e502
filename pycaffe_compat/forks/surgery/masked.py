"""CConvolution and CInnerProduct: layers whose small weights are cut, and grow again.

Sources: yiwenguo/Dynamic-Network-Surgery, compress_conv_layer.cu and compress_inner_product_layer.cu; Guo and others, Dynamic
Network Surgery for Efficient DNNs, 2016.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...layers.base import Layer, Shape, untraced
from ...layers.convolution import Convolution
from ...layers.linear import InnerProduct
from ...layers.registry import register
from ...layers.slope import WithSlope

BLOBS = ("weight", "bias", "weight_mask", "bias_mask")
CUT, GROWN = 0.9, 1.1  # of the threshold: what is cut at most, and what grows again from


class Masked(Layer):
    """Masks of 0 and 1, in the shapes of weights and biases, that follow them during training.

    In the first pass of training the mean m and the standard deviation s of all absolute values that are not masked are
    taken. In iteration t of a solver, before ``iter_stop`` and with probability ``(1 + gamma * t) ** -power``, values of at most
    ``0.9 * (m + c_rate * s)`` are masked, and masked ones above ``1.1 * (m + c_rate * s)`` are so no longer. What is masked
    counts as 0, but has the gradient that it would have otherwise.
    """

    random = True
    weight: Tensor
    bias: Tensor | None
    weight_mask: Tensor
    bias_mask: Tensor
    iteration = 0
    mean = deviation = 0.0

    def add_masks(self, options: Any) -> None:
        """Read the options of the masks and declare their blobs.

        Raises:
            LayerError: ``gamma`` is negative, or there is no bias.
        """
        if self.bias is None:
            raise self.error(
                "bias_term: false crashes the fork, which reads a mask of biases; use a bias whose lr_mult is 0"
            )
        self.gamma, self.power, self.rate, self.end = options.gamma, options.power, options.c_rate, options.iter_stop
        if self.gamma < 0:
            raise self.error(f"gamma: {self.gamma:g} must not be negative")
        shapes = [spec.shape for spec in self.blob_specs]
        self.add_blob("weight_mask", shapes[0], options.weight_mask_filler, trainable=False)
        self.add_blob("bias_mask", shapes[1], options.bias_mask_filler, trainable=False)

    def at_iteration(self, number: int) -> None:
        self.iteration = number

    def state(self) -> dict[str, Any]:
        """The mean and the deviation of the first iteration, which the threshold is made of."""
        return {"mean": self.mean, "deviation": self.deviation}

    def seek(self, state: dict[str, Any]) -> None:
        self.mean, self.deviation = state["mean"], state["deviation"]

    def masked(self) -> tuple[Tensor, Tensor]:
        """The weights and biases that count in this pass."""
        assert self.bias is not None
        if not self.weight.is_meta and self.training:
            self._follow(self.weight.detach(), self.bias.detach())
        pairs = (self.weight, self.weight_mask), (self.bias, self.bias_mask)
        weight, bias = (WithSlope.apply(x, x.detach() * mask.to(x.dtype), None) for x, mask in pairs)
        return weight, bias

    @untraced
    def _follow(self, weight: Tensor, bias: Tensor) -> None:
        if self.deviation == 0 and self.iteration == 0:
            kept = torch.cat([(weight * self.weight_mask).flatten(), (bias * self.bias_mask).flatten()]).double()
            number = int(kept.count_nonzero())
            if number:
                self.mean = float(kept.abs().sum()) / number
                spread = float(kept.square().sum()) - number * self.mean**2
                self.deviation = math.sqrt(max(spread, 0) / number)
        likely = (1 + self.gamma * self.iteration) ** -self.power
        if self.iteration >= self.end or float(torch.rand(())) >= likely:
            return
        threshold = max(self.mean + self.rate * self.deviation, 0)
        for value, mask in ((weight, self.weight_mask), (bias, self.bias_mask)):
            size = value.abs()
            cut = (mask == 1) & (size <= CUT * threshold)
            grown = (mask == 0) & (size > GROWN * threshold)
            mask.copy_(torch.where(cut, 0.0, torch.where(grown, 1.0, mask)))


@register("CConvolution", fork="surgery")
class CConvolution(Masked, Convolution):
    """A convolution with masks for weights and biases: see :class:`Masked`."""

    options = ("convolution_param", "cconvolution_param")  # type: ignore[assignment]
    blobs_declared = BLOBS  # type: ignore[assignment]
    blobs_optional = frozenset()

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        if self.spatial != 2:
            raise self.error(f"is for planes with two axes, not {self.spatial}")
        self.add_masks(param.cconvolution_param)

    def forward(self, *bottoms: Tensor) -> Tensor | tuple[Tensor, ...]:
        weight, bias = self.masked()
        tops = [F.conv2d(x, weight, bias, self.stride, self.pad, self.dilation, self.groups) for x in bottoms]
        return tops[0] if len(tops) == 1 else tuple(tops)


@register("CInnerProduct", fork="surgery")
class CInnerProduct(Masked, InnerProduct):
    """An inner product with masks for weights and biases: see :class:`Masked`."""

    options = ("inner_product_param", "cinner_product_param")
    blobs_declared = BLOBS  # type: ignore[assignment]
    blobs_optional = frozenset()

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        self.add_masks(param.cinner_product_param)

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.masked()
        return F.linear(x.flatten(self.axis), weight.t() if self.transpose else weight, bias)
