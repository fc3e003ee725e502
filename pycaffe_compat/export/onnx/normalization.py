"""Layers that normalise, and Softmax."""

from __future__ import annotations

import torch

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
from ...forks.tsn.bn import FlatRunningBN
from ...forks.tsn.normalize import ItemNormalize
from ...forks.tsn_v1.bn import StartedRunningBN
from ...layers.normalization import LRN, MVN, BatchNorm
from ...layers.softmax import Softmax
from ..affine import channel_affine, has_relu
from ..outline import Value
from ..registry import unsaid
from .emitter import Emitter, emits


@emits(BatchNorm, UpdatedBatchNorm)
def batch_norm(e: Emitter, layer: BatchNorm, x: Value) -> str:
    source: object = x
    one = len(x.shape) == 1
    if one:
        source = e.op("Unsqueeze", x, e.ints(1))
    if layer.use_global_stats is False:
        axes = e.ints(0, *range(2, max(len(x.shape), 2)))
        centred = e.op("Sub", source, e.op("ReduceMean", source, axes))
        variance = e.op("ReduceMean", e.op("Mul", centred, centred), axes)
        y = e.op("Div", centred, e.op("Sqrt", e.op("Add", variance, e.number(layer.eps))))
    else:
        factor = layer.scale_factor.detach()
        factor = torch.where(factor == 0, factor, 1 / factor)
        mean = e.array(layer, "mean", layer.running_mean * factor)
        variance = e.array(layer, "variance", layer.running_var * factor)
        ones, zeros = torch.ones(layer.channels), torch.zeros(layer.channels)
        y = e.op(
            "BatchNormalization",
            source,
            e.array(layer, "scale", ones),
            e.array(layer, "shift", zeros),
            mean,
            variance,
            epsilon=float(layer.eps),
        )
    return str(e.op("Squeeze", y, e.ints(1)) if one else y)


@emits(AveragedBatchNorm, PartialBatchNorm, ScaledBatchNorm)
def fork_batch_norm(e: Emitter, layer: AveragedBatchNorm | PartialBatchNorm | ScaledBatchNorm, x: Value) -> str:
    pair = channel_affine(layer)
    if pair is None:
        raise unsaid(layer, "use_global_stats: false takes the statistics of each batch")
    shape = (1, -1) + (1,) * (len(x.shape) - 2)
    factor, shift = (
        e.array(layer, n, v.float().reshape(shape)) for n, v in zip(("factor", "shift"), pair, strict=True)
    )
    y = e.op("Add", e.op("Mul", x, factor), shift)
    return str(e.op("Relu", y) if has_relu(layer) else y)


@emits(RunningBN, FlatRunningBN, StartedRunningBN, InverseBN, StartedInverseBN)
def running_bn(e: Emitter, layer: RunningBN, x: Value) -> str:
    names = ("slope", "bias", "running_mean", "variance")
    blobs = [e.array(layer, name, getattr(layer, name).flatten()) for name in names]
    return str(e.op("BatchNormalization", x, *blobs, epsilon=float(layer.eps)))


@emits(BatchBN)
def batch_bn(e: Emitter, layer: BatchBN, x: Value) -> list[str]:
    scale, shift = e.blob(layer, 0), e.blob(layer, 1)
    if layer.inference:
        return [str(e.op("Add", e.op("Mul", x, scale), shift))]
    axes = e.ints(0, 2, 3)
    mean = e.op("ReduceMean", x, axes)
    variance = e.op("Sub", e.op("ReduceMean", e.op("Mul", x, x), axes), e.op("Mul", mean, mean))
    y = e.op("Div", e.op("Sub", x, mean), e.op("Sqrt", e.op("Add", variance, e.number(EPS))))
    return [str(e.op("Add", e.op("Mul", y, scale), shift)), mean, variance][: len(e.tops)]


@emits(ChannelNormalize)
def channel_normalize(e: Emitter, layer: ChannelNormalize, x: Value) -> list[str]:
    source: object = x
    if len(x.shape) < 4:
        source = e.op("Unsqueeze", x, e.ints(*range(len(x.shape), 4)))
    if layer.norm == "L2":
        squares = e.op("ReduceSum", e.op("Mul", source, source), e.ints(1))
        norm = e.op("Sqrt", e.op("Add", squares, e.number(EPS_CHANNELS)))
    else:
        norm = e.op("Add", e.op("ReduceSum", e.op("Abs", source), e.ints(1)), e.number(EPS_CHANNELS))
    return [str(e.op("Div", source, norm)), str(norm)][: len(e.tops)]


@emits(ItemNormalize, L2Normalize)
def item_normalize(e: Emitter, layer: ItemNormalize | L2Normalize, x: Value) -> str:
    squares = e.op("ReduceSum", e.op("Mul", x, x), e.ints(*range(1, len(x.shape))))
    if isinstance(layer, L2Normalize):
        squares = e.op("Add", squares, e.number(L2_EPS))
    y = e.op("Div", x, e.op("Sqrt", squares))
    return str(y) if isinstance(layer, L2Normalize) or len(x.shape) == 4 else e.reshape(layer, y, x)


@emits(LRN)
def lrn(e: Emitter, layer: LRN, x: Value) -> str:
    if not layer.within:
        return str(e.op("LRN", x, size=layer.size, alpha=layer.alpha, beta=layer.beta, bias=layer.k))
    reach = layer.size // 2
    if not {2, 3} & x.moving:
        reach = max(min(reach, max(x.shape[2:]) - 1), 0)
    side = 2 * reach + 1
    mean = e.op(
        "AveragePool",
        e.op("Mul", x, x),
        kernel_shape=[side, side],
        pads=[reach] * 4,
        strides=[1, 1],
        count_include_pad=1,
    )
    total = e.op("Mul", mean, e.number(layer.alpha * (side / layer.size) ** 2))
    return str(e.op("Mul", x, e.op("Pow", e.op("Add", total, e.number(1)), e.number(-layer.beta))))


@emits(MVN)
def mvn(e: Emitter, layer: MVN, x: Value) -> str:
    axes = e.ints(*range(layer.lead, max(len(x.shape), 4)))
    source: object = x
    if len(x.shape) < 4:
        source = e.op("Unsqueeze", x, e.ints(*range(len(x.shape), 4)))
    y = e.op("Sub", source, e.op("ReduceMean", source, axes))
    if not layer.normalize_variance:
        return str(y)
    deviation = e.op("Sqrt", e.op("ReduceMean", e.op("Mul", y, y), axes))
    return str(e.op("Div", y, e.op("Add", deviation, e.number(layer.eps))))


@emits(Softmax)
def softmax(e: Emitter, layer: Softmax, x: Value) -> str:
    return str(e.op("Softmax", x, axis=layer.canonical_axis(layer.axis, len(x.shape), "softmax_param.axis")))
