"""Layers of detectors."""

from __future__ import annotations

import torch

from ...forks.openvino.prior_box_clustered import PriorBoxClustered
from ...forks.ssd.prior_box import PriorBox, Priors
from ..outline import Value
from ..registry import static
from .writer import Writer, writes


@writes(PriorBox, PriorBoxClustered)
def priors(w: Writer, layer: Priors, x: Value, picture: Value) -> str:
    """Boxes that depend on sizes alone: a buffer."""
    for value in (x, picture):
        if len(value.shape) > 2:
            static(layer, value, *range(2, len(value.shape)))
    return w.parameter(layer, layer(torch.empty(x.shape), torch.empty(picture.shape)), learns=False)
