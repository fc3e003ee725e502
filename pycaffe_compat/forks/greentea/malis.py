"""Affinity, ConnectedComponent and MalisLoss, as Caffe on OpenCL has them.

Sources: naibaf7/caffe, affinity_layer.cpp, connected_component_layer.cpp and malis_loss_layer.cpp.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar

import cv2
import numpy as np
import torch
from torch import Tensor

from ...layers.base import Layer, Shape, untraced
from ...layers.loss import LossLayer
from ...layers.output import host_values
from ...layers.registry import register
from ...layers.slope import WithSlope
from ...tables import dims


@register("Affinity", fork="greentea")
class Affinity(Layer):
    """The minimum of each place and the one below it, and of each place and the one to its right: (1, 2, H, W).

    Of each bottom (N, C, H, W) it reads the first item, in the channel that ``offset`` names, once for each bottom. The last row
    and column are 0. As in the fork, the gradient of both goes to the place itself, whichever was less, and its negative to
    the first channel, or to the second where ``offset`` is even.
    """

    bottoms: ClassVar[tuple[int, int | None]] = (1, None)
    tops: ClassVar[tuple[int, int | None]] = (1, None)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        offsets = list(param.affinity_param.offset)[: len(bottom_shapes)]
        self.offsets = offsets + [0] * (len(bottom_shapes) - len(offsets))
        if len(param.top) != len(bottom_shapes):
            raise self.error(f"needs as many tops as bottoms, {len(bottom_shapes)}, not {len(param.top)}")
        for shape, offset in zip(bottom_shapes, self.offsets, strict=True):
            if len(shape) != 4 or not shape[0] or not 0 <= offset < shape[1]:
                raise self.error(
                    f"affinity_param.offset: {offset} is not a channel of a bottom (N, C, H, W) of {dims(shape)}"
                )

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Return the affinities of each bottom."""
        return tuple(_edges(x, offset) for x, offset in zip(bottoms, self.offsets, strict=True))


def _edges(x: Tensor, offset: int) -> Tensor:
    plane = x.detach()[0, offset]
    inner = torch.stack([torch.minimum(plane[:-1], plane[1:])[:, :-1], torch.minimum(plane[:, :-1], plane[:, 1:])[:-1]])
    value = torch.nn.functional.pad(inner, (0, 1, 0, 1))[None]
    if not x.requires_grad:
        return value
    other = (offset + 1) % 2
    source = x[0, offset] if other == offset or other >= x.shape[1] else x[0, offset] - x[0, other]
    inside = torch.zeros_like(plane)
    inside[:-1, :-1] = 1
    return WithSlope.apply(source.expand(2, -1, -1)[None], value, inside.expand(1, 2, -1, -1))


