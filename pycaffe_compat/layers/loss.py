"""Caffe's loss layers. Each makes one number, a top without axes.

Labels are floating-point numbers, which Caffe truncates to class indices. On the CPU a label that is not a class raises
an error that names it. On a GPU that check would synchronise host and device at every iteration, so the loss becomes NaN
there, which the solver reports.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import require_file
from ..proto import caffe_pb2
from ..proto.binary import read_message
from ..proto.blob_proto import blob_to_array
from ..tables import dims
from .base import Layer, Shape, count
from .registry import register
from .slope import WithSlope

LOG_THRESHOLD = 1e-20  # Caffe's floor under probabilities before their logarithm
FLT_MIN = torch.finfo(torch.float32).tiny
# R-FCN's and Intel's Caffe: a divisor of the user's
PRE_FIXED = frozenset({"loss_param.normalization=PRE_FIXED", "loss_param.pre_fixed_normalizer"})


def precise(x: Tensor) -> Tensor:
    """Half-precision values as float32: in half precision the sum of a loss overflows or loses small terms."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def floored(logarithm: Tensor, floor: float) -> Tensor:
    """Logarithms of at least that of ``floor``, with the gradient as if they were not bounded: Caffe's, of probabilities."""
    return WithSlope.apply(logarithm, logarithm.detach().clamp(min=math.log(floor)), None)


def _sizes(*blobs: Tensor) -> str:
    return " and ".join(dims(b.shape) for b in blobs)


class Labels(NamedTuple):
    """Labels as indices of classes.

    Attributes:
        classes: int64, clamped to the valid classes.
        keep: where the label is not ``ignore_label``; None without ``ignore_label``.
        ok: a 0-d bool tensor that says whether every label is a valid class; None if that is already checked.
    """

    classes: Tensor
    keep: Tensor | None
    ok: Tensor | None

    def guard(self, value: Tensor) -> Tensor:
        """Return ``value``, or NaN (without gradients) if a label is not a valid class."""
        return value if self.ok is None else torch.where(self.ok, value, math.nan)


def read_labels(layer: Layer, scores: Tensor, axis: int, label: Tensor, ignore: int | None = None) -> Labels:
    """Return the labels in the shape of ``scores`` with length 1 on ``axis``, the axis of the classes.

    Labels are truncated to integers, as in Caffe.

    Raises:
        LayerError: there is not one label for each place, or (on the CPU) a label is neither ``ignore`` nor a class.
    """
    places = (*scores.shape[:axis], 1, *scores.shape[axis + 1 :])
    classes = scores.shape[axis]
    if label.numel() != count(places):
        raise layer.error(
            f"takes {count(places)} labels for scores of shape {_sizes(scores)} (one for each place, the classes being "
            f"on axis {axis}), but the labels have shape {_sizes(label)}"
        )
    index = label.detach().reshape(places).long()
    keep = None if ignore is None else index != ignore
    if index.is_meta:
        return Labels(index, keep, None)
    bad = (index < 0) | (index >= classes)
    if keep is not None:
        bad &= keep
    ok = None
    if index.device.type == "cpu" and not torch.compiler.is_compiling():
        if bool(bad.any()):
            at = int(bad.flatten().nonzero()[0])
            raise layer.error(
                f"label {label.detach().flatten()[at].item():g} at index {at} is not a class: there are {classes}, "
                f"0 to {classes - 1}" + ("" if ignore is None else f", and ignore_label is {ignore}")
            )
    else:
        ok = ~bad.any()
    return Labels(index.clamp(0, classes - 1), keep, ok)


def check_label_map(layer: Layer, scores: Shape, labels: Shape) -> None:
    """Check the shapes of scores (N, C, H, W) and of a label map beside them, (N, 1, H, W).

    Raises:
        LayerError: they are not of the same places.
    """
    if len(scores) != 4 or tuple(labels) != (scores[0], 1, *scores[2:]):
        raise layer.error(
            "needs scores (num, channels, height, width) and labels (num, 1, height, width), but they have "
            f"{dims(scores)} and {dims(labels)}"
        )


