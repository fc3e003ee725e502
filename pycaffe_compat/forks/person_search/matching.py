"""LabeledMatching and UnlabeledMatching: online instance matching.

Sources: Cysu/caffe, branch faster-rcnn, labeled_matching_layer.cpp and unlabeled_matching_layer.cpp; Xiao and others, Joint
Detection and Identification Feature Learning for Person Search, 2017.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...layers.base import Layer, Shape, count, untraced
from ...layers.registry import register
from ...layers.slope import TracedFunction
from ...tables import dims


class Matching(Layer):
    """The products of features (N, …) with the rows of a table that the backward pass fills; it needs labels, N numbers."""

    bottoms = (2, 2)
    differentiable = (True, False)
    weight: Tensor

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        x, label = bottom_shapes
        self.features = count(x, 1)
        self.check_bottoms(x, label)
        self.learns = not param.param or param.param[0].lr_mult != 0

    def check_bottoms(self, x: Shape, label: Shape) -> None:
        """Raise unless each item has a label, and as many features as the table."""
        if not x or not self.features or count(x, 1) != self.features or count(label) != x[0]:
            each = f"{self.features} each" if self.features else "at least one each"
            raise self.error(f"takes features (N, …), {each}, and N labels, not {dims(x)} and {dims(label)}")

    def scores(self, x: Tensor, label: Tensor) -> Tensor:
        """The products (N, rows of the table)."""
        self.check_bottoms(x.shape, label.shape)
        return _Scores.apply(x, label.detach(), self)

    def add_table(self, rows: int) -> None:
        """Declare the table."""
        self.add_blob("weight", (rows, self.features), trainable=False)

    @untraced
    def follow(self, rows: Tensor, labels: Tensor) -> None:
        """Take features of the batch into the table."""
        raise NotImplementedError


class _Scores(TracedFunction):
    """The products; their backward pass fills the table after it has used it."""

    @staticmethod
    def forward(x: Tensor, label: Tensor, layer: Matching) -> Tensor:
        return x.reshape(len(x), layer.features) @ layer.weight.to(x.dtype).t()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, label, ctx.layer = inputs
        ctx.save_for_backward(x, label)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        x, label = ctx.saved_tensors
        given = (grad @ ctx.layer.weight.to(grad.dtype)).reshape(x.shape)
        if ctx.layer.learns:
            ctx.layer.follow(x.reshape(len(x), ctx.layer.features).to(ctx.layer.weight.dtype), label.reshape(-1).long())
        return given, None, None


@register("LabeledMatching", fork="person_search")
class LabeledMatching(Matching):
    """Scores (N, num_classes) of features against a row for each person, and the labels, with -1 for regions without a person.

    After a backward pass the row of each label is ``momentum`` times itself and ``1 - momentum`` times the item's feature,
    item by item, unless the first ``lr_mult`` is 0. A second blob counts the passes since a row last changed.
    """

    tops = (2, 2)
    blobs_declared = ("weight", "age")
    age: Tensor

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.labeled_matching_param
        self.persons, self.momentum = options.num_classes, options.momentum
        if self.persons < 1:
            raise self.error(f"labeled_matching_param.num_classes: {self.persons} must be at least 1")
        self.add_table(self.persons)
        self.add_blob("age", (self.persons,), trainable=False)

    def forward(self, x: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        index = label.detach().trunc()
        known = (index >= 0) & (index < self.persons)
        return self.scores(x, label), torch.where(known, label.detach(), -1.0).to(label.dtype)

    @untraced
    def follow(self, rows: Tensor, labels: Tensor) -> None:
        known = (labels >= 0) & (labels < self.persons)
        same = (labels[:, None] == labels) & known
        later = same.triu(1).sum(1)
        share = torch.where(known, (1 - self.momentum) * self.momentum ** later.to(rows.dtype), 0.0)
        place = labels.clamp(0, self.persons - 1)
        number = torch.zeros_like(self.age).index_add(0, place, known.to(self.age.dtype))
        self.weight.mul_(self.momentum ** number[:, None])
        self.weight.index_add_(0, place, rows * share[:, None])
        self.age.add_(1).mul_((number == 0).to(self.age.dtype))


@register("UnlabeledMatching", fork="person_search")
class UnlabeledMatching(Matching):
    """Scores (N, queue_size) of features against those of the latest unlabeled persons (label -1).

    After a backward pass the features with that label take the places of the oldest, unless the first ``lr_mult`` is 0. On a GPU
    the fork copies only a quarter of each feature; here it is whole, as the fork has it on a CPU.
    """

    blobs_declared = ("weight",)
    tail = 0

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        self.size = param.unlabeled_matching_param.queue_size
        if self.size < 1:
            raise self.error(f"unlabeled_matching_param.queue_size: {self.size} must be at least 1")
        self.add_table(self.size)

    def state(self) -> dict[str, Any]:
        """Where the oldest feature is."""
        return {"tail": self.tail}

    def seek(self, state: dict[str, Any]) -> None:
        self.tail = state["tail"]

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        return self.scores(x, label)

    @untraced
    def follow(self, rows: Tensor, labels: Tensor) -> None:
        nameless = rows[labels == -1]
        places = (self.tail + torch.arange(len(nameless), device=rows.device)) % self.size
        self.weight[places[-self.size :]] = nameless[-self.size :]
        self.tail = (self.tail + len(nameless)) % self.size