@register("ConnectedComponent", fork="greentea")
class ConnectedComponent(Layer):
    """Numbers the connected components of each label other than 0 in planes (N, C, H, W), connected along rows and columns.

    They begin above the largest label and are assigned in row-major order. There is no gradient.
    """

    options = ()
    differentiable = (False,)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        self.check_bottom(bottom_shapes[0])

    def check_bottom(self, shape: Shape) -> None:
        """Raise unless the bottom has four axes."""
        if len(shape) != 4:
            raise self.error(f"needs a bottom (N, C, H, W), not of shape {dims(shape)}")

    @untraced
    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor of the same shape."""
        self.check_bottom(x.shape)
        if x.is_meta or not x.numel():
            return torch.empty_like(x)
        planes = host_values(x).astype(np.int64).reshape(-1, *x.shape[2:])
        found = np.stack([_components(plane) for plane in planes])
        return torch.from_numpy(found).to(x).view(x.shape)


def _components(plane: np.ndarray) -> np.ndarray:
    numbers = np.zeros(plane.shape, np.int64)
    for label in np.unique(plane[plane != 0]):
        parts = cv2.connectedComponents((plane == label).astype(np.uint8), connectivity=4, ltype=cv2.CV_32S)[1]
        numbers = np.where(parts > 0, parts + numbers.max(), numbers)
    _, first, inverse = np.unique(numbers[numbers > 0], return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    numbers[numbers > 0] = rank[inverse] + max(int(plane.max(initial=0)), 0) + 1
    return numbers


@register("MalisLoss", fork="greentea")
class MalisLoss(LossLayer):
    """Penalises affinities (N, edges, …) that join what a segmentation separates, or the reverse (Turaga et al., 2009).

    Bottoms: affinities of up to three axes, the true ones, and the segmentation (N, 1, …), 0 being none; its second channel, if
    there is one, is for what is joined. Edges go to the next place along each of the last axes, or where a fourth bottom says,
    three steps (z, y, x) each. Of each pair of places the least affinity on the best path between them counts, squared: of pairs
    that are apart of the greater, of others of the lesser of both bottoms. The gradient is half of that of the sum over items,
    whichever of the two it was, as in the fork.
    """

    bottoms = (3, 4)
    tops: ClassVar[tuple[int, int | None]] = (1, 2)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        shape, true, parts, *edges = bottom_shapes
        if (
            not 3 <= len(shape) <= 5
            or true != shape
            or parts[:1] + parts[2:] != shape[:1] + shape[2:]
            or parts[1] not in (1, 2)
        ):
            raise self.error(
                "needs affinities (N, edges, …), true ones of that shape, and a segmentation (N, 1, …), "
                f"not {', '.join(map(dims, bottom_shapes))}"
            )
        if (edges and math.prod(edges[0]) != 3 * shape[1]) or (not edges and shape[1] > 3):
            raise self.error(f"needs 3 steps for each of {shape[1]} edges, a fourth bottom")

    def forward(self, given: Tensor, true: Tensor, parts: Tensor, edges: Tensor | None = None) -> Any:
        """Return the loss as a tensor without axes, and with a second top the affinities."""
        if given.is_meta:
            loss = given.sum() * 0
        else:
            value, slope = self._judged(given, true, parts, edges)
            loss = WithSlope.apply(given, value, slope)
        return (loss, given.clone()) if self.n_tops > 1 else loss

    @untraced
    def _judged(self, given: Tensor, true: Tensor, parts: Tensor, edges: Tensor | None) -> tuple[Tensor, Tensor]:
        affinity, wanted, labels = (host_values(each) for each in (given, true, parts))
        n, number = affinity.shape[:2]
        space = (1, 1, 1, *affinity.shape[2:])[-3:]
        steps = (
            np.eye(3, dtype=np.int64)[3 - number :]
            if edges is None
            else host_values(edges).reshape(-1, 3).astype(np.int64)
        )
        slope, loss = np.zeros((n, number, *space)), 0.0
        for item in range(n):
            both = (affinity[item].reshape(number, *space), wanted[item].reshape(number, *space))
            for joined, weights in ((False, np.maximum(*both)), (True, np.minimum(*both))):
                channel = labels[item, -1 if joined else 0].reshape(-1).astype(np.int64)
                found, gradient = _malis(weights, steps, channel, joined)
                loss += 0.5 * found
                slope[item] -= gradient / 2
        return given.new_tensor(loss / n), torch.from_numpy(slope).to(given).view(given.shape)


def _malis(weights: np.ndarray, steps: np.ndarray, labels: np.ndarray, joined: bool) -> tuple[float, np.ndarray]:
    """The loss of one kind of pairs, and for each edge what it adds to the gradient: weights are (edges, z, y, x)."""
    space, places = weights.shape[1:], labels.size
    at = np.stack(np.unravel_index(np.arange(places), space))
    moved = at[None] + steps[:, :, None]  # (edges, 3, places)
    inside = ((moved >= 0) & (moved < np.array(space)[:, None])).all(1)
    edge, start = inside.nonzero()
    end = np.ravel_multi_index(tuple(moved[edge, axis, start] for axis in range(3)), space)
    strength = weights.reshape(len(steps), -1)[edge, start]
    order = np.argsort(-strength, kind="stable")
    counts = np.array([*Counter(labels[labels != 0].tolist()).values()], dtype=np.int64)
    pairs = int((counts * (counts - 1) // 2).sum())
    if not joined:
        total = int(counts.sum())
        pairs = total * (total - 1) // 2 - pairs
    parent = list(range(places))
    members = [Counter({label: 1}) if label else Counter() for label in labels.tolist()]
    gradient, loss = np.zeros(weights.shape).reshape(len(steps), -1), 0.0

    def root(place: int) -> int:
        while parent[place] != place:
            parent[place] = parent[parent[place]]
            place = parent[place]
        return place

    for k in order.tolist():
        one, other = root(int(start[k])), root(int(end[k]))
        if one == other:
            continue
        mine, theirs = members[one], members[other]
        same = sum(number * theirs[label] for label, number in mine.items())
        met = same if joined else sum(mine.values()) * sum(theirs.values()) - same
        fault = (1.0 if joined else 0.0) - float(strength[k])
        loss += fault * fault * met
        gradient[edge[k], start[k]] = fault * met / pairs if pairs else 0
        if len(mine) < len(theirs):
            one, other = other, one
        parent[other] = one
        members[one].update(members[other])
        members[other] = Counter()
    return (loss / pairs if pairs else 0.0), gradient.reshape(weights.shape)
