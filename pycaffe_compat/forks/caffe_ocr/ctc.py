"""WarpCTCLoss and CTCGreedyDecoder, as caffe_ocr has them.

Sources: senlinuc/caffe_ocr, warp_ctc_loss_layer.cpp and ctc_decoder_layer.cpp.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...layers.base import Shape, count, untraced
from ...layers.loss import LossLayer, precise
from ...layers.registry import register
from ...layers.slope import WithSlope
from ...tables import dims
from ..textboxes_plus.ctc_decoder import CTCGreedyDecoder, edit_error, until_end
from ..warpctc.sequences import packed


@register("WarpCTCLoss", fork="caffe_ocr")
class WarpCTCLoss(LossLayer):
    """The mean over a batch of ``-log(probability of the labels)``, summed over all ways to align them (Graves et al., 2006).

    Bottoms: scores (T, N, C), and

    - labels (N, L), in which ``blank_index`` fills what is not used;
    - or indicators (T, N), which are 0 from the second step on where a sequence has ended, and labels (T, N), which end at a
      number below 0, and to which 1 is added where ``blank_index`` is 0;
    - or the numbers of steps (N), those of labels (N), and labels (L, N).

    Labels that do not fit into the steps cost nothing. As in the fork the gradient is that of the sum, not of the mean.
    """

    options = ("ctc_loss_param",)
    inert_options = frozenset(
        {"output_delay", "preprocess_collapse_repeated", "ctc_merge_repeated", "loss_calculation_t"}
    )
    bottoms = (2, 4)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        self.blank = param.ctc_loss_param.blank_index
        self.check_bottoms(bottom_shapes)

    def check_bottoms(self, shapes: Sequence[Shape]) -> None:
        """Raise unless the bottoms are of the same steps and items, and the blank is one of the classes."""
        scores, *others = map(tuple, shapes)
        if len(scores) < 3 or not scores[0] or math.prod(scores[3:]) != 1:
            raise self.error(f"takes scores T×N×C, at least one step, not {dims(scores)}")
        steps, n, classes = scores[:3]
        if not 0 <= self.blank < classes:
            raise self.error(f"ctc_loss_param.blank_index: {self.blank} is not a label: there are 0 to {classes - 1}")
        labels = others[-1]
        fits = {
            1: labels[:1] == (n,),
            2: all(shape[:2] == (steps, n) and count(shape, 2) == 1 for shape in others),
            3: all(math.prod(shape) == n for shape in others[:2]) and labels[1:2] == (n,) and count(labels, 2) == 1,
        }[len(others)]
        if not fits:
            raise self.error(f"its bottoms do not belong together: {', '.join(map(dims, shapes))}")

    def forward(self, scores: Tensor, *others: Tensor) -> Tensor:
        """Return the loss as a tensor without axes."""
        self.check_bottoms([x.shape for x in (scores, *others)])
        if scores.is_meta or not scores.shape[1]:
            return scores.sum() * 0
        each = self._costs(scores, [other.detach() for other in others])
        return WithSlope.apply(each, each.detach() / scores.shape[1], None)

    @untraced
    def _costs(self, scores: Tensor, others: list[Tensor]) -> Tensor:
        """The sum of the costs of all items."""
        steps, n, classes = scores.shape[:3]
        labels, lengths, times = self._read(steps, n, others)
        counted = torch.arange(labels.shape[1]) < lengths[:, None]
        if (bad := counted & ((labels < 0) | (labels >= classes))).any():
            raise self.error(f"label {int(labels[bad][0])} is not one of 0 to {classes - 1}")
        logarithms = F.log_softmax(precise(scores.reshape(steps, n, classes)), 2)
        labels = torch.where(counted, labels, 0).to(scores.device)
        return F.ctc_loss(logarithms, labels, times, lengths, self.blank, reduction="sum", zero_infinity=True)

    def _read(self, steps: int, n: int, others: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """The labels of each item (N, L), how many they are, and the number of steps, on the CPU."""
        last = others[-1].cpu()
        if len(others) == 1:
            return *packed(last.reshape(n, -1).long(), self.blank), torch.full((n,), steps)
        if len(others) == 2:
            going, last = others[0].cpu().reshape(steps, n), last.reshape(steps, n)
            times = 1 + ((going[1:] + 0.5).long() != 0).cumprod(0).sum(0)
            lengths = (last >= 0).cumprod(0).sum(0)
            if (empty := lengths == 0).any() and int(times[empty].max()) > 1:
                raise self.error("an item without labels has more than one step")
            times[empty] = 0
            labels = (last + 0.5).long().T + (self.blank == 0)
        else:
            times, lengths = (each.cpu().flatten().long() for each in others[:2])
            labels = last.flatten(1).T[:n].long()
        if (
            int(times.min()) < 0
            or int(times.max()) > steps
            or int(lengths.min()) < 0
            or int(lengths.max()) > labels.shape[1]
        ):
            raise self.error(f"numbers of steps or labels are not of {steps} steps and {labels.shape[1]} labels")
        if len(others) == 2 and (lengths > times).any():
            raise self.error("an item has more labels than steps")
        return labels, lengths, times


@register("CTCGreedyDecoder", fork="caffe_ocr")
class JudgingDecoder(CTCGreedyDecoder):
    """The best labels of sequences, as in TextBoxes++'s layer; with labels (N, L), only their accuracy: (1, 2, 1, 1).

    That is 1 less the mean edit distance by the length of the longer sequence, and the share of sequences without a fault, an
    empty one not counting as right. ``blank_index`` fills what is not used of labels, which end at a number below 0.
    """

    bottoms = (1, 2)
    tops = (1, 1)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        if not param.ctc_decoder_param.HasField("blank_index"):
            self.blank = 0  # the default here, -1 in TextBoxes++'s Caffe

    def check(self, scores: Sequence[int], *others: Sequence[int]) -> None:
        super().check(scores)
        if others and (len(others[0]) < 2 or others[0][0] != scores[1]):
            raise self.error(f"needs scores T×N×C and labels N×L, not {dims(scores)} and {dims(others[0])}")

    def forward(self, scores: Tensor, *others: Tensor) -> Tensor:
        """Return the sequences (N, T, 1, 1), or the accuracies."""
        if not others:
            found = super().forward(scores)
            assert isinstance(found, Tensor)
            return found
        self.check(scores.shape, others[0].shape)
        if scores.is_meta:
            return scores.new_empty(1, 2, 1, 1)
        found = self.decode(scores.detach())[0].flatten(1)
        blank = self.blank if self.blank >= 0 else scores.shape[2] - 1
        faults, right = 0.0, 0
        for wanted, made in zip(self.read_labels(others[0].detach().flatten(1)), found.tolist(), strict=True):
            labels = [label for label in until_end(wanted) if label != blank]
            error = edit_error(labels, got := until_end(made))
            faults += error
            right += not error and bool(labels or got)
        n = scores.shape[1]
        return scores.new_tensor([1 - faults / n, right / n]).reshape(1, 2, 1, 1)
