"""BN with running inverse deviations, as happynear's Caffe has it (happynear/caffe-windows, bn_layer.cpp and .cu)."""

from __future__ import annotations

import torch
from torch import Tensor

from ...layers.normalization import by_batch
from ...layers.registry import register
from ..pspnet.bn import RunningBN


@register("BN", fork="happynear")
class InverseBN(RunningBN):
    """PSPNet's BN, but its last blob tracks the batches' ``1 / sqrt(variance + eps)`` instead of their variance.

    The TEST phase and ``frozen`` multiply by it.
    """

    blob_axes = 2
    fork_options = frozenset()

    @property
    def variance(self) -> Tensor:
        return self.running_var.pow(-2) - self.eps

    def forward(self, x: Tensor) -> Tensor:
        along = (1, -1, *(1,) * (x.dim() - 2))
        if self.frozen or not self.training:
            y = (x - self.running_mean.view(along)) * self.running_var.view(along)
            return y * self.slope.view(along) + self.bias.view(along)
        if not x.numel():
            return x.clone()
        y, mean, variance = by_batch(x, self.slope.flatten(), self.bias.flatten(), self.eps)
        places = x.numel() // x.shape[1]
        with torch.no_grad():
            inverse = (variance * ((places - 1) / places) + self.eps).rsqrt()
            self.follow(self.running_mean, mean)
            self.follow(self.running_var, inverse)
        return y
