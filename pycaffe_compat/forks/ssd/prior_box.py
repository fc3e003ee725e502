"""PriorBox, as SSD's Caffe has it (weiliu89/caffe, branch ssd, prior_box_layer.cpp), and what its relatives share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ...layers.base import Layer, Shape
from ...layers.registry import register


class Priors(Layer):
    """The same boxes around every place of the first bottom's planes, in parts of the picture, which is the second bottom.

    The top, (1, 2, height · width · boxes · 4), holds the boxes as xmin, ymin, xmax, ymax, and then their variances. A
    subclass says how large the boxes are.

    Attributes:
        shifts: how far from the middle of a place, in places, each box stands, right and down: once for each.
        moved: how far each box stands from there, in pixels, right and down; empty where none does.
    """

    shifts: tuple[tuple[float, float], ...] = ((0.0, 0.0),)
    options = ("prior_box_param",)
    bottoms = (2, 2)
    differentiable = (False,)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.prior_box_param
        self.moved: list[tuple[float, float]] = []
        self.sizes = self.box_sizes(options)
        self.clip: bool = options.clip
        self.offset: float = options.offset
        self.variance = list(options.variance) or [0.1]
        if len(self.variance) not in (1, 4):
            raise self.error(
                f"prior_box_param.variance is given {len(self.variance)} times; give 1 for all sides, or 4"
            )
        self._check_positive("variance", self.variance)
        self.image = self._pair(options, "img_size", "img_h", "img_w")
        self.step = self._pair(options, "step", "step_h", "step_w")

    def box_sizes(self, options: Any) -> list[tuple[float, float]]:
        """The width and height of each box at a place, in pixels."""
        raise NotImplementedError

    def _check_positive(self, field: str, values: Sequence[float]) -> None:
        for value in values:
            if not 0 < value < math.inf:
                raise self.error(f"prior_box_param.{field}: {value:g} must be above 0")

    def _pair(self, options: Any, both: str, height: str, width: str) -> tuple[float, float] | None:
        """What two fields, or one for ``both``, say of height and width; None if neither is set."""
        parts = [name for name in (height, width) if options.HasField(name)]
        if parts and options.HasField(both):
            raise self.error(f"prior_box_param: give either {both} or {height} and {width}, not {both} and {parts[0]}")
        if not parts and not options.HasField(both):
            return None
        names = (height, width) if parts else (both, both)
        for name in names:
            self._check_positive(name, [getattr(options, name)])
        return getattr(options, names[0]), getattr(options, names[1])

    def forward(self, x: Tensor, picture: Tensor) -> Tensor:
        height, width = _plane(x)
        if x.is_meta:
            return x.new_empty((1, 2, height * width * len(self.sizes) * len(self.shifts) * 4))
        image = self.image or _plane(picture)
        step = self.step or tuple(
            float(np.float32(a) / np.float32(b)) for a, b in zip(image, (height, width), strict=True)
        )
        half = torch.tensor(self.sizes, dtype=torch.float32, device=x.device).double() / 2
        around = []
        for shift in self.shifts:
            # float32 centres, the rest in float64, rounded once, as in the fork
            rows, columns = (
                ((torch.arange(n, dtype=torch.float32, device=x.device) + (self.offset + more)) * s).double()
                for n, s, more in zip((height, width), step, shift[::-1], strict=True)
            )
            centre = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1)[..., None, :]
            if self.moved:
                centre = centre + half.new_tensor(self.moved)
            around.append(torch.cat((centre - half, centre + half), -1))
        boxes = torch.stack(around, -2) / half.new_tensor((*image[::-1], *image[::-1]))
        boxes = boxes.flatten().to(x.dtype)
        variances = boxes.new_tensor(self.variance).expand(len(boxes) // len(self.variance), -1).flatten()
        return torch.stack((boxes.clamp(0, 1) if self.clip else boxes, variances))[None]


def _plane(blob: Tensor) -> tuple[int, int]:
    """Height and width of a blob, 1 for axes that it has not."""
    height, width = (*blob.shape, 1, 1, 1, 1)[2:4]
    return height, width


@register(
    "PriorBox", fork=("ssd", "ssd_focal", "refinedet", "nvidia", "intel", "yolo", "openvino", "synopsys", "xilinx")
)
class PriorBox(Priors):
    """Boxes of several sizes and shapes around every place of a plane, the starting point of SSD's detections.

    At each place each ``min_size`` makes a square, a square of side ``sqrt(min_size * max_size)`` if there are
    ``max_size``, and a box of its area for each ``aspect_ratio``, and with ``flip`` for the inverse. Sizes are cut to whole
    pixels, as in the fork. Bottoms: a blob for its height and width, and the picture.

    Attributes:
        whole_pixels: whether sizes are cut so.
    """

    whole_pixels: ClassVar[bool] = True

    def box_sizes(self, options: Any) -> list[tuple[float, float]]:
        least, most = list(options.min_size), list(options.max_size)
        if not least:
            raise self.error("prior_box_param.min_size is missing; give at least one, in pixels")
        self._check_positive("min_size", least)
        self._check_positive("aspect_ratio", options.aspect_ratio)
        if most and len(most) != len(least):
            raise self.error(
                f"prior_box_param has {len(least)} min_size and {len(most)} max_size; give one for each, or none"
            )
        for small, large in zip(least, most, strict=False):
            if not small < large < math.inf:
                raise self.error(f"prior_box_param.max_size: {large:g} must be larger than its min_size, {small:g}")
        for unread in ("width", "height"):
            if getattr(options, unread):
                raise self.error(f'prior_box_param.{unread} is for the type "PriorBoxClustered"')
        ratios = [math.sqrt(ratio) for ratio in _ratios(options.aspect_ratio, options.flip) if abs(ratio - 1) >= 1e-6]
        boxes = []
        cut = int if self.whole_pixels else float
        for i, small in enumerate(map(cut, least)):
            boxes.append((float(small), float(small)))
            if most:
                boxes.append((math.sqrt(small * cut(most[i])),) * 2)
            boxes += [(small * root, small / root) for root in ratios]
        return boxes


def _ratios(given: Sequence[float], flip: bool) -> list[float]:
    """The aspect ratios after the first, 1: those given without repetition, each with its inverse if ``flip``."""
    ratios = [1.0]
    for ratio in given:
        if all(abs(ratio - other) >= 1e-6 for other in ratios):
            ratios += [ratio, float(np.float32(1 / ratio))] if flip else [ratio]
    return ratios[1:]
