"""CTCGreedyDecoder, as TextBoxes++'s Caffe has it (MhLiao/TextBoxes_plusplus, ctc_decoder_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...layers.base import Layer, Shape, count, untraced
from ...layers.registry import register
from ...tables import dims


@register("CTCGreedyDecoder", fork="textboxes_plus")
class CTCGreedyDecoder(Layer):
    """The labels of a sequence (N, T, 1, 1): the best label of each step, without repetitions and blanks, padded with -1.

    The bottoms are scores (T, N, C); indicators (T, N), which are 0 from the second step on where a sequence has ended; and
    the true sequences (T, N), which end at a number below 0. Without indicators, as in nets for reading lines, each is whole.
    Further tops are the negative sums of the best scores, (N, 1, 1, 1), and with true sequences, last, the accuracy: 1 less
    the mean edit distance by the length of the longer sequence. ``blank_index`` below 0 is the last class.
    """

    options = ("ctc_decoder_param",)
    bottoms = (1, 3)
    tops = (1, 3)
    differentiable = (False,)
    head = True

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        self.blank, self.merges = param.ctc_decoder_param.blank_index, param.ctc_decoder_param.ctc_merge_repeated
        self.judges = len(bottom_shapes) == 3
        if self.judges and self.n_tops < 2:
            self.judges = False
        self.traceable = not self.judges  # type: ignore[misc]
        if self.n_tops > 2 + self.judges:
            raise self.error(f"has {self.n_tops} tops, but makes a third only with true sequences, a third bottom")
        self.check(*bottom_shapes)

    def check(self, scores: Sequence[int], *others: Sequence[int]) -> None:
        """Check that the bottoms are of the same steps and sequences.

        Raises:
            LayerError: they are not.
        """
        if (
            len(scores) < 3
            or not all(scores[:3])
            or count(scores, 3) != 1
            or any(tuple(shape[:2]) != tuple(scores[:2]) for shape in others)
        ):
            raise self.error(
                f"needs scores T×N×C and further bottoms T×N, not {', '.join(map(dims, (scores, *others)))}"
            )

    def forward(self, scores: Tensor, *others: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return the sequences, and the further tops."""
        self.check(scores.shape, *(other.shape for other in others))
        steps, n = scores.shape[:2]
        if scores.is_meta:
            made = [scores.new_empty((n, steps, 1, 1)), scores.new_empty((n, 1, 1, 1)), scores.new_empty((1, 1, 1, 1))]
        else:
            made = self.decode(scores.detach(), *(other.detach().reshape(steps, n) for other in others))
        if self.judges:
            made = [made[0], *made[1 : self.n_tops - 1], made[2]]
        tops = tuple(made[: self.n_tops])
        return tops if len(tops) > 1 else tops[0]

    @untraced
    def decode(self, scores: Tensor, going: Tensor | None = None, truth: Tensor | None = None) -> list[Tensor]:
        """The sequences, the scores and the accuracy, of tensors with memory."""
        steps, n, classes = scores.shape[:3]
        best, label = scores.reshape(steps, n, classes).max(2)
        alive = torch.ones_like(label, dtype=torch.bool)
        if going is not None:
            first = torch.arange(steps, device=scores.device)[:, None] == 0
            alive = (first | (going != 0)).cumprod(0).bool()
        keep = alive & (label != (self.blank if self.blank >= 0 else classes - 1))
        if self.merges:
            keep = keep & (label != F.pad(label, (0, 0, 1, 0), value=-1)[:-1])
        found = torch.full((n, steps + 1), -1.0, dtype=scores.dtype, device=scores.device)
        at = keep * keep.cumsum(0)  # those that are left out go before all others
        found = found.scatter(1, at.T, label.T.to(scores.dtype))[:, 1:]
        accuracy = scores.new_zeros(())
        if self.judges and truth is not None:
            rows = zip(self.read_labels(truth.T), found.tolist(), strict=True)
            accuracy = (
                1 - scores.new_tensor([edit_error(until_end(true), until_end(made)) for true, made in rows]).mean()
            )
        return [
            found.reshape(n, steps, 1, 1),
            -(best * alive).sum(0).reshape(n, 1, 1, 1),
            accuracy.reshape(1, 1, 1, 1),
        ]

    def read_labels(self, labels: Tensor) -> list[list[float]]:
        """The rows of true sequences (N, L), which must be finite numbers.

        Raises:
            LayerError: one is none.
        """
        if not bool(labels.isfinite().all()):
            raise self.error("has a label that is not finite")
        rows: list[list[float]] = labels.tolist()
        return rows


def until_end(row: Sequence[float]) -> list[int]:
    """The labels before the first number below 0."""
    end = next((i for i, value in enumerate(row) if value < 0), len(row))
    return [int(value + 0.5) for value in row[:end]]


def edit_error(a: Sequence[int], b: Sequence[int]) -> float:
    """The edit distance of two sequences by the length of the longer one; 0 for two empty ones."""
    distances = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        corner, distances[0] = distances[0], i
        for j, y in enumerate(b, 1):
            corner, distances[j] = distances[j], min(distances[j] + 1, distances[j - 1] + 1, corner + (x != y))
    return distances[-1] / max(len(a), len(b), 1)
