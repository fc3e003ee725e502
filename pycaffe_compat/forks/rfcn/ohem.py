"""Online hard example mining, as R-FCN has it: losses of single regions, and the choice of the worst ones.

Sources: daijifeng001/caffe-rfcn, box_annotator_ohem_layer.cu and smooth_L1_loss_layer.cu, and intel/caffe,
softmax_loss_ohem_layer.cu and smooth_L1_loss_ohem_layer.cu.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...layers.base import Layer, Shape
from ...layers.loss import PRE_FIXED, LossLayer, SoftmaxWithLoss, floored, precise
from ...layers.registry import register
from ...layers.slope import WithSlope
from ...tables import dims


@register("SoftmaxWithLossOHEM", fork=("rfcn", "psroi_align", "intel"))
class SoftmaxWithLossOHEM(SoftmaxWithLoss):
    """SoftmaxWithLoss with a third top: the loss at each place, in the shape of the labels, without a gradient."""

    fork_options = PRE_FIXED
    tops = (1, 3)

    @classmethod
    def fits(cls, param: Any) -> bool:
        return True

    def forward(self, x: Tensor, label: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return the loss as a tensor without axes, the probabilities and the losses, as many as there are tops."""
        logarithms, axis, labels = self.log_probabilities(x, label)
        loss = -floored(logarithms.gather(axis, labels.classes), self.floor)
        made = self.finish(x, axis, labels, loss)
        if self.n_tops < 3:
            return made
        each = loss.detach() if labels.keep is None else loss.detach().masked_fill(~labels.keep, 0)
        return (*made, each.reshape(label.shape))


@register("SoftmaxWithLoss", fork=("rfcn", "cascade_rcnn"))
class SoftmaxWithLossOfEach(SoftmaxWithLossOHEM):
    """SoftmaxWithLoss with three tops, which R-FCN's Caffe later renamed SoftmaxWithLossOHEM."""

    @classmethod
    def fits(cls, param: Any) -> bool:
        return len(param.top) == 3


@register("SmoothL1LossOHEM", fork=("rfcn", "psroi_align", "intel"))
class SmoothL1LossOHEM(LossLayer):
    """``sum(f(w (a - b)))`` divided by a normalizer; f is ``0.5 d^2`` below 1, else ``|d| - 0.5``.

    The weights w, a third bottom, are left out of the gradient. The second top is the loss at each place, the sum over
    channels (N, 1, H, W), without a gradient. ``normalization`` VALID divides by the number of places.
    """

    weightless = frozenset({"rfcn", "psroi_align", "intel"})
    options = ("loss_param",)
    bottoms = (2, 3)
    tops = (1, 2)
    differentiable = (True, True, False)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        for shape in bottom_shapes[1:]:
            if _four(shape) != _four(bottom_shapes[0]):
                raise self.error(f"its bottoms must have one shape, not {' and '.join(map(dims, bottom_shapes))}")

    def forward(self, a: Tensor, b: Tensor, weight: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """Return the loss as a tensor without axes, and the losses if there is a top for them."""
        n, channels, height, width = _four(a.shape)
        d = precise(a) - precise(b).reshape(a.shape)
        if weight is not None:
            d = WithSlope.apply(d, (d * weight.reshape(a.shape)).detach(), None)
        errors = F.smooth_l1_loss(d, torch.zeros_like(d), reduction="none")
        total = errors.sum() / self.normalizer(None, n, n * height * width)
        if self.n_tops == 1:
            return total
        return total, errors.detach().reshape(n, channels, height, width).sum(1, keepdim=True)


@register("BoxAnnotatorOHEM", fork=("rfcn", "psroi_align", "intel"))
class BoxAnnotatorOHEM(Layer):
    """The labels and the box weights of the ``roi_per_img`` regions of each image with the largest losses.

    The labels of the others become ``ignore_label``, their weights 0. Of equal losses the first count. The bottoms are
    regions (N, 5, H, W), losses and labels (N, 1, H, W) and weights (N, channels, H, W); no gradient flows.
    """

    bottoms = (4, 4)
    tops = (2, 2)
    differentiable = (False,)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.box_annotator_ohem_param
        self.kept, self.ignore_label = options.roi_per_img, options.ignore_label
        if not self.kept:
            raise self.error("needs box_annotator_ohem_param.roi_per_img, at least 1")
        self.check_shapes(bottom_shapes)

    def check_shapes(self, shapes: Sequence[Shape]) -> None:
        """Check that all bottoms are of the same regions.

        Raises:
            LayerError: one is not.
        """
        n, _, height, width = _four(shapes[0])
        for shape, channels in zip(map(_four, shapes), (5, 1, 1, None), strict=True):
            if shape != (n, shape[1] if channels is None else channels, height, width):
                raise self.error(
                    "needs regions N×5, losses N, labels N and weights N×channels (all with the same two further axes, "
                    f"if any), not {', '.join(map(dims, shapes))}"
                )

    def forward(self, regions: Tensor, losses: Tensor, labels: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return labels (N, 1, H, W) and weights (N, channels, H, W)."""
        shapes = [_four(bottom.shape) for bottom in (regions, losses, labels, weights)]
        self.check_shapes(shapes)
        regions, losses, labels, weights = (
            bottom.detach().reshape(shape)
            for bottom, shape in zip((regions, losses, labels, weights), shapes, strict=True)
        )
        order = losses.flatten().argsort(descending=True, stable=True)
        images, by_image = regions[:, 0].flatten()[order].long().sort(stable=True)
        at = torch.arange(len(order), device=order.device)
        first = torch.where(images != images.roll(1), at, 0).cummax(0).values
        keep = torch.zeros_like(at, dtype=torch.bool)
        keep[order[by_image]] = at - first < self.kept
        keep = keep.view_as(labels)
        return torch.where(keep, labels, self.ignore_label), torch.where(keep, weights, 0)


def _four(shape: Sequence[int]) -> Shape:
    return (*shape, *(1,) * (4 - len(shape)))
