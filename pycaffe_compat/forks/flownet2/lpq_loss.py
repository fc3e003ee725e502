"""LpqLoss, as FlowNet2's Caffe has it (lmb-freiburg/flownet2, lpq_loss_layer.cpp and .cu)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...layers.base import Shape
from ...layers.loss import LossLayer
from ...layers.registry import register
from ...tables import dims
from .l1_loss import rising


@register("LpqLoss", fork=("flownet2", "pwcnet"))
class LpqLoss(LossLayer):
    """The sum over places of ``(q_epsilon + sum over channels of (|a - b| + p_epsilon)^p)^q``, over N; or of a single bottom.

    What is not a number counts as 0. ``l2_prescale_by_channels`` takes the mean over channels instead of their sum;
    ``normalize_by_num_entries`` divides by how many differences are numbers, by the number of channels, and not by N.
    Only a constant p and q: those that change in the course of a training (several ``p`` and ``q``) are an error.
    """

    options = ("lpq_loss_param",)
    bottoms = (1, 2)
    differentiable = (True, True)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.lpq_loss_param
        starts = list(options.pq_episode_starts_at_iter)
        numbers = (len(starts), len(options.p), len(options.q))
        if len(options.p) != len(options.q) or not options.p or (numbers != (0, 1, 1) and numbers[0] != numbers[1]):
            raise self.error(
                "lpq_loss_param: needs as many p as q as pq_episode_starts_at_iter, or one p and one q, "
                f"not {numbers[1]}, {numbers[2]} and {numbers[0]}"
            )
        if len(options.p) > 1:
            raise self.error(
                f"lpq_loss_param: {len(options.p)} episodes; only one p and q for the whole training are supported here. "
                "Train episode by episode, each with its own p and q, from a snapshot"
            )
        if starts not in ([], [0]):
            raise self.error(f"lpq_loss_param.pq_episode_starts_at_iter: {starts[0]}; the first must be 0")
        self.p, self.q = options.p[0], options.q[0]
        self.p_epsilon, self.q_epsilon = options.p_epsilon, options.q_epsilon
        self.prescale, self.by_entries = options.l2_prescale_by_channels, options.normalize_by_num_entries
        if any(len(shape) != 4 or shape != bottom_shapes[0] for shape in bottom_shapes):
            raise self.error(
                f"needs bottoms (N, C, H, W) of one shape, not of {' and '.join(dims(shape) for shape in bottom_shapes)}"
            )

    def forward(self, a: Tensor, b: Tensor | None = None) -> Tensor:
        """Return the loss as a tensor without axes."""
        difference = a if b is None else a - b
        numbers = ~difference.isnan()
        magnitude = rising(torch.where(numbers, difference, 0))
        total = (magnitude + self.p_epsilon).pow(self.p).sum(1)
        if self.prescale:
            total = total / a.shape[1]
        loss = (total + self.q_epsilon).pow(self.q).sum()
        return loss / (numbers.sum() / a.shape[1] if self.by_entries else a.shape[0])
