"""BN with running statistics, as PSPNet's Caffe has it (hszhao/PSPNet, bn_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ...layers.base import Layer, Shape
from ...layers.normalization import by_batch
from ...layers.registry import register
from ...tables import dims

SEGNETS_FIELDS = ("scale_filler", "shift_filler", "bn_mode")


@register("BN", fork="pspnet")
class RunningBN(Layer):
    """Batch normalisation with slope, bias and running statistics: four blobs of shape 1 x channels x 1 x 1.

    Training normalises by the batch's mean and biased variance, and lets the running ones follow: ``momentum`` times
    theirs plus ``1 - momentum`` times the batch's. The TEST phase and ``frozen`` normalise by the running ones.
    ``frozen`` also keeps slope and bias as they are, and starts with a running variance of 1 where others start with 0.

    Attributes:
        blob_axes: how many axes the blobs have.
        starts_at_one: whether the running variance starts with 1 in any case.
    """

    blob_axes: ClassVar[int] = 4
    starts_at_one: ClassVar[bool] = False

    options = ("bn_param",)
    inert_options = frozenset({"engine"})
    fork_options = frozenset({"bn_param.icnet"})  # says in synopsys-caffe that this BN is meant
    blobs_declared = ("slope", "bias", "running_mean", "running_var")
    slope: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options, shape = param.bn_param, bottom_shapes[0]
        if not 2 <= len(shape) <= 4:
            raise self.error(f"needs a bottom with 2 to 4 axes, not of shape {dims(shape)}")
        self.eps, self.momentum, self.frozen = options.eps, options.momentum, options.frozen
        if not self.eps >= 0:
            raise self.error(f"bn_param.eps: {self.eps:g} must not be negative")
        blob = (1, shape[1], 1, 1)[: self.blob_axes]
        self.add_blob("slope", blob, options.slope_filler, trainable=not self.frozen)
        self.add_blob("bias", blob, options.bias_filler, trainable=not self.frozen)
        self.add_blob("running_mean", blob, trainable=False)
        self.add_blob(
            "running_var", blob, torch.ones(blob) if self.frozen or self.starts_at_one else None, trainable=False
        )

    @classmethod
    def fits(cls, param: Any) -> bool:
        return not any(param.bn_param.HasField(name) for name in SEGNETS_FIELDS)

    def takes_shape(self, index: int, shape: Shape) -> bool:
        """The blobs of the forks have the shape 1 x channels, or two axes more."""
        channels = self.blob(index).shape[1]
        return tuple(shape) in ((1, channels), (1, channels, 1, 1))

    @property
    def variance(self) -> Tensor:
        """The variance that the TEST phase divides by, in the shape of the blobs."""
        return self.running_var

    def forward(self, x: Tensor) -> Tensor:
        slope, bias = self.slope.flatten(), self.bias.flatten()
        if self.frozen or not self.training:
            mean, variance = self.running_mean.flatten(), self.running_var.flatten()
            return F.batch_norm(x, mean, variance, slope, bias, eps=self.eps)
        if not x.numel():
            return x.clone()
        y, mean, variance = by_batch(x, slope, bias, self.eps)
        places = x.numel() // x.shape[1]
        with torch.no_grad():
            self.follow(self.running_mean, mean)
            self.follow(self.running_var, variance * ((places - 1) / places))
        return y

    def follow(self, running: Tensor, now: Tensor) -> None:
        """Let a running statistic follow that of a batch, (C)."""
        running.mul_(self.momentum).add_(now.reshape(running.shape), alpha=1 - self.momentum)
