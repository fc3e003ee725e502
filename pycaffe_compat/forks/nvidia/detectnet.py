"""DetectNetTransformation, as NVIDIA's Caffe has it (detectnet_transform_layer.cpp, detectnet_coverage_rectangular.cpp)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from ...data.mean import read_mean, require_one_mean
from ...errors import DataError, prefixed
from ...layers.base import Layer, Shape
from ...layers.registry import register
from ...proto import caffe_pb2
from ...tables import dims

_NUMBERS = 16  # of a box in a label: x, y, width, height, angle, class, …
_CLASS = 5
_GRID = 8  # channels of the second top before the classes
_CHANCES = (
    *(f"{name}_prob" for name in ("crop", "scale", "flip", "rotation", "hue_rotation", "desaturation")),
    *("shift_x", "shift_y", "scale_min", "scale_max", "max_rotate_degree", "hue_rotation", "desaturation_max"),
)
_LEAST = np.finfo(np.float32).eps


@dataclass(frozen=True)
class Change:
    """What is done to a picture and its boxes; by default nothing.

    Attributes:
        hue: degrees by which hues turn.
        saturation: a factor of it.
        flip: left and right are exchanged.
        size: width and height to resize to.
        rotation: degrees by which it is turned then, into a picture that holds all of it.
        corner: x and y of the crop that is taken in the end.
    """

    hue: float
    saturation: float
    flip: bool
    size: tuple[int, int]
    rotation: float
    corner: tuple[int, int]


@register("DetectNetTransformation", fork="nvidia")
class DetectNetTransformation(Layer):
    """Images (N, 3, H, W), augmented at random in TRAIN, and their boxes as the grid of values that DetectNet learns.

    The label, (N, 1, R, 16), holds the number of boxes and 16 in its first row, then a box in each: x, y, width, height, an
    angle, the class, and ten numbers that are not used. Tops are pictures of ``image_size_y`` × ``image_size_x``, and for
    each square of ``stride`` pixels 8 numbers and one of each class. Where the middle part of a box (``scale_cvg``) covers a
    square, they are 1, the box's left, top, right and bottom edge from the square's corner, 1 / width, 1 / height, the
    weight of a square of the box (``obj_norm``, else at least 1), and 1 for its class; later boxes cover earlier ones.
    Elsewhere they are 0. Changes are those of ``detectnet_augmentation_param``; in TEST a picture is resized. Random choices
    are torch's, on the CPU.
    """

    options = ("detectnet_groundtruth_param", "detectnet_augmentation_param", "transform_param")
    inert_options = frozenset({"resize_param", "noise_param", "distort_param", "expand_param", "emit_constraint"})
    bottoms = (2, 2)
    tops = (2, 2)
    differentiable = (False,)
    random = True
    traceable = False

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        pictures, labels = (tuple(shape) for shape in bottom_shapes)
        if len(pictures) != 4 or pictures[1] != 3:
            raise self.error(f"takes pictures of shape (num, 3, height, width), but they have {dims(pictures)}")
        if len(labels) != 4 or (labels[0], labels[1], labels[3]) != (pictures[0], 1, _NUMBERS):
            raise self.error(
                f"takes labels of shape ({pictures[0]}, 1, rows, {_NUMBERS}), a row for each box and one before them, but they "
                f"have {dims(labels)}"
            )
        truth = param.detectnet_groundtruth_param
        self.width, self.height, self.stride = truth.image_size_x, truth.image_size_y, truth.stride
        if not self.width or not self.height or not self.stride:
            raise self.error(
                f"image_size_x is {self.width}, image_size_y {self.height} and stride {self.stride}; all must be at least 1"
            )
        self.columns, self.rows = round(self.width / self.stride), round(self.height / self.stride)
        self.share = np.float32(truth.scale_cvg)
        self.whole: bool = truth.gridbox_type == truth.GRIDBOX_MIN
        self.least: float = truth.min_cvg_len if self.whole else 0
        self.most: float = math.inf if self.whole else truth.max_cvg_len
        self.least_weight = np.float32(0 if truth.obj_norm else 1)
        self.crops_boxes: bool = truth.crop_bboxes
        self.classes = {each.src: each.dst for each in truth.object_class} or {1: 0}  # 1 is the car in KITTI
        self.channels = _GRID + 1 + max(self.classes.values())
        self.chances = {name: getattr(param.detectnet_augmentation_param, name) for name in _CHANCES}
        self.mean = self._read_mean(param.transform_param, pictures[2:])

    def _read_mean(self, transform: Any, size: tuple[int, ...]) -> np.ndarray:
        """The mean, of pictures of ``size`` (H×W×3) or of each channel, in parts of 255."""
        with prefixed(f'layer "{self.name}" ({self.type_name})'):
            require_one_mean(transform.HasField("mean_file"), len(transform.mean_value))
            if transform.HasField("mean_file"):
                mean = read_mean(transform.mean_file)
                if len(mean) != 3:
                    raise DataError(f"mean_file {transform.mean_file} has {len(mean)} channels; it needs 3")
                mean = cv2.resize(mean.transpose(1, 2, 0), (size[1], size[0]), interpolation=cv2.INTER_CUBIC)
                return np.asarray(mean / 255, np.float32)
        values = list(transform.mean_value) or [0]
        if len(values) not in (1, 3):
            raise self.error(f"transform_param has {len(values)} mean_values; give 1 or 3")
        return np.full(3, values, np.float32) / np.float32(255)

    def forward(self, pictures: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        shapes = (len(pictures), 3, self.height, self.width), (len(pictures), self.channels, self.rows, self.columns)
        if pictures.is_meta:
            return pictures.new_empty(shapes[0]), pictures.new_empty(shapes[1])
        made, grids = np.zeros(shapes[0], np.float32), np.zeros(shapes[1], np.float32)
        size = (pictures.shape[3], pictures.shape[2])
        images = pictures.detach().float().cpu().numpy().transpose(0, 2, 3, 1)
        for i, (image, label) in enumerate(zip(images, labels.detach().float().cpu().numpy()[:, 0], strict=True)):
            change = self.draw(size)
            made[i] = self.changed(image, change).transpose(2, 0, 1)
            boxes = self.boxes(label)
            boxes[:, :4] = self.moved(boxes[:, :4], change, size)
            grids[i] = self.grid(boxes)
        return torch.from_numpy(made).to(pictures), torch.from_numpy(grids).to(pictures)

    def boxes(self, label: np.ndarray) -> np.ndarray:
        """The boxes of a picture, a row of 16 for each.

        Raises:
            DataError: the label does not begin with how many there are, and 16.
        """
        count, length = int(label[0, 0]), int(label[0, 1])
        if length != _NUMBERS or not 0 <= count < len(label):
            raise DataError(
                f'layer "{self.name}" ({self.type_name}): a label begins with {label[0, 0]:g} and {label[0, 1]:g}; expected the '
                f"number of boxes, at most {len(label) - 1}, and {_NUMBERS}"
            )
        return label[1 : 1 + count].copy()

    def draw(self, size: tuple[int, int]) -> Change:
        """Draw the changes of a picture of ``size``, width and height."""
        if self.phase != caffe_pb2.TRAIN:
            return Change(0, 1, False, (self.width, self.height), 0, (0, 0))
        chances = self.chances

        def drawn() -> float:
            return float(torch.rand(()))

        hue, saturation, rotation = 0.0, 1.0, 0.0
        if drawn() <= chances["hue_rotation_prob"]:
            hue = min(max((drawn() - 0.5) * 2 * chances["hue_rotation"], -180), 180)
        if drawn() <= chances["desaturation_prob"]:
            saturation = 1 - drawn() * chances["desaturation_max"]
        flip = drawn() <= chances["flip_prob"]
        if drawn() <= chances["scale_prob"]:
            scale = chances["scale_min"] + (chances["scale_max"] - chances["scale_min"]) * drawn()
            size = (_rounded(size[0] * scale), _rounded(size[1] * scale))
        if drawn() <= chances["rotation_prob"]:
            rotation = (drawn() - 0.5) * 2 * chances["max_rotate_degree"]
        before = _turned_size(size, rotation) if abs(rotation) > _LEAST else size
        shares, shifts = (0.5, 0.5), (0, 0)
        if drawn() <= chances["crop_prob"]:
            shares, shifts = (drawn(), drawn()), (chances["shift_x"], chances["shift_y"])
        x, y = (
            _rounded(share * (have - want + shift) - shift // 2)
            for share, have, want, shift in zip(shares, before, (self.width, self.height), shifts, strict=True)
        )
        return Change(hue, saturation, flip, size, rotation, (x, y))

    def changed(self, image: np.ndarray, change: Change) -> np.ndarray:
        """Return a picture, H×W×3 (BGR), after ``change``, minus the mean."""
        image = image / np.float32(255)
        greyer = change.saturation < 1 - 1 / 255
        if abs(change.hue) > _LEAST or greyer:
            hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
            hsv[..., 0] = (hsv[..., 0] + np.float32(change.hue)) % 360  # OpenCV 5 misreads negative hues
            hsv[..., 1] *= np.float32(change.saturation if greyer else 1)
            image = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)
        image = image - self.mean
        if change.flip:
            image = np.ascontiguousarray(image[:, ::-1])
        if change.size != image.shape[1::-1]:
            image = cv2.resize(image, change.size, interpolation=cv2.INTER_CUBIC)
        if abs(change.rotation) > _LEAST:
            size = (image.shape[1], image.shape[0])
            bounds = _turned_size(size, change.rotation)
            image = cv2.warpAffine(
                image,
                _turning(size, change.rotation),
                bounds,
                dst=np.zeros((bounds[1], bounds[0], 3), np.float32),
                flags=cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_TRANSPARENT,
            )
        made = np.zeros((self.height, self.width, 3), np.float32)
        x, y = change.corner
        part = image[max(y, 0) : max(y + self.height, 0), max(x, 0) : max(x + self.width, 0)]
        top, left = max(-y, 0), max(-x, 0)
        made[top : top + len(part), left : left + part.shape[1]] = part
        return made * np.float32(255)

    def moved(self, boxes: np.ndarray, change: Change, size: tuple[int, int]) -> np.ndarray:
        """Return boxes, x, y, width and height, where they are after ``change`` of a picture of ``size``."""
        boxes = boxes.copy()
        if change.flip:
            boxes[:, 0] = size[0] - boxes[:, 0] - boxes[:, 2] - 1
        if change.size != size:
            boxes *= np.tile(np.array(change.size, np.float32) / np.array(size, np.float32), 2)
        if abs(change.rotation) > _LEAST:
            middles = boxes[:, :2] + boxes[:, 2:] / 2
            matrix = _turning(change.size, change.rotation).astype(np.float32)
            boxes[:, :2] = middles @ matrix[:, :2].T + matrix[:, 2] - boxes[:, 2:] / 2
        boxes[:, :2] -= np.array(change.corner, np.float32)
        return boxes

    def grid(self, boxes: np.ndarray) -> np.ndarray:
        """Return the second top of a picture with these boxes, rows of 16: channels × rows × columns."""
        made = np.zeros((self.channels, self.rows, self.columns), np.float32)
        kinds = boxes[:, _CLASS].astype(np.int64)
        lows, highs = boxes[:, :2], boxes[:, :2] + boxes[:, 2:4]
        if self.crops_boxes:
            lows, highs = np.maximum(lows, 0), np.minimum(highs, np.array([self.width, self.height], np.float32))
        sizes = highs - lows
        known = np.isin(kinds, list(self.classes)) & (sizes > 0).all(1) & (sizes.prod(1) >= _LEAST)
        kinds, lows, sizes = kinds[known], lows[known], sizes[known]
        if not len(kinds):
            return made
        highs = lows + sizes
        middle = np.clip(sizes * self.share, self.least, self.most).astype(np.float32)
        middle = np.minimum(middle, sizes) if self.whole else middle
        centres = (lows + highs) / 2
        starts, ends = centres - middle / 2, centres + middle / 2
        corners = [np.arange(n, dtype=np.float32) * self.stride for n in (self.columns, self.rows)]
        covered = [
            np.clip(np.minimum(ends[:, i, None], at + self.stride) - np.maximum(starts[:, i, None], at), 0, None)
            for i, at in enumerate(corners)
        ]  # by each box, of each column and of each row
        covers = covered[1][:, :, None] * covered[0][:, None, :] / np.float32(self.stride) ** 2 > _LEAST
        last = len(kinds) - 1 - covers[::-1].argmax(0)
        rows, columns = np.nonzero(covers.any(0))
        box = last[rows, columns]
        with np.errstate(divide="ignore"):  # a middle part without area covers nothing
            weights = np.float32(self.stride) ** 2 / middle.prod(1)
        origins = np.stack([corners[0][columns], corners[1][rows]])
        made[0, rows, columns] = 1
        made[1:3, rows, columns] = lows[box].T - origins
        made[3:5, rows, columns] = highs[box].T - origins
        made[5:7, rows, columns] = 1 / sizes[box].T
        made[7, rows, columns] = np.maximum(self.least_weight, weights)[box]
        made[_GRID + np.array([self.classes[kind] for kind in kinds])[box], rows, columns] = 1
        return made


def _rounded(value: float) -> int:
    """The nearest integer, halves away from 0, as C's ``round``."""
    return int(math.copysign(math.floor(abs(value) + 0.5), value))


def _bounds(centre: tuple[float, float], size: tuple[int, int], rotation: float) -> tuple[int, int, int, int]:
    """Left, top, width and height of the pixels around a turned rectangle, as of OpenCV's ``RotatedRect``."""
    corners = cv2.boxPoints((centre, size, rotation))
    low, high = np.floor(corners.min(0)), np.ceil(corners.max(0))
    return int(low[0]), int(low[1]), int(high[0] - low[0]) + 1, int(high[1] - low[1]) + 1


def _turned_size(size: tuple[int, int], rotation: float) -> tuple[int, int]:
    """Width and height of what holds a turned picture."""
    return _bounds((size[0] // 2, size[1] // 2), size, rotation)[2:]


def _turning(size: tuple[int, int], rotation: float) -> np.ndarray:
    """The 2×3 matrix that turns a picture of ``size`` into what holds it."""
    centre = (size[0] / 2, size[1] / 2)
    left, top, _, _ = _bounds(centre, size, rotation)
    before = cv2.boxPoints((centre, size, 0.0))
    after = cv2.boxPoints(((centre[0] - left, centre[1] - top), size, rotation))
    return cv2.getAffineTransform(before[:3], after[:3])
