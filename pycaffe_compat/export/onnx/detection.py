"""Layers of detectors."""

from __future__ import annotations

import torch

from ...forks.ssd.normalize import Normalize
from ...forks.ssd.prior_box import Priors
from ..outline import Value
from .emitter import Emitter, emits, static


@emits(Normalize)
def normalize(e: Emitter, layer: Normalize, x: Value) -> str:
    axes = range(1, len(x.shape)) if layer.across_spatial else (1,)
    squares = e.op("ReduceSum", e.op("Mul", x, x), e.ints(*axes))
    norm = e.op("Sqrt", e.op("Add", squares, e.number(layer.eps)))
    scale = layer.scale.reshape(-1, *(1,) * (len(x.shape) - 2))
    return str(e.op("Mul", e.op("Div", x, norm), e.array(layer, "scale", scale)))


@emits(Priors)
def priors(e: Emitter, layer: Priors, x: Value, picture: Value) -> str:
    for value in (x, picture):
        if len(value.shape) > 2:
            static(layer, value, *range(2, len(value.shape)))
    return e.array(layer, "priors", layer(torch.empty(x.shape), torch.empty(picture.shape)))
