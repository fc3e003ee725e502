"""Accuracy: how often the label is among the best classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .base import Layer, Shape
from .loss import read_labels
from .registry import register


@register("Accuracy")
class Accuracy(Layer):
    """The fraction of places whose label is among the ``top_k`` highest scores. Source: Caffe 1.0's ``AccuracyLayer``.

    Ties count against the label, so a net that gives all classes the same score has accuracy 0.
    The scores are (N, C, …) with the classes on ``axis``; each remaining place has a label. Places whose label is
    ``ignore_label`` do not count. Tops: the accuracy (no axes) and, optionally, the accuracy of each class (C), which is
    0 for a class without labels. With ``min_is_better`` of happynear's Caffe low scores are the better ones: distances.
    """

    head = True
    fork_options = frozenset({"accuracy_param.min_is_better"})
    bottoms = (2, 2)
    tops = (1, 2)
    differentiable = (False,)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.accuracy_param
        self.top_k: int = options.top_k
        self.axis: int = options.axis
        self.lowest: bool = options.min_is_better
        self.ignore_label: int | None = options.ignore_label if options.HasField("ignore_label") else None

    @torch.no_grad()
    def forward(self, x: Tensor, label: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return the accuracy as a tensor without axes, and that of each class if there is a top for it.

        Raises:
            LayerError: ``top_k`` is more than there are classes.
        """
        axis = self.canonical_axis(self.axis, x.dim(), "accuracy_param.axis")
        classes = x.shape[axis]
        if self.top_k > classes:
            raise self.error(f"accuracy_param.top_k: {self.top_k} is more than the {classes} classes")
        labels = read_labels(self, x, axis, label, self.ignore_label)
        own = x.gather(axis, labels.classes)
        hit = (x <= own if self.lowest else x >= own).sum(axis, keepdim=True) <= self.top_k
        total: int | Tensor = hit.numel()
        if labels.keep is not None:
            hit &= labels.keep
            total = labels.keep.sum()
        accuracy = labels.guard(_share(hit.sum(), total, x))
        if self.n_tops == 1:
            return accuracy
        flat = labels.classes.flatten()
        seen = torch.ones_like(hit) if labels.keep is None else labels.keep
        zeros = torch.zeros(classes, device=x.device, dtype=torch.float32)
        hits, totals = (zeros.index_add(0, flat, which.flatten().float()) for which in (hit, seen))
        return accuracy, labels.guard(_share(hits, totals, x))


def _share(part: Tensor, whole: int | Tensor, like: Tensor) -> Tensor:
    least = max(whole, 1) if isinstance(whole, int) else whole.clamp(min=1)
    return (part / least).to(like.dtype)
