"""Layers of FlowNet 2: flows between pictures, and the planes that they are made of."""

from __future__ import annotations

import math

import torch

from ...forks.flownet2.augmentation import DataAugmentation
from ...forks.flownet2.coefficients import NAMES
from ...forks.flownet2.correlation import Correlation, RowCorrelation
from ...forks.flownet2.flow import ChannelNorm, FlowWarp, NegReLU
from ...forks.flownet2.mean import Mean
from ...forks.flownet2.resampling import TYPES, Accum, Downsample, Resample
from ...forks.liteflownet.warp import ExpMax, Grid, NegSquare, WarpTo
from ...forks.pwcnet.warp import WarpBy
from ..outline import Value
from ..registry import static, unsaid
from .helpers import flows as helpers
from .layout import call, literal, unless
from .writer import Writer, writes


@writes(NegReLU)
def negative_relu(w: Writer, layer: NegReLU, x: Value) -> str:
    if not layer.slope:
        return f"{x}.clamp(max=0)"
    return f"torch.where({x} < 0, {x}, {literal(float(layer.slope))} * {x})"


@writes(ChannelNorm)
def channel_norm(w: Writer, layer: ChannelNorm, x: Value) -> str:
    return f"{x}.square().sum(1, keepdim=True).sqrt()"


@writes(Mean)
def mean(w: Writer, layer: Mean, *bottoms: Value) -> list[str]:
    tops = []
    for i, x in enumerate(bottoms):
        own = layer.mean.repeat(x.shape[1] // layer.mean.shape[0], 1, 1) * layer.output_scale
        place = w.parameter(layer, own, name=layer.name if not i else f"{layer.name}_{i}", learns=False)
        scale = layer.input_scale * layer.output_scale
        tops.append(f"{x} + {place}" if scale == 1 else f"{literal(scale)} * {x} + {place}")
    return tops


@writes(FlowWarp)
def flow_warp(w: Writer, layer: FlowWarp, image: Value, flow: Value) -> str:
    return call(w.helper(helpers.warp), image, flow, fill=layer.fill if math.isnan(layer.fill) else None)


@writes(WarpBy)
def warp_by(w: Writer, layer: WarpBy, image: Value, flow: Value) -> str:
    return call(w.helper(helpers.warp), image, flow, past_last=False)


@writes(WarpTo)
def warp_to(w: Writer, layer: WarpTo, image: Value, places: Value) -> str:
    return call(w.helper(helpers.read_at), image, places)


@writes(Grid)
def grid(w: Writer, layer: Grid, x: Value) -> str:
    return call(w.helper(helpers.place_grid), x)


@writes(NegSquare)
def negative_square(w: Writer, layer: NegSquare, x: Value) -> str:
    return f"-{x}.square()"


@writes(ExpMax)
def exp_max(w: Writer, layer: ExpMax, x: Value) -> str:
    return call(w.helper(helpers.exp_max), x, layer.inner, layer.outer)


def _matrices(w: Writer, layer: Resample | Downsample, x: Value) -> tuple[str, str]:
    """What rows and columns are multiplied by, as buffers."""
    static(layer, x, 2, 3)
    down, across = layer.weights(x.shape[2:], w.tops[0].shape[2:], torch.device("cpu"))
    return (
        w.parameter(layer, down, name=f"{layer.name}_rows", learns=False),
        w.parameter(layer, across.T.contiguous(), name=f"{layer.name}_columns", learns=False),
    )


@writes(DataAugmentation)
def augmentation(w: Writer, layer: DataAugmentation, x: Value, *given: Value) -> list[str]:
    if layer.transforms:
        raise unsaid(
            layer, "it transforms images by coefficients; nets for use have a single bottom here, and phase TEST"
        )
    if not layer.settled:
        raise unsaid(
            layer,
            "its mean still changes with every pass; the mean of a trained net, after recompute_mean passes, is fixed",
        )
    y = str(x)
    if layer.cuts:
        static(layer, x, 2, 3)
        rows, columns = layer.weights(x.shape[2:])
        down = w.parameter(layer, rows, name=f"{layer.name}_rows", learns=False)
        across = w.parameter(layer, columns.T.contiguous(), name=f"{layer.name}_columns", learns=False)
        y = f"{down} @ {x} @ {across}"
    mean = layer.subtracted()
    if mean is not None:
        y = f"{y} - {w.parameter(layer, mean, name=f'{layer.name}_mean', learns=False)}"
    tops = [y]
    if layer.n_tops > 1:
        tops.append(f"{x}.new_zeros({x}.shape[0], {len(NAMES)}, 1, 1)")
    return tops


@writes(Resample)
def resample(w: Writer, layer: Resample, x: Value, *like: Value) -> str:
    if layer.kind == TYPES.NEAREST:
        raise unsaid(layer, "type: NEAREST reads beyond rows, into the next ones")
    rows, columns = _matrices(w, layer, x)
    return f"{rows} @ {x} @ {columns}"


@writes(Downsample)
def downsample(w: Writer, layer: Downsample, x: Value, *like: Value) -> str:
    if x.shape[2:] == w.tops[0].shape[2:]:
        static(layer, x, 2, 3)
        return str(x)
    return call(w.helper(helpers.mean_of_known), x, *_matrices(w, layer, x))


@writes(Accum)
def accumulate(w: Writer, layer: Accum, *bottoms: Value) -> str:
    for x in bottoms:
        static(layer, x, 2, 3)
    size = tuple(w.tops[0].shape[2:])
    planes = bottoms[:-1] if layer.reference else bottoms
    return call(w.helper(helpers.stack_resized), tuple(map(str, planes)), size)


@writes(Correlation, RowCorrelation)
def correlation(w: Writer, layer: Correlation, first: Value, second: Value) -> str:
    rows, columns = (_steps(steps) for steps in layer.displacements())
    top = layer.pad if layer.both_axes else 0
    kernel, stride = unless(1, layer.kernel), unless(1, layer.strides[0])
    reach = (layer.reach if layer.both_axes else 0, layer.reach)
    subtract = unless(False, layer.subtracts)
    options = {"reach": reach, "padding": (top, layer.pad), "kernel": kernel, "stride": stride, "subtract": subtract}
    return call(w.helper(helpers.correlate), first, second, rows, columns, **options)


def _steps(values: list[int]) -> str:
    step = values[1] - values[0] if len(values) > 1 else 1
    bounds = [values[0], values[-1] + 1, step] if step > 1 else [values[0], values[-1] + 1]
    return call("range", *(bounds[1:] if bounds[0] == 0 and step == 1 else bounds))
