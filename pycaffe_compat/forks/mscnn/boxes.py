"""Boxes of MS-CNN and Cascade R-CNN: what a net's numbers mean, and how far boxes overlap.

Sources: zhaoweicai/mscnn, math_functions.cpp, and zhaoweicai/cascade-rcnn, bbox_util.cpp.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ...layers.base import Layer
from ...layers.slope import WithSlope

NMS_TYPES = ("IOU", "IOMU", "IOFU")


def read_normalization(layer: Layer, options: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The means and deviations of a ``bbox_reg_param``, four each; 0 and 1 where it lacks either.

    Raises:
        LayerError: there are not four.
    """
    mean, std = tuple(options.bbox_mean), tuple(options.bbox_std)
    if not mean or not std:
        return (0.0,) * 4, (1.0,) * 4
    for name, values in (("bbox_mean", mean), ("bbox_std", std)):
        if len(values) != 4:
            raise layer.error(f"bbox_reg_param.{name} is given {len(values)} times; give it for x, y, width and height")
    if min(std) <= 0:
        raise layer.error(f"bbox_reg_param.bbox_std: {min(std):g} must be above 0")
    return mean, std


def decode_from_regions(codes: Tensor, regions: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """The boxes (R, K, 4) of corners that ``codes`` (R, K, 4) make of ``regions`` (R, 4): shifts, and logarithms of sizes."""
    codes = codes * codes.new_tensor(std) + codes.new_tensor(mean)
    size = (regions[:, 2:] - regions[:, :2] + 1)[:, None]
    centre = (0.5 * (regions[:, 2:] + regions[:, :2]))[:, None]
    sides = size * codes[..., 2:].exp()
    low = codes[..., :2] * size + centre - (sides - 1) / 2
    return torch.cat((low, low + sides - 1), -1)


class Fields:
    """How numbers of a map (N, 4, H, W) become boxes around its places: shifts and sizes by fields of ``width`` x ``height``.

    ``xyr`` and ``whr`` bound them: a centre moves by at most ``1 / xyr`` of the field, a side is its ``1 / whr`` to ``whr``.
    """

    def __init__(self, layer: Layer, options: Any, mean: Sequence[float], std: Sequence[float]) -> None:
        for field in ("field_xyr", "field_whr"):
            if getattr(options, field) <= 0:
                raise layer.error(f"{field}: {getattr(options, field):g} must be above 0")
        self.mean, self.std = mean, std
        self.far, self.large = 1 / options.field_xyr, math.log(options.field_whr)

    def decode(self, codes: Tensor, width: float, height: float, stride: float) -> tuple[Tensor, Tensor]:
        """The first corners and the sides, (N, H W, 2) each, of ``codes`` (N, 4, H, W)."""
        rows, columns = codes.shape[2:]
        codes = codes.flatten(2).mT * codes.new_tensor(self.std) + codes.new_tensor(self.mean)
        field = codes.new_tensor((width, height))
        y, x = torch.meshgrid(*(torch.arange(n, device=codes.device) for n in (rows, columns)), indexing="ij")
        places = torch.stack((x, y), -1).reshape(-1, 2).to(codes.dtype)
        centre = codes[..., :2].clamp(min=-self.far).clamp(max=self.far) * field + (places + 0.5) * stride
        sides = field * codes[..., 2:].clamp(min=-self.large).clamp(max=self.large).exp()
        return centre - sides / 2, sides

    def encode(self, boxes: Tensor, columns: int, sizes: Tensor, stride: float) -> Tensor:
        """The codes (M, 4, P) of ``boxes`` (M, 4, P), centre and sides, around the places of a map, row by row.

        Args:
            columns: the width of the map.
            sizes: width and height of the field of each map, (M, 2).
        """
        at = torch.arange(boxes.shape[2], device=boxes.device)
        places = torch.stack((at % columns, at // columns)).to(boxes.dtype)
        sizes = sizes[..., None]
        shifts = (boxes[:, :2] - (places + 0.5) * stride) / sizes
        codes = torch.cat((shifts, (boxes[:, 2:].clamp(min=2) / sizes).log()), 1)
        return (codes - codes.new_tensor(self.mean)[:, None]) / codes.new_tensor(self.std)[:, None]

    def limit(self, codes: Tensor) -> Tensor:
        """Codes (M, 4, P) within the bounds, by the middle of the means and deviations, with the gradient as if they were not."""
        low, high = [], []
        for at, far in ((0, self.far), (2, self.large)):
            mean, std = sum(self.mean[at : at + 2]) / 2, math.sqrt(math.prod(self.std[at : at + 2]))
            low += [(-far - mean) / std] * 2
            high += [(far - mean) / std] * 2
        bounded = torch.minimum(codes.detach().mT.maximum(codes.new_tensor(low)), codes.new_tensor(high)).mT
        return WithSlope.apply(codes, bounded, None)


def shares(a: Tensor, b: Tensor, nms_type: str, inclusive: bool) -> Tensor:
    """What part of boxes (n, 4) of corners others (m, 4) cover, (n, m); 0 for boxes that are inside out.

    Args:
        nms_type: of what the common area is a part: ``IOMU`` of the smaller box, ``IOFU`` of the first, else of both.
        inclusive: corners are pixels of the box, as in Cascade R-CNN.
    """
    edge = 1 if inclusive else 0
    (x1, y1, x2, y2), (left, top, right, bottom) = a.T[..., None], b.T
    width = torch.minimum(x2, right) - torch.maximum(x1, left)
    height = torch.minimum(y2, bottom) - torch.maximum(y1, top)
    apart = (height <= 0) | ((width < 0) if inclusive else (width <= 0))  # Cascade R-CNN's is no mistake of ours
    common = ((width + edge) * (height + edge)).masked_fill(apart, 0)
    first, second = (x2 - x1 + edge) * (y2 - y1 + edge), (right - left + edge) * (bottom - top + edge)
    if nms_type == "IOMU":
        of = torch.minimum(first, second)
    else:
        of = first.expand_as(common) if nms_type == "IOFU" else first + second - common
    if inclusive:
        invalid = (x2 < x1) | (y2 < y1) | (right < left) | (bottom < top)
    else:
        invalid = (x2 <= x1) | (y2 <= y1) | (right <= left) | (bottom <= top)
    return (common / of).masked_fill(invalid, 0)


def near(a: Tensor, b: Tensor, nms_type: str, threshold: float, inclusive: bool) -> Tensor:
    """Whether boxes (n, 4) and others (m, 4) share more than ``threshold``, (n, m); see :func:`shares`."""
    return shares(a, b, nms_type, inclusive) > threshold


def read_suppression(layer: Layer, name: str, options: Any, inclusive: bool) -> Callable[[Tensor, Tensor], Tensor]:
    """Which boxes suppress each other by ``nms_type`` and ``iou_thr`` of the options ``name``: :func:`near` with these.

    Raises:
        LayerError: there is no such ``nms_type``.
    """
    if options.nms_type not in NMS_TYPES:
        raise layer.error(f'{name}.nms_type: "{options.nms_type}" is not one of {", ".join(NMS_TYPES)}')
    return partial(near, nms_type=options.nms_type, threshold=options.iou_thr, inclusive=inclusive)


def overlaps(a: Tensor, b: Tensor, inclusive: bool) -> Tensor:
    """The intersection over union of boxes (…, 4) of a first corner, width and height; 0 without a size.

    Args:
        inclusive: boxes that have less than a pixel in common have nothing, as in Cascade R-CNN.
    """
    edge = 1 if inclusive else 0
    low = torch.maximum(a[..., :2], b[..., :2])
    high = torch.minimum(a[..., :2] + a[..., 2:] - edge, b[..., :2] + b[..., 2:] - edge)
    apart = ((low > high) if inclusive else (low >= high)).any(-1)
    common = (high - low + edge).prod(-1).masked_fill(apart, 0)
    part = common / (a[..., 2:].prod(-1) + b[..., 2:].prod(-1) - common)
    return part.masked_fill((a[..., 2:] <= 0).any(-1) | (b[..., 2:] <= 0).any(-1), 0)


def ranked(scores: Tensor) -> Tensor:
    """The order of ``scores``, the best first, of equal ones the last first."""
    return len(scores) - 1 - scores.flip(0).argsort(descending=True, stable=True)
