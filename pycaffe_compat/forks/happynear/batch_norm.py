"""BatchNorm that leaves out the mean or the variance (happynear/caffe-windows, batch_norm_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...layers.base import Shape
from ...layers.normalization import BatchNorm
from ...layers.registry import register
from ...tables import dims


@register("BatchNorm", fork="happynear")
class PartialBatchNorm(BatchNorm):
    """BVLC's BatchNorm; ``disable_mean`` turns off the subtraction, and ``disable_variance`` the division.

    Without the mean, the variance is the mean square. ``moving_average_fraction`` is 0.99 where it is not given. The fork
    reads no ``scale_filler`` or ``bias_filler``.
    """

    options = ("batch_norm_param",)
    inert_options = frozenset({"engine", "scale_filler", "bias_filler"})
    replaces_bvlcs = True

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.batch_norm_param
        if not options.HasField("moving_average_fraction"):
            self.fraction = 0.99
        self.centred, self.divided = not options.disable_mean, not options.disable_variance
        if len(bottom_shapes[0]) < 2 and not (self.centred and self.divided):
            raise self.error(f"needs a bottom with at least 2 axes, not of shape {dims(bottom_shapes[0])}")

    @classmethod
    def fits(cls, param: Any) -> bool:
        options = param.batch_norm_param
        given = options.HasField
        return given("disable_mean") or given("disable_variance") or not (given("scale_filler") or given("bias_filler"))

    def forward(self, x: Tensor) -> Tensor:
        if self.centred and self.divided:
            return super().forward(x)
        if not x.numel():
            return x.clone()
        shape = (1, self.channels) + (1,) * (x.dim() - 2)
        if self.uses_running_statistics:
            factor = torch.where(self.scale_factor == 0, self.scale_factor, 1 / self.scale_factor)
            mean, variance = self.running_mean * factor, self.running_var * factor
            y = x - mean.reshape(shape) if self.centred else x
            return y / (variance + self.eps).sqrt().reshape(shape) if self.divided else y
        axes = (0, *range(2, x.dim()))
        mean = x.mean(axes)
        y = x - mean.reshape(shape) if self.centred else x
        variance = y.square().mean(axes)
        if not x.is_meta:
            self._add(mean.detach(), variance.detach(), x.numel() // self.channels)
        return y / (variance + self.eps).sqrt().reshape(shape) if self.divided else y

    @torch.no_grad()
    def _add(self, mean: Tensor, variance: Tensor, places: int) -> None:
        """Add the statistics that are used to the running ones."""
        self.scale_factor.mul_(self.fraction).add_(1)
        if self.centred:
            self.running_mean.mul_(self.fraction).add_(mean)
        if self.divided:
            self.running_var.mul_(self.fraction).add_(variance, alpha=places / (places - 1) if places > 1 else 1.0)
