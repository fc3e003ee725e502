"""Pictures of random size and shape, as NVIDIA's Caffe makes them (NVIDIA/caffe 0.17, ``image_random_resize``)."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np

from ..errors import DataError
from ..proto import caffe_pb2
from . import draws

_P = caffe_pb2.TransformationParameter
_MODES = {
    _P.INTER_NEAREST: cv2.INTER_NEAREST,
    _P.INTER_LINEAR: cv2.INTER_LINEAR,
    _P.INTER_CUBIC: cv2.INTER_CUBIC,
    _P.INTER_AREA: cv2.INTER_AREA,
}
_SIZES = ("img_rand_resize_lower", "img_rand_resize_upper")
_SHAPES = tuple(
    f"{name}_{end}"
    for name in ("rand_resize_ratio", "vertical_stretch", "horizontal_stretch")
    for end in ("lower", "upper")
)
FIELDS = (*_SIZES, *_SHAPES, "interpolation_algo_down", "interpolation_algo_up", "allow_upscale")
"""The fields of ``transform_param`` that this is about."""


class Stretching:
    """Resizes pictures to a random size and shape, in training and testing alike.

    The shorter side becomes a number between ``img_rand_resize_lower`` and ``img_rand_resize_upper``; the longer one the shorter
    times a number between the ``rand_resize_ratio`` (from 1 on); then height and width are multiplied by numbers between the
    ``vertical_stretch`` and between the ``horizontal_stretch``. No side becomes smaller than ``crop_size``, nor, without
    ``allow_upscale``, larger than it was.

    Attributes:
        random: whether a picture needs a random word.

    Raises:
        DataError: an upper bound is below its lower one.
    """

    def __init__(self, param: Any) -> None:
        self._least: int = param.crop_size
        self._size = self._pair(param, "img_rand_resize")
        self._ratio = self._pair(param, "rand_resize_ratio")
        self._vertical = self._pair(param, "vertical_stretch")
        self._horizontal = self._pair(param, "horizontal_stretch")
        self._down, self._up = _MODES[param.interpolation_algo_down], _MODES[param.interpolation_algo_up]
        self._upscales: bool = param.allow_upscale
        self.random = True

    @staticmethod
    def wanted(param: Any) -> bool:
        """Whether a ``TransformationParameter`` asks for it."""
        return any(getattr(param, name) for name in _SIZES) or any(param.HasField(name) for name in _SHAPES)

    @staticmethod
    def _pair(param: Any, name: str) -> tuple[float, float]:
        lower, upper = getattr(param, f"{name}_lower"), getattr(param, f"{name}_upper")
        if upper < lower and lower > 0 and upper > 0:
            raise DataError(f"transform_param.{name}_upper: {upper:g} must not be below {name}_lower: {lower:g}")
        return lower, upper

    def size(self, height: int, width: int, word: int) -> tuple[int, int]:
        """Return height and width of what a picture of this height and width becomes, given a random number."""
        shares = draws.shares(int(word), 0, 5, draws.PICTURES)
        one = np.float32
        shorter = min(height, width)
        lower, upper = self._size
        if lower > 0 and upper > 0:
            shorter = int(lower) + int(shares[0] * (upper - lower + 1))
        scale = one(shorter) / one(min(height, width))
        tall, wide = scale * one(height), scale * one(width)
        lower, upper = self._ratio
        if lower >= 1 and upper > 1:
            ratio = _between(self._ratio, shares[1])
            if wide > tall or (wide == tall and shares[2] < 0.5):
                wide = tall * ratio
            else:
                tall = wide * ratio
        if min(self._vertical) > 0:
            tall *= _between(self._vertical, shares[3])
        if min(self._horizontal) > 0:
            wide *= _between(self._horizontal, shares[4])
        sides = [max(self._least, math.floor(side + 0.5)) for side in (tall, wide)]
        if not self._upscales:
            sides = [min(new, old) for new, old in zip(sides, (height, width), strict=True)]
        return sides[0], sides[1]

    def __call__(self, picture: np.ndarray, word: int = 0) -> np.ndarray:
        """Return a picture (H×W or H×W×C, ``uint8``) resized; ``word`` is a random number.

        Raises:
            DataError: OpenCV cannot make it.
        """
        height, width = picture.shape[:2]
        tall, wide = self.size(height, width, word)
        if (tall, wide) == (height, width):
            return picture
        mode = self._down if tall <= height and wide <= width else self._up
        try:
            return cv2.resize(picture, (wide, tall), interpolation=mode)
        except cv2.error as error:
            raise DataError(
                f"is {height} × {width} (height × width) and cannot be resized by transform_param to {tall} × {wide}: "
                f"{error.err or error}"
            ) from error


def _between(bounds: tuple[float, float], share: float) -> np.float32:
    lower, upper = bounds
    return np.float32(lower + (upper - lower) * share)
