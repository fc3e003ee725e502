"""ChannelScale and LabelSpecificAdd, as happynear's Caffe has them.

Sources: happynear/caffe-windows, channel_scale_layer.cu and label_specific_add.cpp.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...layers.base import Layer, Shape, count
from ...layers.loss import read_labels
from ...layers.registry import register
from ...layers.slope import WithSlope
from ...tables import dims

KEPT = 0.99  # of the global scale, in each pass


@register("ChannelScale", fork="happynear")
class ChannelScale(Layer):
    """``x`` (N, C, …) times ``scale``, one factor for each place of each item: (N, 1, …), or as many values.

    With ``global_scale`` one blob is the factor of all, and a second top: a moving average of the mean of ``|scale|`` in
    training, between ``min_global_scale`` and ``max_global_scale``, as the fork has it on a GPU. ``do_forward: false`` copies
    ``x``. The gradients are those of the product with ``scale`` in any case; without ``do_backward_feature`` the top's goes
    to ``x`` as it is, without ``do_backward_scale`` none goes to ``scale``.
    """

    bottoms = (2, 2)
    tops = (1, 2)
    blobs_declared = ("factor",)
    blobs_optional = frozenset({"factor"})
    factor: Tensor

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.channel_scale_param
        x, scale = bottom_shapes
        if len(x) < 2 or not x[1] or x[0] != (scale[0] if scale else None) or count(x) // x[1] != count(scale):
            raise self.error(
                f"needs bottoms (N, C, …) and (N, 1, …), one factor for each place, not {dims(x)} and {dims(scale)}"
            )
        self.scales, self.common = options.do_forward, options.global_scale
        self.to_x, self.to_scale = options.do_backward_feature, options.do_backward_scale
        self.least, self.most = options.min_global_scale, options.max_global_scale
        if self.common:
            self.add_blob("factor", (1,), torch.tensor([-1.0]), trainable=False)
        elif self.n_tops > 1:
            raise self.error("has two tops, but makes the second only with channel_scale_param.global_scale")

    def forward(self, x: Tensor, scale: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        factors = scale.reshape(x.shape[0], 1, *x.shape[2:]).expand_as(x)
        fixed = x.detach()
        if not self.scales:
            value = fixed.clone()
        elif self.common:
            self._follow(scale.detach())
            value = fixed * self.factor.to(x.dtype)
        else:
            value = fixed * factors.detach()
        y = WithSlope.apply(x, value, factors.detach() if self.to_x else None)
        if self.to_scale:
            y = y + WithSlope.apply(factors, torch.zeros_like(value), fixed)
        return (y, self.factor.to(x.dtype).clone()) if self.n_tops > 1 else y

    def _follow(self, scale: Tensor) -> None:
        """Bring the global factor up to date."""
        if self.training and not scale.is_meta:
            mean = scale.abs().mean().to(self.factor.dtype)
            moved = torch.where(self.factor < 0, mean, self.factor * KEPT + mean * (1 - KEPT))
            self.factor.copy_(moved.clamp(max=self.most).clamp(min=self.least))


@register("LabelSpecificAdd", fork="happynear")
class LabelSpecificAdd(Layer):
    """In training, adds ``bias`` to the score of each item's label where that is above ``-bias``. Otherwise a copy.

    With ``bias_base`` it is ``bias_base + (1 + bias_gamma * t) ** bias_power - 1`` in pass t, counted from ``iteration`` on,
    between ``bias_min`` and ``bias_max``. The second top is the bias. The gradient is passed on as it is.
    """

    bottoms = (2, 2)
    tops = (1, 2)
    differentiable = (True, False)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.label_specific_add_param
        self.bias, self.moves = options.bias, options.HasField("bias_base")
        self.base, self.gamma, self.power = options.bias_base, options.bias_gamma, options.bias_power
        self.least, self.most = options.bias_min, options.bias_max
        self.passes = options.iteration
        if not bottom_shapes[0]:
            raise self.error("needs a bottom of scores (N, classes)")

    def state(self) -> dict[str, Any]:
        """The number of passes, which the bias follows."""
        return {"passes": self.passes}

    def seek(self, state: dict[str, Any]) -> None:
        self.passes = state["passes"]

    def forward(self, x: Tensor, label: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        if not self.training:
            y = x.clone()
            return (y, x.new_zeros(1)) if self.n_tops > 1 else y
        bias = self.bias
        if self.moves:
            rising: float = self.base + (1 + self.gamma * self.passes) ** self.power - 1
            bias = min(max(rising, self.least), self.most)
            if not x.is_meta:
                self.passes += 1
        rows = x.flatten(1)
        labels = read_labels(self, rows, 1, label)
        picked = rows.detach().gather(1, labels.classes)
        moved = torch.zeros_like(rows).scatter(1, labels.classes, torch.where(picked > -bias, bias, 0.0).to(x.dtype))
        y = labels.guard((rows + moved).reshape(x.shape))
        return (y, x.new_full((1,), bias)) if self.n_tops > 1 else y
