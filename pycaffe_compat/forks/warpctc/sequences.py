"""Losses and scores of label sequences, as xmfbit/warpctc-caffe has them.

Source: ctc_loss_layer.cpp, labelsequence_accuracy_layer.cpp, continuation_indicator_layer.cpp, and Baidu's warp-ctc.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...layers.base import Layer, Shape
from ...layers.loss import LossLayer, precise
from ...layers.registry import register
from ...layers.slope import WithSlope
from ...tables import dims


@register("CtcLoss", fork="warpctc")
class CtcLoss(LossLayer):
    """The mean over a batch of ``-log(probability of the labels)``, summed over all ways to align them (Graves et al., 2006).

    Bottoms: scores (T, N, alphabet_size), of which the first ``time_step`` steps count, and labels (N, L), in which
    ``blank_label`` fills what is not used. Labels that do not fit into the steps cost nothing. As in the fork the gradient
    is that of the sum, not of the mean.
    """

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options, (scores, labels) = param.ctc_loss_param, bottom_shapes
        self.blank, self.steps = options.blank_label, options.time_step
        if len(scores) != 3 or len(labels) < 2 or math.prod(labels[2:]) != 1 or labels[0] != scores[1]:
            raise self.error(f"takes scores T×N×C and labels N×L, not shapes {dims(scores)} and {dims(labels)}")
        if options.alphabet_size != scores[2]:
            raise self.error(
                f"ctc_loss_param.alphabet_size: {options.alphabet_size} must be the size of the scores' last axis, {scores[2]}"
            )
        if not 0 <= self.blank < scores[2]:
            raise self.error(f"ctc_loss_param.blank_label: {self.blank} is not a label: there are 0 to {scores[2] - 1}")
        if not 1 <= self.steps <= scores[0]:
            raise self.error(
                f"ctc_loss_param.time_step: {self.steps} must be from 1 to the steps of its bottom, {scores[0]}"
            )

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        """Return the loss as a tensor without axes.

        Raises:
            LayerError: a label is none of the alphabet.
        """
        n, alphabet = x.shape[1:]
        if x.is_meta:
            return x.sum() * 0
        labels = label.detach().reshape(n, -1).long()
        bad = ((labels < 0) | (labels >= alphabet)).any()
        if label.device.type == "cpu" and bool(bad):
            wrong = labels[(labels < 0) | (labels >= alphabet)][0]
            raise self.error(f"label {int(wrong)} is not one of 0 to {alphabet - 1}")
        targets, lengths = packed(labels.clamp(0, alphabet - 1), self.blank)
        steps = torch.full((n,), self.steps, dtype=torch.long)
        logarithms = F.log_softmax(precise(x), 2)
        each = F.ctc_loss(logarithms, targets, steps, lengths.cpu(), self.blank, reduction="sum", zero_infinity=True)
        loss = WithSlope.apply(each, each.detach() / n, None)
        return torch.where(bad, math.nan, loss) if label.device.type != "cpu" else loss


def packed(labels: Tensor, blank: int) -> tuple[Tensor, Tensor]:
    """Each row's labels that are not blank, moved to its start, and how many they are."""
    empty = labels == blank
    order = empty.long().argsort(dim=1, stable=True)
    return labels.gather(1, order), (~empty).sum(1)


@register("LabelsequenceAccuracy", fork="warpctc")
class LabelsequenceAccuracy(Layer):
    """The fraction of the batch whose best labels, without repetitions and blanks, match the target sequence.

    Bottoms: scores (N, T, C) and labels (N, L), in which ``blank_label`` fills what is not used.
    """

    head = True
    bottoms = (2, 2)
    differentiable = (False,)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        self.blank = param.labelsequence_accuracy_param.blank_label
        scores, labels = bottom_shapes
        if len(scores) != 3 or len(labels) < 2 or math.prod(labels[2:]) != 1 or labels[0] != scores[0]:
            raise self.error(f"takes scores N×T×C and labels N×L, not shapes {dims(scores)} and {dims(labels)}")

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        """Return the share as a tensor without axes."""
        n, steps = x.shape[:2]
        best = x.detach().argmax(2)
        before = F.pad(best, (1, 0), value=self.blank)[:, :-1]
        found, count = packed(torch.where(best == before, self.blank, best), self.blank)
        wanted, number = packed(label.detach().reshape(n, -1).long(), self.blank)
        width = max(steps, wanted.shape[1])
        same = F.pad(found, (0, width - steps)) == F.pad(wanted, (0, width - wanted.shape[1]))
        beyond = torch.arange(width, device=x.device) >= number[:, None]
        return ((count == number) & (same | beyond).all(1)).to(x.dtype).mean()


@register("ContinuationIndicator", fork="warpctc")
class ContinuationIndicator(Layer):
    """Continuation indicators (time_step, batch_size): 0 in the first step and 1 in all others."""

    bottoms = (0, 0)
    cont: Tensor

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.continuation_indicator_param
        shape = (options.time_step, options.batch_size)
        if min(shape) < 1:
            raise self.error(
                f"continuation_indicator_param: time_step × batch_size {dims(shape)} must both be at least 1"
            )
        self.register_buffer("cont", torch.empty(shape, device="meta"), persistent=False)

    def prepare(self, bottom_shapes: Sequence[Shape], device: torch.device) -> None:
        self.cont = torch.ones(self.cont.shape, dtype=self.cont.dtype, device=device)
        self.cont[0] = 0

    def forward(self) -> Tensor:
        return self.cont.clone()
