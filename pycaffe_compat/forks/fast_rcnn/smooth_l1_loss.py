"""SmoothL1Loss: Fast and Faster R-CNN's, with sigma and weights, and SSD's, which is the same without them.

Sources: rbgirshick/caffe-fast-rcnn, branches fast-rcnn and faster-rcnn, and weiliu89/caffe, branch ssd,
smooth_L1_loss_layer.cpp and .cu.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ...layers.base import Shape
from ...layers.loss import LossLayer, precise
from ...layers.registry import register
from ...layers.slope import WithSlope
from ...proto import caffe_pb2
from ...tables import dims

FORKS = (
    "fast_rcnn",
    "mnc",
    "psroi_align",
    "ctpn",
    "mscnn",
    "openvino",
    "ssd",
    "ssd_focal",
    "textboxes",
    "textboxes_plus",
    "faceboxes",
    "refinedet",
    "nvidia",
    "yolo",
    "tsn",
    "person_search",
    "xilinx",
)
_CALLING = {"ssd", "ssd_focal", "refinedet", "nvidia", "yolo"}  # those whose layer sets the weight of a loss


class _SmoothL1(LossLayer):
    """``sum(w_out f(w_in (a - b))) / N``; a subclass says what f is. The weights get no gradient."""

    bottoms: ClassVar[tuple[int, int | None]] = (2, 4)
    differentiable: ClassVar[tuple[bool, ...]] = (True, True, False)
    weightless = frozenset({*FORKS, "rfcn", "intel", "happynear", "cascade_rcnn"} - _CALLING)
    inside_in_gradient: bool

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        self.inside_in_gradient = len(bottom_shapes) == 4
        first = four_axes(bottom_shapes[0])
        for index, shape in enumerate(bottom_shapes):
            if four_axes(shape) != first:
                raise self.error(
                    f"its bottoms must have one shape, but bottom {index} has {dims(shape)} and bottom 0 "
                    f"{dims(bottom_shapes[0])}"
                )

    def smooth(self, difference: Tensor) -> Tensor:
        """f of each element."""
        raise NotImplementedError

    def forward(
        self, a: Tensor, b: Tensor, inside: Tensor | None = None, outside: Tensor | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return the loss as a tensor without axes. All bottoms have one shape (N, …)."""
        n = self.batch_size(a, b)
        difference = precise(a) - precise(b).reshape(a.shape)
        if inside is not None:
            weighted = inside.detach().reshape(a.shape) * difference
            difference = weighted if self.inside_in_gradient else WithSlope.apply(difference, weighted.detach(), None)
        loss = self.smooth(difference)
        if outside is not None:
            loss = loss * outside.detach().reshape(a.shape)
        return self.finish(loss, n)

    def finish(self, loss: Tensor, n: int) -> Tensor | tuple[Tensor, Tensor]:
        """The tops, by what each element loses and the length of the first axis."""
        return loss.sum() / n


class _WithSigma(_SmoothL1):
    """f is ``0.5 (sigma d)^2`` where ``|d| < 1 / sigma^2``, else ``|d| - 0.5 / sigma^2``."""

    options: ClassVar[tuple[str, ...] | None] = ("smooth_l1_loss_param",)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        sigma = param.smooth_l1_loss_param.sigma
        if not sigma > 0:
            raise self.error(f"smooth_l1_loss_param.sigma: {sigma:g} must be above 0")
        self.beta = 1 / sigma**2

    def smooth(self, difference: Tensor) -> Tensor:
        return F.smooth_l1_loss(difference, torch.zeros_like(difference), reduction="none", beta=self.beta)


@register("SmoothL1Loss", fork=FORKS)
class SmoothL1Loss(_WithSigma):
    """``sum(w_out f(w_in (a - b))) / N``: f is quadratic for small differences and linear for large ones.

    The bottoms are a and b, of one shape (N, …); with w_in and w_out, of that shape too, as in Faster R-CNN; or with w_in
    alone, as in Fast R-CNN, which leaves it out of the gradient. With ``sigma`` s, f is ``0.5 s^2 d^2`` where
    ``|d| < 1 / s^2``, else ``|d| - 0.5 / s^2``. Both a and b get gradients, the weights none.
    """

    @classmethod
    def fits(cls, param: Any) -> bool:
        return not param.HasField("smoothl1_param") and len(param.top) < 2 and not pre_fixed(param)


@register("SmoothL1Loss", fork="synopsys")
class SynopsysSmoothL1Loss(_WithSigma):
    """SmoothL1Loss whose ``abssum``, true by default, sums absolute values and leaves w_in out of the gradient."""

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        self.absolute: bool = param.smooth_l1_loss_param.abssum
        self.inside_in_gradient = not self.absolute

    @classmethod
    def fits(cls, param: Any) -> bool:
        return param.smooth_l1_loss_param.HasField("abssum")

    def finish(self, loss: Tensor, n: int) -> Tensor:
        total = loss.sum()
        return (WithSlope.apply(total, loss.detach().abs().sum(), None) if self.absolute else total) / n


@register("SmoothL1Loss", fork="happynear")
class TurnPointSmoothL1Loss(_SmoothL1):
    """SmoothL1Loss that is quadratic up to ``turn_point`` t: ``0.5 d^2`` where ``|d| < t``, else ``|d| - t + 0.5 t^2``.

    Weights are Fast R-CNN's: a third bottom, which is left out of the gradient.
    """

    options = ("smoothl1_param",)
    bottoms = (2, 3)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        self.turn: float = param.smoothl1_param.turn_point

    @classmethod
    def fits(cls, param: Any) -> bool:
        return param.HasField("smoothl1_param") and not param.HasField("smooth_l1_loss_param")

    def smooth(self, difference: Tensor) -> Tensor:
        size = difference.abs()
        return torch.where(size < self.turn, 0.5 * difference.square(), size - self.turn + 0.5 * self.turn**2)


def pre_fixed(param: Any) -> bool:
    """Whether a layer's ``loss_param`` has a divisor of the user's."""
    options = param.loss_param
    return options.HasField("pre_fixed_normalizer") or options.normalization == caffe_pb2.LossParameter.PRE_FIXED


def by_place(loss: Tensor) -> Tensor:
    """What each place loses, (N, 1, H, W), of what each number (N, C, …) does, without a gradient."""
    return loss.detach().reshape(four_axes(loss.shape)).sum(1, keepdim=True)


def four_axes(shape: Sequence[int]) -> Shape:
    """A shape with axes of length 1 at its end, as Caffe's older layers see it."""
    return (*shape, *(1,) * (4 - len(shape)))
