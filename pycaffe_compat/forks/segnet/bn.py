"""BN without running statistics, as SegNet's Caffe has it (alexgkendall/caffe-segnet, bn_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...layers.base import Layer, Shape
from ...layers.registry import register
from ...layers.slope import WithSlope
from ...proto import caffe_pb2
from ...tables import dims

PSPNETS_FIELDS = ("slope_filler", "bias_filler", "momentum", "eps", "frozen", "engine", "icnet")
EPS = 1e-9


@register("BN", fork=("segnet", "enet", "deconvnet", "synopsys"))
class BatchBN(Layer):
    """Batch normalisation with the batch's own statistics in both phases, and the blobs scale and shift; no running statistics.

    ``bn_mode: INFERENCE`` is only ``scale * x + shift``, with blobs that hold the statistics too. Further tops are the
    batch's mean and biased variance, without a gradient. In place, INFERENCE has the gradient of its scale from what it wrote
    over its bottom, as in the fork. Where several passes add up to one step (``iter_size``) or
    layers share the blobs, gradients add up here; the fork keeps those of the last pass. A bottom with fewer than four axes
    gets further ones of length 1.
    """

    options = ("bn_param",)
    tops = (1, 3)
    blobs_declared = ("scale", "shift")
    scale: Tensor
    shift: Tensor

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options, shape = param.bn_param, bottom_shapes[0]
        if not 2 <= len(shape) <= 4:
            raise self.error(f"needs a bottom (num, channels, height, width), not of shape {dims(shape)}")
        if options.icnet:
            raise self.error("bn_param.icnet: true means PSPNet's BN; name that fork with --fork pspnet or fork=")
        self.inference = options.bn_mode == caffe_pb2.BNParameter.INFERENCE
        if self.inference and self.n_tops > 1:
            raise self.error(f"bn_mode: INFERENCE makes no statistics, so it takes 1 top, not {self.n_tops}")
        self.in_place = param.top[:1] == param.bottom[:1]
        self.add_blob("scale", (1, shape[1], 1, 1), options.scale_filler)
        self.add_blob("shift", (1, shape[1], 1, 1), options.shift_filler)

    @classmethod
    def fits(cls, param: Any) -> bool:
        return not any(param.bn_param.HasField(name) for name in PSPNETS_FIELDS)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return (N, C, H, W), and with further tops the mean and the variance, (1, C, 1, 1)."""
        x = x.reshape(*x.shape, *(1,) * (4 - x.dim()))
        if self.inference:
            return self._overwritten(x) if self.in_place and torch.is_grad_enabled() else self.scale * x + self.shift
        mean = _mean(x)
        centred = x - mean
        variance = _mean(centred.square())
        # The fork's value, E(x^2) - E(x)^2, loses digits where the mean is large; its gradient is that of the other form.
        value = (_mean(x.square()) - mean.square()).detach()
        y = self.scale * (centred / (variance + (value - variance.detach()) + EPS).sqrt()) + self.shift
        return y if self.n_tops == 1 else (y, mean.detach(), value)[: self.n_tops]

    def _overwritten(self, x: Tensor) -> Tensor:
        """``scale * x + shift``, in whose gradient by ``scale`` that very result stands for ``x``."""
        y = self.scale.detach() * x + self.shift
        return y + WithSlope.apply(self.scale.expand_as(x), torch.zeros_like(x), y.detach())


def _mean(x: Tensor) -> Tensor:
    """The mean of each channel, (1, C, 1, 1): by steps and products of the fork, as what is subtracted then loses digits."""
    n, _, height, width = x.shape
    return (x.sum((2, 3), keepdim=True) * (1 / max(height * width, 1))).sum(0, keepdim=True) * (1 / max(n, 1))
