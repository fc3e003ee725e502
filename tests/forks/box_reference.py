"""Boxes one at a time, in numpy: what the tests compare with. Source, but for the last: bbox_util.cpp of weiliu89/caffe."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

F = np.float32


def random_boxes(*shape: int, seed: int = 0, size: float = 0.4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(*shape, 2, generator=generator)
    return torch.cat((corner, corner + 0.05 + size * torch.rand(*shape, 2, generator=generator)), -1)


def size(box: np.ndarray, normalized: bool = True) -> float:
    if box[2] < box[0] or box[3] < box[1]:
        return F(0)
    more = F(0 if normalized else 1)
    return (box[2] - box[0] + more) * (box[3] - box[1] + more)


def overlap(a: np.ndarray, b: np.ndarray, normalized: bool = True) -> float:
    """JaccardOverlap of bbox_util.cpp, with std::max and std::min as C++ has them for a NaN."""

    def largest(x: float, y: float) -> float:
        return y if x < y else x

    def least(x: float, y: float) -> float:
        return y if y < x else x

    if b[0] > a[2] or b[2] < a[0] or b[1] > a[3] or b[3] < a[1]:
        width = height = F(0)
    else:
        width, height = least(a[2], b[2]) - largest(a[0], b[0]), least(a[3], b[3]) - largest(a[1], b[1])
    if not normalized:
        width, height = width + F(1), height + F(1)
    if not (width > 0 and height > 0):
        return F(0)
    common = width * height
    return common / (size(a, normalized) + size(b, normalized) - common)


def kept(boxes: np.ndarray, candidates: np.ndarray, threshold: float, eta: float) -> np.ndarray:
    """ApplyNMSFast of bbox_util.cpp, after its sorting."""
    limit, stay = F(threshold), []
    for i in np.flatnonzero(candidates):
        if all(overlap(boxes[i], boxes[k]) <= limit for k in stay):
            stay.append(i)
            if eta < 1 and limit > 0.5:
                limit = limit * F(eta)
    return np.isin(np.arange(len(boxes)), stay)


def common_part(a: Sequence[float], b: Sequence[float], kind: str, inclusive: bool) -> float:
    """What part of the smaller box (IOMU), of the first (IOFU) or of both (IOU) they have in common, as in MS-CNN's Caffe.

    With ``inclusive`` as in Cascade R-CNN's, whose corners are pixels of the box.
    """
    edge = 1 if inclusive else 0
    if min(a[2] - a[0], a[3] - a[1], b[2] - b[0], b[3] - b[1]) < (0 if inclusive else 1e-12):
        return 0
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if height <= 0 or width < 0 or (width == 0 and not inclusive):
        return 0
    common = (width + edge) * (height + edge)
    first, second = ((box[2] - box[0] + edge) * (box[3] - box[1] + edge) for box in (a, b))
    return common / {"IOMU": min(first, second), "IOFU": first, "IOU": first + second - common}[kind]
