"""Normalize, as SSD's Caffe has it (weiliu89/caffe, branch ssd, normalize_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ...layers.base import Layer, Shape
from ...layers.registry import register
from ...proto import caffe_pb2
from ...tables import dims


@register(
    "Normalize",
    fork=(
        "ssd",
        "ssd_focal",
        "textboxes",
        "textboxes_plus",
        "faceboxes",
        "refinedet",
        "nvidia",
        "intel",
        "yolo",
        "openvino",
        "synopsys",
        "xilinx",
    ),
)
class Normalize(Layer):
    """Each image, or each place of it, divided by its L2 norm over channels, times a learned scale.

    ``across_spatial``, the default, takes the norm over all of an image, (C, H, W); otherwise each place has its own, over
    C. The scale is one number, or with ``channel_shared: false`` one for each channel. With those, the gradient of the
    bottom is not the true one, but the fork's, which SSD was trained with: in the part that comes from the norm, the
    gradient of the top is not multiplied by the scale.
    """

    options = ("norm_param",)
    blobs_declared = ("scale",)
    scale: Tensor

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options, shape = param.norm_param, bottom_shapes[0]
        if len(shape) < 2:
            raise self.error(f"needs a bottom (num, channels, …), not of shape {dims(shape)}")
        self.eps: float = options.eps
        if not self.eps >= 0:
            raise self.error(f"norm_param.eps: {self.eps:g} must not be negative")
        self.across_spatial: bool = options.across_spatial
        filler = options.scale_filler
        if not options.HasField("scale_filler"):
            filler = caffe_pb2.FillerParameter(type="constant", value=1)
        self.add_blob("scale", () if options.channel_shared else (shape[1],), filler)

    @classmethod
    def fits(cls, param: Any) -> bool:
        return len(param.top) < 2 and not param.HasField("normalize_param")  # else it is happynear's

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            y, _ = _Normalize.apply(x, self.scale, self.across_spatial, self.eps)  # type: ignore[no-untyped-call]
        else:  # a traced program holds only operators
            y, _ = _Normalize.forward(x, self.scale, self.across_spatial, self.eps)
        return y


class _Normalize(torch.autograd.Function):
    """x / norm * scale, with the fork's gradient; ``scale`` has no axes or (C,)."""

    @staticmethod
    def forward(x: Tensor, scale: Tensor, across_spatial: bool, eps: float) -> tuple[Tensor, Tensor]:
        norm = _sum(x.square(), across_spatial).add_(eps).sqrt_()
        return (x / norm).mul_(_along_channels(scale, x)), norm

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        x, scale, ctx.across_spatial, _ = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(x, scale, output[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, scale, norm = ctx.saved_tensors
        factor = _along_channels(scale, x)
        by_x = by_scale = None
        if ctx.needs_input_grad[0]:
            along = _sum(x * grad, ctx.across_spatial)  # what follows cancels: its order is the fork's
            along = x * (along / norm / norm) if ctx.across_spatial else x * along / norm.square()
            by_x = (grad - along) / norm * factor
        if ctx.needs_input_grad[1]:
            shares = x / norm * factor * grad / factor
            by_scale = shares.sum() if not scale.dim() else shares.transpose(0, 1).flatten(1).sum(1)
        return by_x, by_scale, None, None


def _sum(x: Tensor, across_spatial: bool) -> Tensor:
    return x.sum(tuple(range(1, x.dim())) if across_spatial else 1, keepdim=True)


def _along_channels(scale: Tensor, x: Tensor) -> Tensor:
    return scale.reshape(-1, *(1,) * (x.dim() - 2))
