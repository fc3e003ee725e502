"""Boxes around the objects of a picture, and what becomes of them when the picture is cut, widened or resized.

Coordinates are fractions of width and height, in float32, and the arithmetic is that of SSD's Caffe (weiliu89/caffe, branch
ssd: ``bbox_util.cpp``, ``im_transforms.cpp``, ``data_transformer.cpp``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..proto import caffe_pb2

_ONE, _ZERO, _TWO = np.float32(1), np.float32(0), np.float32(2)


@dataclass(frozen=True)
class Boxes:
    """The annotations of a picture, one row each, in the order of the file.

    Attributes:
        labels: N, the group of each box: its class.
        instances: N, the number of the object within its class.
        corners: N×4, ``float32``: left, top, right and bottom.
        difficult: N, ``bool``.
        sizes: N, ``float32``: the areas that SSD's Caffe computes when it cuts a box and keeps from then on; NaN where it has
            none yet.
    """

    labels: np.ndarray
    instances: np.ndarray
    corners: np.ndarray
    difficult: np.ndarray
    sizes: np.ndarray

    @classmethod
    def of(cls, groups: Any) -> Boxes:
        """Return the boxes of the ``annotation_group`` of an ``AnnotatedDatum``."""
        each = [(group.group_label, item.instance_id, item.bbox) for group in groups for item in group.annotation]
        return cls(
            np.array([label for label, _, _ in each], np.float32),
            np.array([instance for _, instance, _ in each], np.float32),
            np.array([(b.xmin, b.ymin, b.xmax, b.ymax) for _, _, b in each], np.float32).reshape(-1, 4),
            np.array([b.difficult for _, _, b in each], bool),
            np.array([b.size if b.HasField("size") else np.nan for _, _, b in each], np.float32),
        )

    def __len__(self) -> int:
        return len(self.labels)

    def where(self, kept: np.ndarray) -> Boxes:
        """Return the boxes that ``kept``, N times true or false, selects."""
        return Boxes(
            self.labels[kept], self.instances[kept], self.corners[kept], self.difficult[kept], self.sizes[kept]
        )

    def within(
        self, window: np.ndarray, emit: Emit | None, mirrored: bool = False, size: tuple[int, int] | None = None
    ) -> Boxes:
        """Return the boxes in the coordinates of a window, clipped to it; what has no area left is dropped.

        Args:
            window: left, top, right, bottom; parts of it may lie outside of the picture.
            emit: which boxes stay besides; None for all.
            mirrored: the window is flipped.
            size: height and width of the picture, for ``emit``.
        """
        boxes = self if emit is None else self.where(emit.keeps(self, window, size))
        x1, y1, x2, y2 = boxes.corners.T
        left, top, right, bottom = window
        met = ~((x1 >= right) | (x2 <= left) | (y1 >= bottom) | (y2 <= top))
        origin, extent = window[[0, 1, 0, 1]], np.array([right - left, bottom - top] * 2, np.float32)
        corners = clip((boxes.corners - origin) / extent)
        sizes = areas(corners)
        boxes = replace(boxes, corners=corners, sizes=sizes).where(met & (sizes > 0))
        if not mirrored:
            return boxes
        x1, y1, x2, y2 = boxes.corners.T
        return replace(boxes, corners=np.stack([_ONE - x2, y1, _ONE - x1, y2], 1))

    def lost(self) -> np.ndarray:
        """Whether each box has no area within the picture, so that nothing is left of it once it is clipped; (N,)."""
        return ~(areas(clip(self.corners)) > 0)

    def areas(self) -> np.ndarray:
        """The area of each box: the one it was given, else that of its corners; 0 where right is left of left."""
        x1, y1, x2, y2 = self.corners.T
        own = np.where(np.isnan(self.sizes), areas(self.corners), self.sizes)
        return np.where((x2 < x1) | (y2 < y1), _ZERO, own)


class Emit:
    """``emit_constraint``: which boxes a window keeps.

    Those whose centre lies in it (CENTER), or of which more than a share lies in it (MIN_OVERLAP).

    Args:
        least: with CENTER, a box stays only if its sides are above so many pixels of the picture; 0 for any.
    """

    def __init__(self, param: Any, least: float = 0) -> None:
        self._least = np.float32(least)
        self._center = param.emit_type == caffe_pb2.EmitConstraint.CENTER
        self._overlap = np.float32(param.emit_overlap)

    def keeps(self, boxes: Boxes, window: np.ndarray, size: tuple[int, int] | None = None) -> np.ndarray:
        """Whether each box stays: N times true or false; ``size`` is the picture's height and width."""
        if not self._center:
            return coverage(boxes.corners, boxes.areas(), window) > self._overlap
        x1, y1, x2, y2 = boxes.corners.T
        x, y = (x1 + x2) / _TWO, (y1 + y2) / _TWO
        left, top, right, bottom = window
        inside = (x >= left) & (x <= right) & (y >= top) & (y <= bottom)
        if not self._least or size is None:
            return inside
        height, width = map(np.float32, size)
        return (
            inside & (x2 * width - x1 * width + _ONE > self._least) & (y2 * height - y1 * height + _ONE > self._least)
        )


def clip(corners: np.ndarray) -> np.ndarray:
    """Return corners (…×4) moved into the picture."""
    return np.clip(corners, _ZERO, _ONE)


def areas(corners: np.ndarray) -> np.ndarray:
    """The area of each box, 0 where it is inside out."""
    width, height = corners[..., 2] - corners[..., 0], corners[..., 3] - corners[..., 1]
    return np.where((width < 0) | (height < 0), _ZERO, width * height)


def intersections(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The area of the part that boxes share; ``a`` and ``b`` (…×4) are broadcast."""
    low, high = np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])
    width, height = high[..., 0] - low[..., 0], high[..., 1] - low[..., 1]
    return np.where((width > 0) & (height > 0), width * height, _ZERO)


def jaccard(a: np.ndarray, b: np.ndarray, areas_a: np.ndarray, areas_b: np.ndarray) -> np.ndarray:
    """The shared area of boxes over the area of both together; 0 for boxes apart."""
    shared = intersections(a, b)
    return np.divide(shared, areas_a + areas_b - shared, out=np.zeros_like(shared), where=shared > 0)


def coverage(a: np.ndarray, areas_a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The share of each box of ``a`` that lies in ``b``."""
    shared = intersections(a, b)
    return np.divide(shared, np.broadcast_to(areas_a, shared.shape), out=np.zeros_like(shared), where=shared > 0)
