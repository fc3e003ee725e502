"""DecodeBBox, as MS-CNN's and Cascade R-CNN's Caffe have it (zhaoweicai/mscnn, decode_bbox_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...layers.base import Layer, Shape, count
from ...layers.registry import register
from ...tables import dims
from .boxes import decode_from_regions, read_normalization


@register("DecodeBBox", fork=("mscnn", "cascade_rcnn"))
class DecodeBBox(Layer):
    """The regions for a cascade's next stage, decoded from the previous stage's regions.

    The bottoms are codes (R, 8), of which the second four count, regions (R, 5) and in training the matched boxes, the last
    number of each of which is its overlap. In training, regions that are inside out and those with an overlap of
    ``gt_iou_thr`` or more, which are true boxes, are left out. No gradient flows.
    """

    options = ("decode_bbox_param", "bbox_reg_param")
    bottoms = (2, 3)
    differentiable = (False,)
    open_axes = (0,)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        self.mean, self.std = read_normalization(self, param.bbox_reg_param)
        self.most = param.decode_bbox_param.gt_iou_thr
        if len(bottom_shapes) == 3 and not self.training:
            raise self.error("its third bottom, matched boxes, is for training")
        self.check_bottoms(bottom_shapes)

    def check_bottoms(self, shapes: Sequence[Shape]) -> None:
        """Raise unless an item of each bottom has as many numbers as it must."""
        each = [count(shape, 1) if shape else 0 for shape in shapes]
        if each[:2] != [8, 5] or 0 in each:
            raise self.error(
                f"needs codes R×8, regions R×5 and in training matched boxes R×n, not {', '.join(map(dims, shapes))}"
            )

    def forward(self, codes: Tensor, regions: Tensor, matched: Tensor | None = None) -> Tensor:
        """Return (R, 5, 1, 1).

        Raises:
            LayerError: the bottoms are not of the same number of regions, or none is left.
        """
        self.check_bottoms([x.shape for x in (codes, regions, matched) if x is not None])
        if not codes.shape[0] == regions.shape[0] == (codes if matched is None else matched).shape[0]:
            raise self.error(f"has {len(codes)} codes for {len(regions)} regions")
        if codes.is_meta:
            return codes.new_empty((len(regions), 5, 1, 1))
        rows = regions.detach().reshape(-1, 5)
        boxes = decode_from_regions(codes.detach().reshape(-1, 2, 4), rows[:, 1:], self.mean, self.std)[:, 1]
        made = torch.cat((rows[:, :1], boxes), 1)
        if self.training:
            keep = (boxes[:, 2:] >= boxes[:, :2]).all(1)
            if matched is not None:
                keep &= matched.detach().reshape(len(matched), count(matched.shape, 1))[:, -1] < self.most
            made = made[keep]
            if not len(made):
                raise self.error("leaves out all regions: each is inside out, or a true box")
        return made.reshape(-1, 5, 1, 1)
