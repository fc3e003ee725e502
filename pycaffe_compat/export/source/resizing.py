"""Forks' layers that change the size of planes."""

from __future__ import annotations

from typing import Any

import torch

from ...forks.deconvnet.unpooling import Unpooling
from ...forks.deeplab.interp import Interp
from ...forks.intel.pixel_shuffle import PixelShuffle
from ...forks.mnc.masks import MaskResize, shares
from ...forks.segnet.upsample import MaskedUpsample
from ...forks.xilinx.deephi_resize import DeephiResize
from ...forks.xilinx.tiling import GSTiling, Tiling
from ...forks.yolo.reorg import Reorg
from ...forks.yolo.upsample import NearestUpsample, UpsampleDarknet
from ..outline import Value
from ..registry import static, unsaid
from .helpers import resizing, windows
from .layout import call, square, unless
from .writer import Writer, writes


@writes(Interp)
def interp(w: Writer, layer: Interp, x: Value) -> str:
    begin, end = layer.crop
    source = str(x)
    if begin or end:
        part = f"{begin or ''}:{f'-{end}' if end else ''}"
        source = f"{x}[:, :, {part}, {part}]"
    if layer.plane is None:
        return call(w.helper(resizing.resize), source, layer.shrink, layer.zoom)
    return f'F.interpolate({source}, {tuple(layer.plane)}, mode="bilinear", align_corners=True)'


@writes(MaskResize)
def mask_resize(w: Writer, layer: MaskResize, x: Value) -> str:
    static(layer, x, 2, 3)
    rows, columns = (shares(x.shape[2 + a], layer.size[a], torch.empty(0))[0] for a in (0, 1))
    down = w.parameter(layer, rows, name=f"{layer.name}_rows", learns=False)
    across = w.parameter(layer, columns.T.contiguous(), name=f"{layer.name}_columns", learns=False)
    return f"{down} @ {x} @ {across}"


@writes(NearestUpsample, UpsampleDarknet)
def nearest(w: Writer, layer: NearestUpsample | UpsampleDarknet, x: Value) -> str:
    return f"{w.module(layer, 'nn.Upsample', scale_factor=layer.factor)}({x})"


@writes(DeephiResize)
def deephi_resize(w: Writer, layer: DeephiResize, x: Value) -> str:
    factors = (float(layer.scales[0]), float(layer.scales[1]))
    whole = layer.fixed is None and all(f.is_integer() for f in factors)
    if not whole:
        static(layer, x, 2, 3)
    options: dict[str, Any] = {"scale_factor": factors} if whole else {"size": layer.size(x.shape)}
    if not layer.nearest:
        options |= {"mode": '"bilinear"', "align_corners": False}
        return f"{w.module(layer, 'nn.Upsample', **options)}({x})"
    if whole:
        return f"{w.module(layer, 'nn.Upsample', **options)}({x})"
    return call(w.helper(resizing.resize_nearest), x, layer.size(x.shape))


@writes(PixelShuffle)
def pixel_shuffle(w: Writer, layer: PixelShuffle, x: Value) -> str:
    return f"F.pixel_shuffle({x}, {layer.factor})"


@writes(Tiling)
def tiling(w: Writer, layer: Tiling, x: Value) -> str:
    return f"{w.module(layer, 'nn.PixelShuffle', layer.side)}({x})"


@writes(GSTiling)
def gs_tiling(w: Writer, layer: GSTiling, x: Value) -> str:
    return call(w.helper(resizing.squares_to_channels), x, layer.side, reverse=unless(False, layer.reverse))


@writes(MaskedUpsample, Unpooling)
def by_mask(w: Writer, layer: MaskedUpsample | Unpooling, x: Value, mask: Value | None = None) -> str:
    static(layer, x, 2, 3)
    height, width = layer.plane(x.shape)
    if mask is None:
        assert isinstance(layer, Unpooling)
        return _unpooled(w, layer, x, height, width)
    pool = layer.made_by
    if pool is not None and pool.pad == (0, 0) and w.is_whole(mask):
        kernel, stride, _ = pool
        usual = pool.unpooled((x.shape[2], x.shape[3]))
        if all(abs(n - m) < s for n, m, s in zip((height, width), usual, stride, strict=True)):
            module = w.module(layer, "nn.MaxUnpool2d", square(kernel), unless(square(kernel), square(stride)))
            return call(module, x, mask, output_size=unless(usual, (height, width)))
    return call(w.helper(resizing.place_at_mask), x, mask, height, width)


def _unpooled(w: Writer, layer: Unpooling, x: Value, height: int, width: int) -> str:
    """Without a mask."""
    window = layer.window
    if layer.mode == "MAX":
        if any((n - 1) * s >= side for n, s, side in zip(x.shape[2:], window.stride, (height, width), strict=True)):
            raise unsaid(layer, "not all of its windows begin in the planes that it makes")
        y = call(w.helper(windows.unpool_at_place), x, (0, 0), *window)
    else:
        y = call(w.helper(windows.unpool_everywhere), x, *window)
    made = window.unpooled((x.shape[2], x.shape[3]))
    if layer.mode == "AVE" and (made[0] > height or made[1] > width):
        raise unsaid(layer, "its last windows reach beyond the planes that it makes")
    if made != (height, width):
        y = f"F.pad({y}, (0, {width - made[1]}, 0, {height - made[0]}))"
    return f"{y} / {window.places}" if layer.mode == "AVE" else y


@writes(Reorg)
def reorg(w: Writer, layer: Reorg, x: Value) -> str:
    return call(w.helper(resizing.reorg), x, layer.stride, reverse=unless(False, layer.reverse))
