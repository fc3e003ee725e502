"""Layers that normalise, and Softmax."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...forks.c3d.volumes import L2_EPS, L2Normalize
from ...forks.domain_guided.bn import StartedInverseBN
from ...forks.happynear.batch_norm import PartialBatchNorm
from ...forks.happynear.bn import InverseBN
from ...forks.happynear.normalize import EPS as EPS_CHANNELS
from ...forks.happynear.normalize import ChannelNormalize
from ...forks.intel.batch_norm import ScaledBatchNorm
from ...forks.nvidia.batch_norm import AveragedBatchNorm
from ...forks.pspnet.batch_norm import UpdatedBatchNorm
from ...forks.pspnet.bn import RunningBN
from ...forks.segnet.bn import EPS, BatchBN
from ...forks.ssd.normalize import Normalize
from ...forks.tsn.bn import FlatRunningBN
from ...forks.tsn.normalize import ItemNormalize
from ...forks.tsn_v1.bn import StartedRunningBN
from ...layers.base import Layer
from ...layers.linear import Scale
from ...layers.normalization import LRN, MVN, BatchNorm
from ...layers.softmax import Softmax
from ..affine import channel_affine, has_relu
from ..outline import Value
from ..registry import unsaid
from .helpers import linear, normalization
from .layout import call, literal, unless
from .linear import with_axes
from .writer import Several, Writer, writes


def _module(
    w: Writer, layer: Layer, x: Value, eps: float, mean: Tensor, variance: Tensor, own: tuple[Tensor, Tensor] | None
) -> str:
    """``nn.BatchNorm…d`` with these statistics, and scale and shift if they are not None; the call of it."""
    taken = None if own else w.absorb(_channel_scale)
    scale = own or (None if taken is None else _scale_and_shift(taken))
    axes = len(x.shape)
    module = w.module(
        layer,
        f"nn.BatchNorm{axes - 2 if axes in (4, 5) else 1}d",
        mean.numel(),
        eps=unless(1e-5, round(eps, 10)),
        affine=unless(True, scale is not None),
        note="" if taken is None else f"and {taken.name}",
    )
    w.weight(f"{module}.running_mean", mean.flatten())
    w.weight(f"{module}.running_var", variance.flatten())
    w.weight(f"{module}.num_batches_tracked", torch.tensor(0))
    if scale is not None:
        w.weight(f"{module}.weight", scale[0].flatten())
        w.weight(f"{module}.bias", scale[1].flatten())
    if axes == 1:
        return f"{module}({x}[:, None])[:, 0]"
    return f"{module}({x})" if axes <= 5 else f"{module}({x}.flatten(2)).reshape({x}.shape)"


def _channel_scale(layer: Layer) -> bool:
    """Whether a layer is a Scale with blobs of its own over the channels."""
    return type(layer) is Scale and len(layer.param.bottom) == 1 and layer.axis == 1 and layer.weight.dim() == 1


def _scale_and_shift(layer: Layer) -> tuple[Tensor, Tensor]:
    assert isinstance(layer, Scale)
    return layer.weight, torch.zeros_like(layer.weight) if layer.bias is None else layer.bias


def _statistics(layer: BatchNorm | AveragedBatchNorm) -> tuple[Tensor, Tensor]:
    """Mean and variance, by Caffe's third blob."""
    count = layer.scale_factor.detach()
    count = torch.where(count == 0, count, 1 / count)
    return layer.running_mean.detach() * count, layer.running_var.detach() * count


@writes(BatchNorm, UpdatedBatchNorm)
def batch_norm(w: Writer, layer: BatchNorm, x: Value) -> str:
    if layer.use_global_stats is not False:
        return _module(w, layer, x, layer.eps, *_statistics(layer), None)
    if not 3 <= len(x.shape) <= 5 or math.prod(x.shape[2:]) == 1:  # PyTorch's wants several values a channel
        own = w.helper(normalization.normalize_channels)
        return f"{call(own, f'{x}[:, None]', layer.eps)}[:, 0]" if len(x.shape) == 1 else call(own, x, layer.eps)
    module = w.module(
        layer,
        f"nn.BatchNorm{len(x.shape) - 2}d",
        layer.channels,
        eps=unless(1e-5, round(layer.eps, 10)),
        affine=False,
        track_running_stats=False,
    )
    return f"{module}({x})"


@writes(AveragedBatchNorm)
def averaged_batch_norm(w: Writer, layer: AveragedBatchNorm, x: Value) -> str:
    own = (layer.blob(3), layer.blob(4)) if layer.scaled else None
    return _module(w, layer, x, layer.eps, *_statistics(layer), own)


@writes(ScaledBatchNorm)
def scaled_batch_norm(w: Writer, layer: ScaledBatchNorm, x: Value) -> str:
    if layer.use_global_stats is False:
        raise unsaid(layer, "use_global_stats: false takes the statistics of each batch")
    mean, variance = _statistics(layer)
    own = None
    if layer.scaled or layer.biased:
        own = (
            layer.blob(3) if layer.scaled else torch.ones_like(mean),
            layer.blob(4) if layer.biased else torch.zeros_like(mean),
        )
    if not has_relu(layer):
        return _module(w, layer, x, layer.eps, mean, variance, own)
    return f"F.relu({_module(w, layer, x, layer.eps, mean, variance, own or (torch.ones_like(mean), mean * 0))})"


