"""Forks' layers that change the size of planes."""

from __future__ import annotations

from ...forks.deconvnet.unpooling import Unpooling
from ...forks.deeplab.interp import Interp
from ...forks.segnet.upsample import MaskedUpsample
from ...forks.yolo.reorg import Reorg
from ...forks.yolo.upsample import NearestUpsample, UpsampleDarknet
from ..outline import Value
from ..registry import static, unsaid
from . import helpers
from .layout import call, unless
from .writer import Writer, writes


@writes(Interp)
def interp(w: Writer, layer: Interp, x: Value) -> str:
    begin, end = layer.crop
    source = str(x)
    if begin or end:
        part = f"{begin or ''}:{f'-{end}' if end else ''}"
        source = f"{x}[:, :, {part}, {part}]"
    if layer.plane is None:
        return call(w.helper(helpers.resize), source, layer.shrink, layer.zoom)
    return f'F.interpolate({source}, {tuple(layer.plane)}, mode="bilinear", align_corners=True)'


@writes(NearestUpsample, UpsampleDarknet)
def nearest(w: Writer, layer: NearestUpsample | UpsampleDarknet, x: Value) -> str:
    return f"{w.module(layer, 'nn.Upsample', scale_factor=layer.factor)}({x})"


@writes(MaskedUpsample, Unpooling)
def by_mask(w: Writer, layer: MaskedUpsample | Unpooling, x: Value, mask: Value | None = None) -> str:
    if mask is None:
        raise unsaid(layer, "unpooling without a mask")
    static(layer, x, 2, 3)
    return call(w.helper(helpers.place_at_mask), x, mask, *layer.plane(x.shape))


@writes(Reorg)
def reorg(w: Writer, layer: Reorg, x: Value) -> str:
    return call(w.helper(helpers.reorg), x, layer.stride, reverse=unless(False, layer.reverse))
