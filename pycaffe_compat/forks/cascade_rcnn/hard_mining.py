"""HardMining of Cascade R-CNN (zhaoweicai/cascade-rcnn, hard_mining_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...layers.base import Layer, Shape, count
from ...layers.registry import register
from ...tables import dims
from ..fast_rcnn.smooth_l1_loss import four_axes
from ..mscnn.boxes import ranked


@register("HardMining", fork="cascade_rcnn")
class HardMining(Layer):
    """Keeps, from each bottom but the first, the items of the regions with the highest losses, in their order.

    The bottoms are losses (R), regions (R, 5) and others of R items each. ``num_roi_per_image`` regions of each of
    ``num_image`` images are taken, and where an image has fewer, others instead. Of equal losses the last counts first. No
    gradient flows.
    """

    bottoms = (2, None)
    tops = (1, None)
    differentiable = (False,)
    open_axes = (0,)
    traceable = False

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.hard_mining_param
        self.each, self.images = options.num_roi_per_image, options.num_image
        if not self.each or not self.images:
            raise self.error(f"num_roi_per_image: {self.each} and num_image: {self.images} must be at least 1")
        if param.top and len(param.top) != len(bottom_shapes) - 1:
            raise self.error(f"has {len(param.top)} tops, but makes one for each of {len(bottom_shapes) - 1} bottoms")
        if any(param.propagate_down):
            raise self.error("passes no gradient: propagate_down must be false, or not given")
        self.check(bottom_shapes)

    def check(self, shapes: Sequence[Shape]) -> None:
        """Check the shapes of the bottoms.

        Raises:
            LayerError: they are not of as many regions.
        """
        number = shapes[0][:1]
        if (count(shapes[0]),) != number or count(shapes[1], 1) != 5 or any(shape[:1] != number for shape in shapes):
            raise self.error(
                f"needs losses R, regions R×5 and other bottoms of R items, not {', '.join(map(dims, shapes))}"
            )

    def forward(self, losses: Tensor, *bottoms: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return as many items of each bottom as there are regions to take, of four axes.

        Raises:
            LayerError: a region is of no image of the batch.
        """
        self.check([tuple(x.shape) for x in (losses, *bottoms)])
        number = min(self.each * self.images, len(losses))
        if losses.is_meta:
            tops = tuple(x.new_empty((number, *four_axes(x.shape)[1:])) for x in bottoms)
        else:
            at = self.hardest(losses.detach().flatten(), bottoms[0].detach().flatten(1)[:, 0].long(), number)
            tops = tuple(x.detach().reshape(four_axes(x.shape))[at] for x in bottoms)
        return tops if len(tops) > 1 else tops[0]

    def hardest(self, losses: Tensor, image: Tensor, number: int) -> Tensor:
        """The numbers of ``number`` regions.

        Raises:
            LayerError: a region is of no image of the batch.
        """
        wrong = (image < 0) | (image >= self.images)
        if bool(wrong.any()):
            raise self.error(f"has a region of image {int(image[wrong][0])}, but num_image: {self.images}")
        order = ranked(losses)
        images, by_image = image[order].sort(stable=True)
        at = torch.arange(len(order), device=order.device)
        first = torch.where(images != images.roll(1), at, 0).cummax(0).values
        rest = torch.empty_like(images, dtype=torch.bool)
        rest[by_image] = at - first >= self.each
        return order[rest.sort(stable=True).indices][:number].sort().values