class LossLayer(Layer):
    """The base class of losses: a prediction and a target with the same first axis N. The target gets no gradient.

    ``mode`` is the normalization of ``loss_param``, or ``default_mode`` if that gives none.
    """

    head = True
    bottoms: ClassVar[tuple[int, int | None]] = (2, 2)
    loss: ClassVar[bool] = True
    differentiable: ClassVar[tuple[bool, ...]] = (True, False)
    default_mode: ClassVar[int] = caffe_pb2.LossParameter.VALID

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.loss_param
        self.ignore_label: int | None = options.ignore_label if options.HasField("ignore_label") else None
        if options.HasField("normalization"):
            self.mode: int = options.normalization
        elif options.HasField("normalize"):
            self.mode = caffe_pb2.LossParameter.VALID if options.normalize else caffe_pb2.LossParameter.BATCH_SIZE
        else:
            self.mode = self.default_mode
        self.pre_fixed: float = options.pre_fixed_normalizer

    def batch_size(self, x: Tensor, target: Tensor) -> int:
        """Return N, the length of the first axis.

        Raises:
            LayerError: the first axes differ, or a bottom has no axes.
        """
        if not x.dim() or not target.dim() or x.shape[0] != target.shape[0]:
            raise self.error(f"its bottoms must have the same first axis (the batch), not shapes {_sizes(x, target)}")
        return x.shape[0]

    def same_count(self, x: Tensor, target: Tensor) -> None:
        """Check that the items of two bottoms have the same number of values.

        Raises:
            LayerError: they differ.
        """
        if count(x.shape, 1) != count(target.shape, 1):
            raise self.error(f"its bottoms must hold the same number of values, not shapes {_sizes(x, target)}")

    def normalizer(self, keep: Tensor | None, outer: int, full: int) -> float | Tensor:
        """Return the divisor of the summed loss, at least 1.

        Args:
            keep: which of the ``full`` terms count; None for all.
            outer: the size of the axes before the classes, usually the batch.
            full: the number of terms.
        """
        if self.mode == caffe_pb2.LossParameter.VALID and keep is not None:
            return keep.sum().clamp(min=1)
        if self.mode in (caffe_pb2.LossParameter.VALID, caffe_pb2.LossParameter.FULL):
            return max(1, full)
        if self.mode == caffe_pb2.LossParameter.PRE_FIXED:
            return max(1, self.pre_fixed)
        return max(1, outer) if self.mode == caffe_pb2.LossParameter.BATCH_SIZE else 1


