"""Boxes for tests, and single boxes by the formulas of SSD's Caffe (bbox_util.cpp)."""

import numpy as np

from pycaffe_compat.data.boxes import Boxes

F = np.float32


def some_boxes(seed: int, count: int = 200, spread: float = 1.4) -> Boxes:
    """Boxes of which some reach out of the picture, are inside out, or bring an area of their own."""
    random = np.random.default_rng(seed)
    corners = np.sort(random.uniform(-0.2, spread - 0.2, (count, 2, 2)), 1).reshape(count, 4).astype(F)
    corners[::17] = corners[::17, [2, 3, 0, 1]]
    sizes = np.where(random.random(count) < 0.3, random.random(count), np.nan).astype(F)
    return Boxes(random.integers(1, 9, count), np.arange(count), corners, random.random(count) < 0.5, sizes)


def area(box, size=np.nan):
    x1, y1, x2, y2 = box
    if x2 < x1 or y2 < y1:
        return F(0)
    return (x2 - x1) * (y2 - y1) if np.isnan(size) else size


def shared(a, b):
    if b[0] > a[2] or b[2] < a[0] or b[1] > a[3] or b[3] < a[1]:
        return [F(0)] * 4
    return [max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])]
