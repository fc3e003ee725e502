"""The dropout of ENet's Python layer, for nets without its Python 2 (TimoSaemann/caffe-enet, python/spatial_dropout.py)."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...layers.base import Layer, Shape
from ...layers.python_layer import STAND_INS, stands_in
from ...layers.registry import register
from ...layers.slope import WithSlope
from ...tables import dims

STAND_INS["spatial_dropout", "SpatialDropoutLayer"] = 1


@register("Python", fork="enet")
class SpatialDropout(Layer):
    """Each plane of each item is 0 with probability ``p``, else ``x / (1 - p)``, as in ``spatial_dropout.SpatialDropoutLayer``.

    It runs where that module is not in ``PYTHONPATH``, or may not run. ``param_str`` is a Python dict with ``p`` and ``phase``.
    With the phase TRAIN planes are dropped, whatever the phase of the net is; with any other none is, but all are divided by
    ``1 - p`` too. As in the fork, the gradient of each item is that of the planes which the last item kept.
    """

    options = ("python_param",)
    inert_options = frozenset({"share_in_parallel"})
    random = True
    passes_places = True

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        self.ratio, self.drops = self._read(param.python_param.param_str)
        if len(bottom_shapes[0]) != 4:
            raise self.error(f"takes a bottom of 4 axes, not of shape {dims(bottom_shapes[0])}")

    @classmethod
    def fits(cls, param: Any) -> bool:
        return stands_in(param, "SpatialDropoutLayer")

    def _read(self, text: str) -> tuple[float, bool]:
        """``p``, and whether planes are dropped."""
        try:
            given = ast.literal_eval(text)
            ratio, phase = float(given["p"]), given["phase"]
        except (ValueError, SyntaxError, TypeError, KeyError):
            raise self.error(
                f"python_param.param_str: {text!r} must be a Python dict with a number p and a phase, such as "
                "{'phase': 'TRAIN', 'p': '0.1'}"
            ) from None
        if not 0 < ratio < 1:
            raise self.error(f"python_param.param_str: p: {ratio:g} must be between 0 and 1")
        return ratio, phase == "TRAIN"

    def forward(self, x: Tensor) -> Tensor:
        if not self.drops:
            return x * (1 / (1 - self.ratio))
        kept = (torch.rand_like(x[:, :, :1, :1]) >= self.ratio).to(x.dtype) / (1 - self.ratio)
        return WithSlope.apply(x, x.detach() * kept, kept[-1:])
