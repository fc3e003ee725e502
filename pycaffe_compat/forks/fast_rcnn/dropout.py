"""Dropout with scale_train, as Fast R-CNN's Caffe and its heirs have it (daijifeng001/caffe-rfcn, dropout_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...layers.base import Layer, Shape
from ...layers.neuron import dropout_ratio
from ...layers.registry import register


@register("Dropout", fork=("fast_rcnn", "mnc", "rfcn", "psroi_align", "ctpn"))
class LateDropout(Layer):
    """With ``scale_train: false``: in training, each element is 0 with probability ``dropout_ratio``, otherwise ``x``.

    Outside training it is ``x * (1 - dropout_ratio)``.
    """

    random = True
    keeps_positive = True
    passes_places = True

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        self.ratio = dropout_ratio(self, param)

    @classmethod
    def fits(cls, param: Any) -> bool:
        return not param.dropout_param.scale_train

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return x * torch.empty_like(x).bernoulli_(1 - self.ratio)
        return x * (1 - self.ratio)