@writes(PartialBatchNorm)
def partial_batch_norm(w: Writer, layer: PartialBatchNorm, x: Value) -> str:
    pair = channel_affine(layer)
    if pair is None:
        raise unsaid(layer, "use_global_stats: false takes the statistics of each batch")
    factor, shift = (value.float().reshape(-1, *(1,) * (len(x.shape) - 2)) for value in pair)
    module = w.module(layer, linear.Scale, *factor.shape)
    w.weight(f"{module}.weight", factor)
    w.weight(f"{module}.bias", shift)
    return f"{module}({x})"


@writes(RunningBN, FlatRunningBN, StartedRunningBN, InverseBN, StartedInverseBN)
def running_bn(w: Writer, layer: RunningBN, x: Value) -> str:
    return _module(w, layer, x, layer.eps, layer.running_mean, layer.variance, (layer.slope, layer.bias))


@writes(BatchBN)
def batch_bn(w: Writer, layer: BatchBN, x: Value) -> str | Several:
    if layer.inference:
        module = w.module(layer, linear.Scale, *layer.scale.shape[1:])
        w.weight(f"{module}.weight", layer.scale[0])
        w.weight(f"{module}.bias", layer.shift[0])
        return f"{module}({x})"
    scale, shift = (
        w.parameter(layer, value[0], name=f"{layer.name}_{name}")
        for name, value in (("scale", layer.scale), ("shift", layer.shift))
    )
    y = call(w.helper(normalization.normalize_by_batch), x, scale, shift, EPS)
    return f"{y}[0]" if len(w.tops) == 1 else Several(y if len(w.tops) == 3 else f"{y}[:2]")


@writes(LRN)
def lrn(w: Writer, layer: LRN, x: Value) -> str:
    if layer.within:
        return call(w.helper(normalization.lrn_within_channel), x, layer.size, layer.alpha, layer.beta)
    module = w.module(
        layer, "nn.LocalResponseNorm", layer.size, alpha=layer.alpha, beta=layer.beta, k=unless(1.0, layer.k)
    )
    return f"{module}({x})"


@writes(MVN)
def mvn(w: Writer, layer: MVN, x: Value) -> str:
    source = with_axes(x, 4 - len(x.shape))
    axes = tuple(range(layer.lead, max(len(x.shape), 4)))
    if all(n == 1 for n in (*x.shape, 1, 1, 1, 1)[layer.lead : len(axes) + layer.lead]):
        return f"torch.zeros_like({source})"
    divide = unless(True, layer.normalize_variance)
    return call(w.helper(normalization.normalize_mean_variance), source, axes, layer.eps, divide=divide)


@writes(Normalize)
def normalize(w: Writer, layer: Normalize, x: Value) -> str:
    if len(x.shape) != 4:
        raise unsaid(layer, "its bottom does not have 4 axes")
    channels = x.shape[1]
    module = w.module(
        layer, normalization.L2Normalize, channels, layer.eps, *([(1, 2, 3)] if layer.across_spatial else [])
    )
    w.weight(f"{module}.weight", layer.scale.detach().reshape(-1, 1, 1).expand(channels, 1, 1))
    return f"{module}({x})"


@writes(ChannelNormalize)
def channel_normalize(w: Writer, layer: ChannelNormalize, x: Value) -> list[str]:
    source = with_axes(x, 4 - len(x.shape))
    norm = f"{source}.abs().sum(1, keepdim=True) + {EPS_CHANNELS}"
    if layer.norm == "L2":
        norm = f"({source}.square().sum(1, keepdim=True) + {EPS_CHANNELS}).sqrt()"
    return [f"{source} / {norm if layer.norm == 'L2' else f'({norm})'}", norm][: len(w.tops)]


@writes(ItemNormalize, L2Normalize)
def item_normalize(w: Writer, layer: ItemNormalize | L2Normalize, x: Value) -> str:
    axes = tuple(range(1, len(x.shape)))
    squares = f"{x}.square().sum({literal(axes[0] if len(axes) == 1 else axes)}, keepdim=True)"
    if isinstance(layer, L2Normalize):
        return f"{x} / ({squares} + {L2_EPS}).sqrt()"
    y = f"{x} / {squares}.sqrt()"
    return y if len(x.shape) == 4 else f"({y}).reshape({', '.join(['-1', *map(str, (*x.shape, 1, 1, 1)[1:4])])})"


@writes(Softmax)
def softmax(w: Writer, layer: Softmax, x: Value) -> str:
    axis = layer.canonical_axis(layer.axis, len(x.shape), "softmax_param.axis")
    return f"{w.module(layer, 'nn.Softmax', dim=axis)}({x})"
