"""Layers that normalise: by the statistics of the batch, of neighbours, of each map.

Source: Caffe's layers of these names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ..ops.functions import is_exporting
from ..proto import caffe_pb2
from ..tables import dims
from .base import Layer, Shape, count
from .registry import register


@register("BatchNorm")
class BatchNorm(Layer):
    """Every channel (axis 1) minus its mean, divided by ``sqrt(variance + eps)``; it has no scale or bias.

    The buffers are decaying sums of the batches' statistics; each batch decays them by ``moving_average_fraction``.
    ``running_mean`` and ``running_var`` (of variances corrected by m / (m - 1)) are divided by ``scale_factor`` before
    use. Training normalises by the statistics of the batch and adds them to the sums. ``use_global_stats``, the default
    outside training, normalises by the running statistics.
    """

    blobs_declared: ClassVar[tuple[str, ...]] = ("running_mean", "running_var", "scale_factor")
    running_mean: Tensor
    running_var: Tensor
    scale_factor: Tensor

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.batch_norm_param
        shape = bottom_shapes[0]
        if not shape:
            raise self.error("needs a bottom with at least 1 axis, not a single number")
        self.use_global_stats = options.use_global_stats if options.HasField("use_global_stats") else None
        self.fraction, self.eps = options.moving_average_fraction, options.eps
        if not self.eps >= 0:
            raise self.error(f"batch_norm_param.eps: {self.eps:g} must not be negative")
        self.channels = shape[1] if len(shape) > 1 else 1
        self.add_blob("running_mean", (self.channels,), trainable=False)
        self.add_blob("running_var", (self.channels,), trainable=False)
        self.add_blob("scale_factor", (1,), trainable=False)

    @property
    def uses_running_statistics(self) -> bool:
        """Whether the running statistics are used, and not those of the batch."""
        return self.use_global_stats if self.use_global_stats is not None else not self.training

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() == 1:
            return self.forward(x[:, None])[:, 0]
        if self.uses_running_statistics:
            factor = self.scale_factor
            factor = torch.where(factor == 0, factor, 1 / factor)
            return F.batch_norm(x, self.running_mean * factor, self.running_var * factor, eps=self.eps)
        if not x.numel():
            return x
        y, mean, variance = by_batch(x, None, None, self.eps)
        if torch.jit.is_tracing() or is_exporting():  # a program has no use for them
            return y
        with torch.no_grad():
            self.running_mean.mul_(self.fraction).add_(mean)
            self.running_var.mul_(self.fraction).add_(variance)
            self.scale_factor.mul_(self.fraction).add_(1)
        return y


def by_batch(x: Tensor, scale: Tensor | None, shift: Tensor | None, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Normalise ``x`` (N, C, …), not empty, by its own mean and biased variance over all axes but the second.

    Args:
        scale, shift: (C), what the result is multiplied by, and what is added to it; both or neither.

    Returns:
        The result, and the mean and the corrected variance, (C), without a gradient. The variance of a single value is 0.
    """
    channels = x.shape[1]
    if x.numel() > channels or torch.jit.is_tracing():  # a traced program may get more items
        mean, variance = x.new_zeros((2, channels))
        # momentum 1: torch's running statistics become those of this batch; F.batch_norm would refuse an eps of 0
        y = torch.batch_norm(x, scale, shift, mean, variance, True, 1.0, eps, torch.backends.cudnn.enabled)
        return y, mean, variance
    y = x - x
    if scale is not None and shift is not None:
        y = y * scale.reshape(x.shape) + shift.reshape(x.shape)
    mean = x.detach().flatten()
    return y, mean, torch.zeros_like(mean)


@register("LRN")
class LRN(Layer):
    """Local response normalisation: ``x`` divided by a power of the mean square of its neighbourhood.

    ``ACROSS_CHANNELS``: ``x / (k + alpha * mean of squares over local_size channels) ** beta``; ``WITHIN_CHANNEL``:
    ``x / (1 + alpha * mean of squares over local_size x local_size places) ** beta``. Values outside the borders are 0.
    """

    inert_options = frozenset({"engine"})

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.lrn_param
        self.size, self.alpha, self.beta, self.k = options.local_size, options.alpha, options.beta, options.k
        self.within = options.norm_region == caffe_pb2.LRNParameter.WITHIN_CHANNEL
        if self.size % 2 == 0:
            raise self.error(f"lrn_param.local_size: {self.size} must be odd")
        if len(bottom_shapes[0]) != 4:
            raise self.error(f"needs a bottom (num, channels, height, width), not of shape {dims(bottom_shapes[0])}")

    def forward(self, x: Tensor) -> Tensor:
        square = x.square()
        if self.within:
            reach = max(min(self.size // 2, max(x.shape[2:]) - 1), 0)  # the rest of the window is outside
            mean = F.avg_pool2d(square, 2 * reach + 1, stride=1, padding=reach)
            scale = mean * (self.alpha * ((2 * reach + 1) / self.size) ** 2) + 1
        else:
            # a sum of shifted slices: in torch's own local_response_norm a pooling over 3 axes takes most of the time
            channels = x.shape[1]
            reach = max(min(self.size // 2, channels - 1), 0)
            padded = F.pad(square, (0, 0, 0, 0, reach, reach))
            total = padded.narrow(1, 0, channels)
            for shift in range(1, 2 * reach + 1):
                total = total + padded.narrow(1, shift, channels)
            scale = total * (self.alpha / self.size) + self.k
        return x * scale.pow(-self.beta)


@register("MVN")
class MVN(Layer):
    """Mean-variance normalisation: each plane (or item, ``across_channels``) minus its mean, divided by its deviation + ``eps``.

    The top has at least four axes, as Caffe's has: those that the bottom lacks are added with length 1.
    """

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.mvn_param
        self.normalize_variance, self.eps = options.normalize_variance, options.eps
        self.lead = 1 if options.across_channels else 2
        self.in_place = bool(param.top) and param.top[:1] == param.bottom[:1]

    def forward(self, x: Tensor) -> Tensor:
        x = x.reshape(*x.shape, *(1,) * (4 - x.dim()))
        axes = tuple(range(self.lead, x.dim()))
        if count(x.shape, self.lead) == 1:
            return x - x
        y = x - x.mean(axes, keepdim=True)
        if not self.normalize_variance:
            return y
        variance = y.square().mean(axes, keepdim=True)
        # Caffe differentiates as if std + eps were the root of the variance, so that is what the root is taken of
        deviation = variance.detach().sqrt() + self.eps
        y = y / (variance + (deviation.square() - variance.detach())).sqrt()
        return _as_overwritten(x, y.detach(), axes, deviation) if self.in_place else y


def _as_overwritten(x: Tensor, y: Tensor, axes: tuple[int, ...], deviation: Tensor) -> Tensor:
    """``y`` with the gradient that Caffe's MVN hands back in place: ``-2 * y * mean(y * dy) / deviation``.

    It has written over the gradient of its top before it reads it for the last time.
    """
    drift = (y * (x - x.detach())).mean(axes, keepdim=True)  # 0, but for its derivative
    return y - 2 * y / deviation * drift
