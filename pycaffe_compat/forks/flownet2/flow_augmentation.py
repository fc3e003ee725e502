"""Flows, and further coefficients, for images that are transformed at random, as FlowNet2's Caffe has them.

Source: flow_augmentation_layer.cu, generate_augmentation_parameters_layer.cu and black_augmentation_layer.cu of
lmb-freiburg/flownet2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...layers.base import Layer, Shape
from ...layers.passes import CountsPasses
from ...layers.registry import register
from ...proto import caffe_pb2
from ...tables import dims
from .augmentation import check_coefficients, grid
from .coefficients import (
    NAMES,
    PLACES,
    SPATIAL,
    Distribution,
    Draws,
    Schedule,
    inverse,
    logarithms,
    matrices,
    moved,
    values,
)

FORKS = ("flownet2", "liteflownet", "pwcnet")
MODES = ("add", "replace", "regenerate")


@register("FlowAugmentation", fork=FORKS)
class FlowAugmentation(Layer):
    """The flow (N, 2, H, W) between two images, as it is between them transformed and cut to the crop; it has no gradient.

    The second and third bottom hold the coefficients of the two transformations. The flow at a place is that at the nearest
    place of the first image.
    """

    options = ("augmentation_param",)
    inert_options = frozenset(
        field.name
        for field in caffe_pb2.AugmentationParameter.DESCRIPTOR.fields
        if field.name not in ("crop_width", "crop_height")
    )
    bottoms = (3, 3)
    differentiable = (False,)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options, shape = param.augmentation_param, bottom_shapes[0]
        self.crop = (options.crop_height, options.crop_width)
        if min(self.crop) < 1:
            raise self.error("needs augmentation_param.crop_width and crop_height of at least 1")
        if len(shape) != 4 or shape[1] != 2:
            raise self.error(f"needs a flow (N, 2, H, W), not of shape {dims(shape)}")
        for coefficients in bottom_shapes[1:]:
            check_coefficients(self, coefficients, shape[0])

    def forward(self, flow: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """Return the flow (N, 2, H', W') of the transformed images."""
        if flow.is_meta:
            return flow.new_empty((*flow.shape[:2], *self.crop))
        flow, (height, width) = flow.detach(), flow.shape[2:]
        to_first, to_second = (
            matrices(values(each.detach().flatten(1)), self.crop, (height, width)) for each in (first, second)
        )
        x, y = grid(self.crop, first)
        u, v = moved(to_first, x, y)
        at = ((v + 0.5).long() * width + (u + 0.5).long()).flatten(1)
        # as in the fork, a place beside the plane is one of its neighbours in memory
        ahead = torch.arange(len(flow), device=flow.device)[:, None] * (2 * height * width)
        planes = flow.flatten()
        steps = [planes[(ahead + c * height * width + at).clamp(0, len(planes) - 1)].view_as(u) for c in range(2)]
        x2, y2 = moved(inverse(to_second), u + steps[0], v + steps[1])
        return torch.stack([x2 - x, y2 - y], 1).to(flow.dtype)


@register("GenerateAugmentationParameters", fork=FORKS)
class GenerateAugmentationParameters(CountsPasses):
    """Coefficients (N, 42, 1, 1) of transformations that are drawn as DataAugmentation draws them; they have no gradient.

    Three bottoms are coefficients, the images, and what was cut from them. ``mode: "add"`` draws transformations that follow
    those of the first bottom, ``"replace"`` new ones for those that have options, and ``"regenerate"`` new ones without the
    others. One bottom is coefficients, with ``crop_width``, ``crop_height``, ``bottomwidth`` and ``bottomheight``, or images,
    for which they are drawn anew.
    """

    options = ("augmentation_param", "coeff_schedule_param")
    inert_options = frozenset(
        {"write_augmented", "write_mean", "num", "max_multiplier", "recompute_mean", "mean_per_pixel", "mean"}
        | {"chromatic_eigvec"}
    )
    bottoms = (1, 3)
    differentiable = (False,)
    random = True

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options, first = param.augmentation_param, bottom_shapes[0]
        if len(bottom_shapes) == 2:
            raise self.error("has 2 bottoms; it takes 1, or 3: coefficients, images, and what is cut from them")
        of_images = len(bottom_shapes) == 1 and max(first[2:4], default=1) > 1
        self.mode = "regenerate" if of_images else options.mode
        if self.mode not in MODES:
            raise self.error(f'augmentation_param.mode is "{options.mode}"; it must be one of {", ".join(MODES)}')
        if self.mode != "regenerate":
            check_coefficients(self, first, first[0])
        if len(bottom_shapes) == 3:
            if len(bottom_shapes[1]) != 4 or len(bottom_shapes[2]) != 4:
                raise self.error(f"needs images (N, C, H, W), not of shape {dims(bottom_shapes[1])}")
            self.crop: Shape = bottom_shapes[2][2:]
            self.source: Shape = bottom_shapes[1][2:]
        else:
            if not (options.HasField("crop_width") and options.HasField("crop_height")):
                raise self.error("needs augmentation_param.crop_width and crop_height, or 3 bottoms")
            self.crop = (options.crop_height, options.crop_width)
            self.source = first[2:4] if of_images else (options.bottomheight, options.bottomwidth)
            if not of_images and not (options.HasField("bottomwidth") and options.HasField("bottomheight")):
                raise self.error("needs augmentation_param.bottomwidth and bottomheight, or images for a bottom")
        self.draws, self.schedule = Draws(self, options), Schedule(param.coeff_schedule_param)
        self.drawing = param.phase == caffe_pb2.TRAIN or options.augment_during_test
        if self.drawing and self.draws.spatial and (min(self.crop) < 2 or min(self.source) < 1):
            raise self.error(
                f"cannot draw transformations of images of {dims(self.source)} to {dims(self.crop)}: a crop has at least 2 rows "
                "and columns"
            )
        self.count_passes()

    def forward(self, first: Tensor, *images: Tensor) -> Tensor:
        """Return the coefficients."""
        kind = torch.promote_types(first.dtype, torch.float32)
        if first.is_meta:
            return first.new_empty((len(first), len(NAMES), 1, 1))
        self.passes.add_(1)
        if self.mode == "regenerate":
            drawn = first.new_zeros((len(first), len(NAMES)), dtype=kind)
        else:
            drawn = first.detach().to(kind).flatten(1).clone()
        if self.drawing and self.draws:
            discount = self.schedule(self.passes)
            if self.draws.spatial:
                if self.mode == "replace":
                    drawn[:, : len(SPATIAL)] = 0
                drawn = self.draws.moves(drawn, discount, self.source, self.crop)
            for name, value in logarithms(self.draws.changes(len(first), discount)).items():
                at = drawn[:, PLACES[name]]
                drawn[:, PLACES[name]] = at + value if self.mode == "add" else value.to(kind)
        return drawn[:, :, None, None]


@register("BlackAugmentation", fork=("flownet2", "pwcnet"))
class BlackAugmentation(Layer):
    """Images (N, 3, H, W) and flows (N, 2, H, W) with black borders, or without motion; it has no gradient.

    ``black`` draws where all images of a sample become the last one and its flows 0. Else ``border`` draws a share of height
    and width: so much becomes 0 at the sides, above and below, or both.
    """

    options = ("black_augmentation_param",)
    bottoms = (1, None)
    tops = (1, None)
    differentiable = (False,)
    random = True

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.black_augmentation_param
        if self.n_tops != len(bottom_shapes):
            raise self.error(f"has {len(bottom_shapes)} bottoms and {self.n_tops} tops; it takes a top for each bottom")
        for shape in bottom_shapes:
            alike = len(shape) == 4 and (shape[0], *shape[2:]) == (bottom_shapes[0][0], *bottom_shapes[0][2:])
            if not alike or shape[1] not in (2, 3):
                raise self.error(
                    f"takes images and flows, with 3 and 2 channels and all of one size, not {dims(shape)}"
                    f"{'' if alike else f' beside {dims(bottom_shapes[0])}'}"
                )
        self.black = Distribution.of(self, "black_augmentation_param.black", options.black)
        self.border = Distribution.of(self, "black_augmentation_param.border", options.border)

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Return a tensor of the same shape for each bottom."""
        if bottoms[0].is_meta:
            return tuple(torch.empty_like(x) for x in bottoms)
        size = (len(bottoms[0]),)
        one = torch.ones((), device=bottoms[0].device)
        black = (self.black.draw(size, one, 0.0, truth=True) != 0).view(-1, 1, 1, 1)
        border = self.border.draw(size, one, 0.0)
        side = torch.randint(3, size, device=border.device)
        height, width = bottoms[0].shape[2:]
        columns = torch.where(side != 1, (border * width).trunc(), 0).view(-1, 1, 1, 1)
        rows = torch.where(side != 0, (border * height).trunc(), 0).view(-1, 1, 1, 1)
        x, y = torch.arange(width, device=border.device), torch.arange(height, device=border.device)[:, None]
        inside = (x >= columns) & (x < width - columns) & (y >= rows) & (y < height - rows)
        images = [x.detach() for x in bottoms if x.shape[1] == 3]
        tops = []
        for bottom in bottoms:
            bottom = bottom.detach()
            still = images[-1] if bottom.shape[1] == 3 else torch.zeros_like(bottom)
            tops.append(torch.where(black, still, torch.where(inside, bottom, 0)))
        return tuple(tops)
