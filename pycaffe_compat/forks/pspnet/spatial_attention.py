"""PSANet's attention between places. Source: hszhao/PSANet, ``pointwise_spatial_attention_layer.cpp``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...layers.base import Layer, Shape
from ...layers.registry import register
from ...tables import dims


@register("PointwiseSpatialAttention", fork="pspnet")
class PointwiseSpatialAttention(Layer):
    """Each place is a sum over the first bottom (N, C, H, W), weighted by the second (Zhao et al., 2018).

    The second bottom (N, mask height · mask width, H, W) gives each place a mask that is centred on it. With COLLECT it holds
    the weights of what the place gets, with DISTRIBUTE of what it gives; beyond the mask they are 0. ``is_softmax``
    makes the weights of what each place gets add up to 1. The sum is divided by ``normalization_factor``, by default the
    mask's size. Without a size in the options the mask reaches the whole plane, ``2 · H - 1`` by ``2 · W - 1``.
    """

    options = ("pointwise_spatial_attention_param",)
    bottoms: ClassVar[tuple[int, int | None]] = (2, 2)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.pointwise_spatial_attention_param
        features, weights = bottom_shapes
        if len(features) != 4 or len(weights) != 4:
            raise self.error(f"needs bottoms (N, C, H, W), not of shapes {dims(features)} and {dims(weights)}")
        given = [options.HasField(f"attention_mask_{side}") for side in ("height", "width")]
        if given[0] != given[1]:
            raise self.error("give both attention_mask_height and attention_mask_width, or neither")
        whole = (2 * features[2] - 1, 2 * features[3] - 1)
        self.mask = (options.attention_mask_height, options.attention_mask_width) if given[0] else whole
        if given[0] and not all(side > 1 and side % 2 for side in self.mask):
            raise self.error(f"attention_mask: {dims(self.mask)} must be odd and above 1")
        self.collects = options.psa_type == options.COLLECT
        self.softmax = options.is_softmax
        area = self.mask[0] * self.mask[1]
        self.factor = options.normalization_factor if options.HasField("normalization_factor") else float(area)
        if not self.factor:
            raise self.error("normalization_factor: 0 divides everything by zero")
        self.check_bottoms(features, weights)

    def check_bottoms(self, features: Shape, weights: Shape) -> None:
        """Check that the weights are those of masks for the features' places.

        Raises:
            LayerError: they are not.
        """
        want = (features[0], self.mask[0] * self.mask[1], *features[2:])
        if tuple(weights) != want:
            raise self.error(
                f"its second bottom, masks of {dims(self.mask)} for each place, must be {dims(want)}, not {dims(weights)}"
            )

    def forward(self, features: Tensor, weights: Tensor) -> Tensor:
        """Return (N, C, H, W)."""
        self.check_bottoms(features.shape, weights.shape)
        height, width = features.shape[2:]
        of_rows, rows = self._offsets(height, self.mask[0], features.device)
        of_columns, columns = self._offsets(width, self.mask[1], features.device)
        # (N, H, W, H, W): what the mask of a place says of each place
        down = torch.arange(height, device=features.device)[:, None, None, None]
        right = torch.arange(width, device=features.device)[None, :, None, None]
        masks = weights.unflatten(1, self.mask)[:, of_rows[:, None, :, None], of_columns[None, :, None, :], down, right]
        reach = rows[:, None, :, None] & columns[None, :, None, :]
        shares = torch.where(reach, masks, masks.new_zeros(())).flatten(3).flatten(1, 2)
        if self.collects:
            shares = shares.transpose(1, 2)  # from rows of what gets to rows of what gives
        if self.softmax:
            shares = shares.softmax(1)
        return (features.flatten(2) @ shares / self.factor).unflatten(2, (height, width))

    @staticmethod
    def _offsets(places: int, mask: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Where in the mask of each place each place lies, and whether it lies there at all."""
        place = torch.arange(places, device=device)
        offset = place[None, :] - place[:, None] + (mask - 1) // 2
        return offset.clamp(0, mask - 1), (offset >= 0) & (offset < mask)
