"""What a BatchNorm of any fork, or a Scale, does to its channels in a trained net: a factor and a shift."""

from __future__ import annotations

import torch
from torch import Tensor

from ..forks.happynear.batch_norm import PartialBatchNorm
from ..forks.intel.batch_norm import ScaledBatchNorm
from ..forks.nvidia.batch_norm import AveragedBatchNorm
from ..forks.pspnet.batch_norm import UpdatedBatchNorm
from ..layers.base import Layer
from ..layers.linear import Scale
from ..layers.normalization import BatchNorm

BVLC = (BatchNorm, UpdatedBatchNorm)


def channel_affine(layer: Layer) -> tuple[Tensor, Tensor] | None:
    """The factor and the shift of each channel, float64 (channels,); None if it depends on the batch.

    A ReLU in the layer itself (:func:`has_relu`) comes after that.
    """
    kind = type(layer)
    if isinstance(layer, Scale):
        return _scale(layer) if kind is Scale else None
    if isinstance(layer, AveragedBatchNorm):
        factor, shift = _normalise(layer, layer.running_mean, layer.running_var)
        return _then(factor, shift, layer, layer.scaled, layer.scaled)
    if not isinstance(layer, BatchNorm) or layer.use_global_stats is False:
        return None
    factor, shift = _normalise(layer, layer.running_mean, layer.running_var)
    if kind in BVLC:
        return factor, shift
    if isinstance(layer, PartialBatchNorm):
        mean = -shift / factor
        factor = factor if layer.divided else torch.ones_like(factor)
        return factor, -mean * factor if layer.centred else torch.zeros_like(factor)
    if isinstance(layer, ScaledBatchNorm):
        return _then(factor, shift, layer, layer.scaled, layer.biased)
    return None


def has_relu(layer: Layer) -> bool:
    """Whether a BatchNorm ends in a ReLU of its own, as Intel's may."""
    return isinstance(layer, ScaledBatchNorm) and layer.relu


def _normalise(layer: BatchNorm | AveragedBatchNorm, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    count = layer.scale_factor.detach().double()
    count = torch.where(count == 0, count, 1 / count)
    factor = (variance.double() * count + layer.eps).rsqrt()
    return factor, -mean.double() * count * factor


def _then(factor: Tensor, shift: Tensor, layer: Layer, scaled: bool, biased: bool) -> tuple[Tensor, Tensor]:
    """Let the layer's own scale and bias follow."""
    if scaled:
        scale = layer.blob(3).detach().double()
        factor, shift = factor * scale, shift * scale
    if biased:
        shift = shift + layer.blob(4).detach().double()
    return factor, shift


def _scale(layer: Scale) -> tuple[Tensor, Tensor] | None:
    if len(layer.param.bottom) != 1 or layer.axis != 1 or layer.weight.dim() != 1:
        return None
    factor = layer.weight.detach().double()
    return factor, torch.zeros_like(factor) if layer.bias is None else layer.bias.detach().double()