class SoftmaxLoss(LossLayer):
    """A loss over class scores along one axis, with a label at each remaining place. The second top is the softmax."""

    tops: ClassVar[tuple[int, int | None]] = (1, 2)
    floor: ClassVar[float]
    axis_option: ClassVar[str]

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options, field = self.axis_option.split(".")
        self.axis: int = getattr(getattr(param, options), field)

    def log_probabilities(self, x: Tensor, label: Tensor) -> tuple[Tensor, int, Labels]:
        """Return the log-softmax of ``x``, its axis, and the labels with length 1 on that axis."""
        self.batch_size(x, label)
        axis = self.canonical_axis(self.axis, x.dim(), self.axis_option)
        return F.log_softmax(precise(x), axis), axis, read_labels(self, x, axis, label, self.ignore_label)

    def finish(self, x: Tensor, axis: int, labels: Labels, loss: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return the tops, given the loss at each place in the shape of the labels."""
        if labels.keep is not None:
            loss = loss.masked_fill(~labels.keep, 0)
        outer, full = count(x.shape, 0, axis), labels.classes.numel()
        total = labels.guard(loss.sum() / self.normalizer(labels.keep, outer, full))
        if self.n_tops == 1:
            return total
        return total, F.softmax(x.detach(), axis)


@register("SoftmaxWithLoss")
class SoftmaxWithLoss(SoftmaxLoss):
    """Mean of ``-log(softmax(x)[label])``. Source: Caffe's ``SoftmaxWithLossLayer``.

    ``x`` (N, C, …) with the classes on ``softmax_param.axis``, labels (N, …) or (N, 1, …); tops: the loss, and
    optionally the probabilities in the shape of ``x``, through which no gradient flows. With SegNet's
    ``weight_by_label_freqs`` the loss at a place counts as often as ``class_weighting``, a number for each class, says for
    its label; what the sum is divided by does not change.
    """

    options = ("softmax_param", "loss_param")
    fork_options = PRE_FIXED | {"loss_param.weight_by_label_freqs", "loss_param.class_weighting"}
    inert_options = frozenset({"engine"})
    floor = FLT_MIN
    axis_option = "softmax_param.axis"

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        self.class_weights: Tensor | None = None
        options = param.loss_param
        if options.weight_by_label_freqs:
            self.class_weights = torch.tensor(list(options.class_weighting))
            shape = bottom_shapes[0]
            classes = shape[self.canonical_axis(self.axis, len(shape), self.axis_option)]
            if len(self.class_weights) != classes:
                raise self.error(
                    f"loss_param.weight_by_label_freqs needs a class_weighting for each of the {classes} classes; there are "
                    f"{len(self.class_weights)}"
                )

    @classmethod
    def fits(cls, param: Any) -> bool:
        return len(param.top) != 3  # which R-FCN's has

    def forward(self, x: Tensor, label: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return the loss as a tensor without axes, and the probabilities if there is a top for them."""
        logarithms, axis, labels = self.log_probabilities(x, label)
        loss = -floored(logarithms.gather(axis, labels.classes), self.floor)
        if self.class_weights is not None:
            weights = self.class_weights.to(x.device)
            if not x.is_meta:
                self.class_weights = weights
            loss = loss * weights.to(loss.dtype)[labels.classes]
        return self.finish(x, axis, labels, loss)


@register("InfogainLoss")
class InfogainLoss(SoftmaxLoss):
    """Mean of ``-sum_k H[label, k] * log(softmax(x)[k])``. Source: Caffe 1.0's ``InfogainLossLayer``.

    The C×C matrix H is the third bottom, or comes from the binary ``BlobProto`` file ``infogain_loss_param.source``.
    """

    options = ("infogain_loss_param", "loss_param")
    fork_options = PRE_FIXED
    bottoms = (2, 3)
    differentiable = (True, False, False)
    floor = LOG_THRESHOLD
    axis_option = "infogain_loss_param.axis"

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        self.matrix: Tensor | None = None
        if len(bottom_shapes) < 3:
            path = param.infogain_loss_param.source
            if not path:
                raise self.error("needs the infogain matrix: a third bottom, or infogain_loss_param { source: FILE }")
            require_file(path, f'infogain matrix of layer "{self.name}"')
            self.matrix = torch.from_numpy(blob_to_array(read_message(path, caffe_pb2.BlobProto), what=path))

    def forward(self, x: Tensor, label: Tensor, infogain: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """Return the loss as a tensor without axes, and the probabilities if there is a top for them.

        Raises:
            LayerError: the infogain matrix is of another number of classes.
        """
        logarithms, axis, labels = self.log_probabilities(x, label)
        if infogain is None:
            assert self.matrix is not None
            infogain = self.matrix.to(x.device)
            if not x.is_meta:
                self.matrix = infogain
        classes = x.shape[axis]
        if infogain.numel() != classes**2:
            raise self.error(
                f"{classes} classes need an infogain matrix of {classes}×{classes}, not {_sizes(infogain)}"
            )
        rows = (
            infogain.detach()
            .to(logarithms.dtype)
            .reshape(classes, classes)[labels.classes.movedim(axis, -1).squeeze(-1)]
        )
        loss = -(rows * floored(logarithms.movedim(axis, -1), self.floor)).sum(-1)
        return self.finish(x, axis, labels, loss.unsqueeze(axis))


@register("MultinomialLogisticLoss")
class MultinomialLogisticLoss(LossLayer):
    """``-sum(log(p[label])) / N`` of probabilities (N, C). Source: Caffe's ``MultinomialLogisticLossLayer``."""

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        """Return the loss as a tensor without axes."""
        probabilities = precise(x).flatten(1)
        n = self.batch_size(x, label)
        labels = read_labels(self, probabilities, 1, label)
        picked = probabilities.gather(1, labels.classes)
        bounded = picked.detach().clamp(min=LOG_THRESHOLD)
        return labels.guard(-WithSlope.apply(picked, bounded.log(), 1 / bounded).sum() / n)


@register("EuclideanLoss")
class EuclideanLoss(LossLayer):
    """``sum((a - b)^2) / (2 N)``; both bottoms get gradients. Source: Caffe's ``EuclideanLossLayer``."""

    differentiable: ClassVar[tuple[bool, ...]] = (True,)

    @classmethod
    def fits(cls, param: Any) -> bool:
        return len(param.bottom) <= (cls.bottoms[1] or 0)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the loss as a tensor without axes."""
        n = self.batch_size(a, b)
        self.same_count(a, b)
        return F.mse_loss(precise(a), precise(b).reshape(a.shape), reduction="sum") / (2 * n)


@register("HingeLoss")
class HingeLoss(LossLayer):
    """One-vs-all hinge loss of scores (N, C), with ``norm`` L1 or L2, divided by N. Source: Caffe's ``HingeLossLayer``."""

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        self.squared: bool = param.hinge_loss_param.norm == caffe_pb2.HingeLossParameter.L2

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        """Return the loss as a tensor without axes."""
        scores = precise(x).flatten(1)
        n = self.batch_size(x, label)
        labels = read_labels(self, scores, 1, label)
        side = torch.ones_like(scores).scatter(1, labels.classes, -1)
        margins = F.relu(1 + side * scores)
        total = margins.square().sum() if self.squared else margins.sum()
        return labels.guard(total / n)


@register("ContrastiveLoss")
class ContrastiveLoss(LossLayer):
    """``sum(y d^2 + (1 - y) max(margin - d, 0)^2) / (2 N)``.

    d is the distance between two (N, C) embeddings; y (N) is 1 where they match. With ``legacy_version`` a pair that does
    not match costs ``max(margin - d^2, 0)``. Source: Caffe's ``ContrastiveLossLayer``, whose gradient adds 1e-4 to d.
    """

    bottoms = (3, 3)
    differentiable = (True, True, False)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        self.margin: float = param.contrastive_loss_param.margin
        self.legacy_version: bool = param.contrastive_loss_param.legacy_version

    def forward(self, a: Tensor, b: Tensor, matches: Tensor) -> Tensor:
        """Return the loss as a tensor without axes.

        Raises:
            LayerError: the bottoms are not embeddings (N, C), or there is not a label for each pair.
        """
        n = self.batch_size(a, b)
        self.same_count(a, b)
        if count(a.shape, 2) != 1 or count(b.shape, 2) != 1:
            raise self.error(f"takes embeddings of shape N×C (or N×C×1×1), not {_sizes(a, b)}")
        if matches.numel() != n:
            raise self.error(
                f"takes one label a pair: {n} for shapes {_sizes(a, b)}, but the labels have shape {_sizes(matches)}"
            )
        squares = (precise(a).reshape(n, -1) - precise(b).reshape(n, -1)).square().sum(1)
        d2 = squares.detach()
        if self.legacy_version:
            apart = F.relu(self.margin - d2)
            slope = -(d2 < self.margin).to(d2)
        else:
            d = d2.sqrt()
            apart = F.relu(self.margin - d).square()
            slope = -F.relu(self.margin - d) / (d + 1e-4)
        match = matches.detach().reshape(n).trunc() != 0
        loss = WithSlope.apply(squares, torch.where(match, d2, apart), slope.masked_fill(match, 1))
        return loss.sum() / (2 * n)


@register("SigmoidCrossEntropyLoss")
class SigmoidCrossEntropyLoss(LossLayer):
    """Cross entropy of ``sigmoid(x)`` and targets in [0, 1], of any equal shapes.

    Unlike the other losses it is divided by N where ``loss_param`` names no normalization.
    Source: Caffe 1.0's ``SigmoidCrossEntropyLossLayer``.
    """

    options = ("loss_param",)

    default_mode = caffe_pb2.LossParameter.BATCH_SIZE

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        """Return the loss as a tensor without axes."""
        n = self.batch_size(x, target)
        self.same_count(x, target)
        scores = precise(x)
        wanted = target.detach().reshape(x.shape).to(scores.dtype)
        keep = None if self.ignore_label is None else wanted.trunc() != self.ignore_label
        loss = F.binary_cross_entropy_with_logits(
            scores, wanted, weight=None if keep is None else keep.to(scores), reduction="sum"
        )
        return loss / self.normalizer(keep, n, x.numel())
