"""What MS-CNN's and Cascade R-CNN's nets are trained on, at the places of maps.

Sources: zhaoweicai/mscnn, image_gt_data_layer.cpp, and zhaoweicai/cascade-rcnn, detection_data_layer.cpp.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...data.window_file import nearest_integer
from ...layers.base import Layer, Shape
from ...tables import dims
from .boxes import shares
from .scenes import Scene, Size
from .views import Cut, View

COLUMNS = 6  # at each place: label, centre (2), width, height, overlap


class Truth(NamedTuple):
    """What is at the places of maps: labels and overlaps (M, P), and boxes (M, 4, P), centre, width and height."""

    label: Tensor
    box: Tensor
    overlap: Tensor

    @classmethod
    def read(cls, maps: Tensor) -> Truth:
        """Read maps (M, 6, H, W). Labels are truncated to integers."""
        label, box, overlap = maps.detach().flatten(2).split((1, 4, 1), 1)
        return cls(label[:, 0].long(), box, overlap[:, 0])

    def background(self, below: float) -> Tensor:
        """Where there is nothing, (M, P): label 0 with an overlap below ``below``. More is neither object nor background."""
        return (self.label == 0) & (self.overlap < below)


def check_map(layer: Layer, classes: int, x: Shape, truth: Shape) -> None:
    """Check the shapes of a map of scores and boxes and of the truth at its places.

    Raises:
        LayerError: they are not N×(classes + 4)×H×W and N×6×H×W.
    """
    if len(x) != 4 or x[1] != classes + 4 or truth != (x[0], COLUMNS, *x[2:]):
        raise layer.error(
            f"needs a map N×{classes + 4}×H×W for cls_num: {classes}, and a truth N×{COLUMNS}×H×W, not "
            f"{dims(x)} and {dims(truth)}"
        )


class Field(NamedTuple):
    """The size of the boxes that a map is for, and the pixels from place to place."""

    width: int
    height: int
    stride: int

    def places(self, size: Size) -> Size:
        """The height and width of its map, for pictures of a size."""
        return nearest_integer(size[0] / self.stride), nearest_integer(size[1] / self.stride)


def read_fields(layer: Layer, options: Any, strides: Sequence[int], name: str) -> list[Field]:
    """The field of each map.

    Args:
        strides: the values of the option ``name``.

    Raises:
        LayerError: there are not as many of each option, or one is 0.
    """
    given = list(options.field_w), list(options.field_h), list(strides)
    if len(set(map(len, given))) != 1 or any(min(values, default=1) < 1 for values in given):
        raise layer.error(
            f"needs field_w, field_h and {name} for each map, all above 0; they are given "
            f"{', '.join(str(len(values)) for values in given)} times"
        )
    return [Field(*values) for values in zip(*given, strict=True)]


@dataclass(frozen=True)
class TruthMaker:
    """Makes maps (6, h, w) of boxes: a place has the box that the field around it overlaps most, by more than ``threshold``.

    Attributes:
        fields: of each map.
        threshold: the overlap above which a place has an object.
        left_alone: a field of which regions to be left alone cover this much is no background.
        pickup: a box without a place gets the one in its middle, of the map that overlaps it most, by this at least.
        inclusive: corners are pixels of the box, as in Cascade R-CNN; there a place with an object may be left alone, too.
        margin: fields that reach beyond the picture by more than this part of half of them are left alone; None for none.
        within: so are fields of which less than this is in the picture.
    """

    fields: Sequence[Field]
    threshold: float
    left_alone: float
    pickup: float
    inclusive: bool
    margin: float | None = None
    within: float | None = None

    def memory(self, batch: int, size: Size) -> list[np.ndarray]:
        """Maps (N, 6, h, w) for pictures of a size."""
        return [np.empty((batch, COLUMNS, *field.places(size)), np.float32) for field in self.fields]

    def fill(self, maps: Sequence[np.ndarray], view: View, scene: Scene, ignored: np.ndarray, cut: Cut) -> None:
        """Fill the maps of one picture."""
        boxes = torch.from_numpy(view.boxes)
        low, high = view.boxes[:, :2], view.boxes[:, 2:]
        edge = 1 if self.inclusive else 0
        described = np.column_stack(((low + high) / np.float32(2), high - low + edge))  # (n, 4)
        found = np.zeros(len(boxes), bool)
        best, best_map = np.zeros(len(boxes), np.float32), np.zeros(len(boxes), int)
        for k, (field, top) in enumerate(zip(self.fields, maps, strict=True)):
            top[:] = 0
            around = self.around(field, top.shape[1:])
            free = self.free(field, around, cut, top.shape[1:])
            left_alone = (
                shares(around, torch.from_numpy(view.others), "IOFU", self.inclusive).sum(1).numpy() >= self.left_alone
            )
            if not self.inclusive:
                free &= ~left_alone
            part = shares(boxes, around, "IOU", self.inclusive).numpy()  # (n, places)
            overlap, match = part.max(0, initial=0), part.argmax(0) if len(part) else np.zeros(len(around), int)
            there = free & (overlap > np.float32(self.threshold))
            of = match[there]
            rows = top.reshape(COLUMNS, -1)
            rows[0, there] = np.where(ignored[of], 0, scene.labels[of])
            rows[1:5, there] = described[of].T
            rows[5] = np.where(free & (there | ~left_alone), overlap, 1)
            found[of] = True
            here = np.where(free, part, 0).max(1, initial=0)
            best_map[here > best] = k
            best = np.maximum(best, here)
        for i in np.nonzero(~found & ~ignored & (best >= np.float32(self.pickup)))[0] if self.fields else ():
            k = best_map[i]
            (x, y), (rows, columns) = described[i, :2].tolist(), maps[k].shape[1:]
            at = (
                min(max(int(y // self.fields[k].stride), 0), rows - 1),
                min(max(int(x // self.fields[k].stride), 0), columns - 1),
            )
            if maps[k][0][at] > 0:
                continue
            maps[k][:5, at[0], at[1]] = scene.labels[i], *described[i]
            if self.inclusive:
                maps[k][5][at] = best[i]

    def around(self, field: Field, size: Sequence[int]) -> Tensor:
        """The boxes (places, 4) of the field around each place of a map."""
        y, x = ((torch.arange(n) + 0.5) * field.stride for n in size)
        y, x = (each.flatten() for each in torch.meshgrid(y, x, indexing="ij"))
        return torch.stack((x - field.width / 2, y - field.height / 2, x + field.width / 2, y + field.height / 2), 1)

    def free(self, field: Field, around: Tensor, cut: Cut, size: Sequence[int]) -> np.ndarray:
        """Which places of a map are not left alone for where they are, (places,)."""
        left, top, width, height = (nearest_integer(n / field.stride) for n in cut)
        free = np.zeros(tuple(size), bool)
        free[top : top + height, left : left + width] = True
        shown = torch.tensor((cut.left, cut.top, cut.left + cut.width, cut.top + cut.height), dtype=torch.float32)
        if self.margin is not None:
            beyond = torch.tensor((field.width / 2, field.height / 2)) * self.margin
            inside = (around[:, :2] >= shown[:2] - beyond).all(1) & (around[:, 2:] < shown[2:] + beyond).all(1)
            return free.flatten() & inside.numpy()
        if self.within is not None:
            return free.flatten() & (shares(around, shown[None], "IOFU", True)[:, 0] >= self.within).numpy()
        return free.flatten()
