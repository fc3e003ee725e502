"""Masks of regions, as multi-task network cascades have them.

Sources: daijifeng001/caffe-mnc, mask_pooling_layer.cu and mask_resize_layer.cu.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...layers.base import Layer, Shape
from ...layers.registry import register
from ...layers.slope import TracedFunction
from ...tables import dims


@register("MaskPooling", fork="mnc")
class MaskPooling(Layer):
    """Features (R, C, H, W) times masks (R, 1, H, W). Both get gradients."""

    bottoms = (2, 2)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        self.check(*bottom_shapes)

    def check(self, features: Shape, masks: Shape) -> None:
        """Check the shapes of the bottoms.

        Raises:
            LayerError: they are not of the same regions and size.
        """
        if len(features) != 4 or masks != (features[0], 1, *features[2:]):
            raise self.error(f"needs features R×C×H×W and masks R×1×H×W, not {dims(features)} and {dims(masks)}")

    def forward(self, features: Tensor, masks: Tensor) -> Tensor:
        """Return (R, C, H, W)."""
        self.check(tuple(features.shape), tuple(masks.shape))
        return features * masks


@register("MaskResize", fork="mnc")
class MaskResize(Layer):
    """Resizes planes (R, C, H, W) to ``output_height`` x ``output_width`` by bilinear interpolation, aligned at the first corner.

    The gradient is not the whole one: a place of the bottom gets it from the two places of the top that are next to it on each
    axis, in the fork.
    """

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.mask_resize_param
        self.size = (options.output_height, options.output_width)
        if min(self.size) < 1:
            raise self.error("needs mask_resize_param.output_height and output_width, at least 1")
        if len(bottom_shapes[0]) != 4:
            raise self.error(f"needs a bottom R×C×H×W, not {dims(bottom_shapes[0])}")

    def forward(self, x: Tensor) -> Tensor:
        """Return (R, C, output_height, output_width)."""
        (down, of_down), (across, of_across) = (
            shares(have, want, x) for have, want in zip(x.shape[2:], self.size, strict=True)
        )
        return _Resized.apply(x, down, across, of_down, of_across)


class _Resized(TracedFunction):
    """``down @ x @ across.T``, with the gradient as if the matrices were others."""

    @staticmethod
    def forward(x: Tensor, down: Tensor, across: Tensor, of_down: Tensor, of_across: Tensor) -> Tensor:
        return down @ x @ across.T

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[3:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        of_down, of_across = ctx.saved_tensors
        return of_down.T @ grad @ of_across, None, None, None, None


def shares(have: int, want: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """What each place of an axis gets of each of the bottom's, (want, have); and what it gives back as a gradient."""
    step = torch.tensor(have / want, dtype=like.dtype, device=like.device)
    made = torch.arange(want, device=like.device)
    at = made.to(like.dtype) * step
    places = torch.arange(have, device=like.device)
    share = (1 - (at.clamp(max=have - 1)[:, None] - places).abs()).clamp(min=0)
    share = share * (at <= have - 0.5)[:, None]
    next_to = (places.to(like.dtype) / step).floor()
    kept = (made[:, None] >= next_to) & (made[:, None] <= next_to + 1) & ((at[:, None] - places).abs() < 1)
    return share, share * kept
