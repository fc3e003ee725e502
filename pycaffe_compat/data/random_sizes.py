"""Pictures of random size, and random parts of pictures, as Intel's Caffe makes them.

The arithmetic is that of intel/caffe, ``data_transformer.cpp`` (``RandomResizeImage``, ``RandomAlterAspectRatio``).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..errors import DataError
from . import draws
from .resizing import Resizing

_WHERE = "transform_param"
FIELDS = ("random_resize_param", "random_aspect_ratio_param")
"""The fields of ``transform_param`` that this is about."""


class _Resized:
    """Resizes pictures with the options of a ``resize_param`` that leaves height and width to others."""

    def __init__(self, param: Any, where: str) -> None:
        self.where = where
        self._any_size = Resizing(param, f"{where}.resize_param", needs_size=False)

    def __call__(self, picture: np.ndarray, height: int, width: int, word: int) -> np.ndarray:
        """Return a picture (H×W or H×W×C, ``uint8``) of ``height`` × ``width``."""
        return self._any_size.of_size(height, width)(picture, word)

    def by_shorter_side(self, picture: np.ndarray, shorter: int, word: int) -> np.ndarray:
        """Return a picture whose shorter side is ``shorter``."""
        one = np.float32
        height, width = picture.shape[:2]
        if height < width:
            return self(picture, shorter, int(one(width) / one(height) * one(shorter)), word)
        return self(picture, int(one(height) / one(width) * one(shorter)), shorter, word)


class RandomResize:
    """Resizes pictures so that the shorter side is a whole number from ``min_size`` to ``max_size``, each as likely.

    Where ``min_size`` is 0, a picture's shorter side takes its place; where ``max_size`` is 0, its longer side.

    Raises:
        DataError: ``max_size`` is below ``min_size``, or ``resize_param`` does not fit.
    """

    def __init__(self, param: Any) -> None:
        self._least, self._most = param.min_size, param.max_size
        self._resized = _Resized(param.resize_param, f"{_WHERE}.random_resize_param")
        if 0 < self._most < self._least:
            raise DataError(
                f"{self._resized.where}: max_size {self._most} is below min_size {self._least}; give one that is not"
            )

    def __call__(self, picture: np.ndarray, word: int = 0) -> np.ndarray:
        """Return a picture (H×W or H×W×C, ``uint8``) resized; ``word`` is a random number.

        Raises:
            DataError: the picture leaves no size to choose, or OpenCV cannot make it.
        """
        sides = picture.shape[:2]
        least, most = self._least or min(sides), self._most or max(sides)
        if most < least:
            raise DataError(
                f"is {sides[0]} × {sides[1]} (height × width), but {self._resized.where} asks for sizes from {least} to {most}; "
                "give min_size and max_size"
            )
        size, mode = (int(each) for each in draws.words(int(word), [0], 2, draws.PICTURES)[0])
        return self._resized.by_shorter_side(picture, least + size % (most - least + 1), mode)


class RandomAspectRatio:
    """Cuts a random part out of a picture and makes it a square of ``crop_size``.

    The part has ``min_area_ratio`` to ``max_area_ratio`` of the picture's area. Its height is the side of the square of that
    area times a number from ``aspect_ratio_change`` to the inverse of that; its width is that side divided by it; both are in
    steps of a thousandth. Half of the time they change places. After ``max_attempt`` parts that do not fit into the picture, the
    whole of it is resized, so that its shorter side is ``crop_size``.

    Raises:
        DataError: ``max_area_ratio`` is below ``min_area_ratio``; ``aspect_ratio_change`` is not above 0 and at most 1; or
            ``resize_param`` does not fit.
    """

    def __init__(self, param: Any, crop_size: int) -> None:
        one = np.float32
        self._size = crop_size
        self._resized = _Resized(param.resize_param, f"{_WHERE}.random_aspect_ratio_param")
        self._areas = one(param.min_area_ratio), one(param.max_area_ratio)
        self._attempts: int = param.max_attempt
        if not 0 < param.min_area_ratio <= param.max_area_ratio < math.inf:
            raise DataError(
                f"{self._resized.where}: min_area_ratio is {param.min_area_ratio:g} and max_area_ratio "
                f"{param.max_area_ratio:g}; give numbers above 0, the latter not below the former"
            )
        if not 0 < param.aspect_ratio_change <= 1:
            raise DataError(
                f"{self._resized.where}.aspect_ratio_change: {param.aspect_ratio_change:g} must be above 0 and at most 1"
            )
        self._changes = one(param.aspect_ratio_change), one(1) / one(param.aspect_ratio_change)

    def __call__(self, picture: np.ndarray, word: int = 0) -> np.ndarray:
        """Return what is made of a picture (H×W or H×W×C, ``uint8``); ``word`` is a random number.

        Raises:
            DataError: OpenCV cannot make it.
        """
        mode, seed = (int(each) for each in draws.words(int(word), [0], 2, draws.PICTURES)[0])
        height, width = picture.shape[:2]
        part = self.part(height, width, seed)
        if part is None:
            return self._resized.by_shorter_side(picture, self._size, mode)
        top, left, rows, columns = part
        return self._resized(picture[top : top + rows, left : left + columns], self._size, self._size, mode)

    def part(self, height: int, width: int, seed: int) -> tuple[int, int, int, int] | None:
        """Return top, left, height and width of the part of a picture; None if no attempt fits."""
        area = np.float32(height * width)
        for attempt in range(self._attempts):
            size, shape, turned, top, left = draws.words(seed, [attempt], 5, draws.PICTURES)[0].tolist()
            side = np.sqrt(_between(self._areas, size) * area)
            change = _between(self._changes, shape)
            rows, columns = int(side * change), int(side / change)
            if turned % 1001 < 500:
                rows, columns = columns, rows
            if rows <= height and columns <= width:
                return top % (height - rows + 1), left % (width - columns + 1), rows, columns
        return None


def _between(bounds: tuple[np.float32, np.float32], word: int) -> np.float32:
    """Return a random number between two, in steps of a thousandth from the lower one."""
    thousand, one = np.float32(1000), np.float32(1)
    lower, upper = bounds
    return (np.float32(word % int((upper - lower) * thousand + one)) + lower * thousand) / thousand


def random_size(param: Any) -> RandomResize | RandomAspectRatio | None:
    """Return what a ``TransformationParameter`` asks for. ``random_resize_param`` goes before the other, as in the fork.

    Raises:
        DataError: its options do not fit, ``crop_size`` is missing, or another option is set that the fork supports only in part.
    """
    name = next((name for name in FIELDS if param.HasField(name)), None)
    if name is None:
        return None
    if not param.crop_size:
        raise DataError(f"{_WHERE}.{name} needs a crop_size, to make all pictures the same size")
    for other, given in (("resize_param", len(param.resize_param)), ("noise_param", param.HasField("noise_param"))):
        if given:
            raise DataError(
                f"{_WHERE}.{other} does not work with {name}: Intel's Caffe crops the image as it was before {other}; remove one"
            )
    if name == FIELDS[0]:
        return RandomResize(param.random_resize_param)
    return RandomAspectRatio(param.random_aspect_ratio_param, param.crop_size)
