"""``distort_param`` and ``expand_param`` of SSD's Caffe: pictures in other colours, and on a larger ground.

The steps, their order and what they draw are those of weiliu89/caffe, branch ssd (``ApplyDistort``, ``ExpandImage``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from ..errors import DataError
from .mean import require_mean_values

_SPACE = 32.0
_LEVELS = np.arange(256, dtype=np.float32)


class Distortion:
    """Changes brightness, contrast, saturation and hue of a picture at random, and the order of its channels.

    Half of the pictures change contrast before saturation and hue, the others after. The numbers saturate at 0 and 255 after
    each step; so does the hue, which does not go round.

    Args:
        param: a ``DistortionParameter``.
        where: the field that it stands in, for messages.

    Attributes:
        DRAWS: how many random numbers a picture needs.

    Raises:
        DataError: a range that is empty or negative.
    """

    DRAWS = 13

    def __init__(self, param: Any, where: str = "transform_param.distort_param") -> None:
        self._param, self._where = param, where
        for name in ("brightness", "hue"):
            delta = getattr(param, f"{name}_delta")
            if getattr(param, f"{name}_prob") > 0 and delta < 0:
                raise DataError(f"{self._where}.{name}_delta is {delta:g}; it must be at least 0")
        for name in ("contrast", "saturation"):
            lower, upper = getattr(param, f"{name}_lower"), getattr(param, f"{name}_upper")
            if getattr(param, f"{name}_prob") > 0 and not 0 <= lower <= upper:
                raise DataError(
                    f"{self._where}: {name}_lower is {lower:g} and {name}_upper {upper:g}; expected 0 ≤ lower ≤ upper"
                )

    def __call__(self, picture: np.ndarray, drawn: Sequence[float]) -> np.ndarray:
        """Return a picture (H×W×3, ``uint8``) in other colours.

        Args:
            picture: grey, H×W, if no step that is drawn needs colours.
            drawn: :data:`DRAWS` random numbers from 0 to 1.

        Raises:
            DataError: a step needs colours, and the picture has none.
        """
        param = self._param
        brightness, contrast, saturation, hue = (
            drawn[2 * i + 1] < prob
            for i, prob in enumerate(
                (param.brightness_prob, param.contrast_prob, param.saturation_prob, param.hue_prob)
            )
        )
        amounts = drawn[2:9:2]
        if brightness and (delta := _between(-param.brightness_delta, param.brightness_delta, amounts[0])):
            picture = cv2.LUT(picture, _table(1, delta))
        if drawn[0] > 0.5 and contrast:
            picture = self._contrast(picture, amounts[1])
        if saturation:
            factor = _between(param.saturation_lower, param.saturation_upper, amounts[2])
            picture = _in_hsv(picture, 1, _table(factor, 0), "saturation_prob")
        if hue and (delta := _between(-param.hue_delta, param.hue_delta, amounts[3])):
            picture = _in_hsv(picture, 0, _table(1, delta), "hue_prob")
        if drawn[0] <= 0.5 and contrast:
            picture = self._contrast(picture, amounts[1])
        if drawn[9] < param.random_order_prob:
            _require_colours(picture, "random_order_prob")
            picture = np.ascontiguousarray(picture[..., np.argsort(drawn[10:13])])
        return picture

    def _contrast(self, picture: np.ndarray, amount: float) -> np.ndarray:
        factor = _between(self._param.contrast_lower, self._param.contrast_upper, amount)
        return cv2.LUT(picture, _table(factor, 0)) if abs(factor - 1) > 1e-3 else picture


def _between(low: float, high: float, share: float) -> float:
    return low + (high - low) * share


def _table(factor: float, delta: float) -> np.ndarray:
    """What becomes of each level: a factor and a sum, rounded and saturated as OpenCV does."""
    return np.clip(np.rint(_LEVELS * np.float32(factor) + np.float32(delta)), 0, 255).astype(np.uint8)


def _require_colours(picture: np.ndarray, field: str) -> None:
    if picture.ndim != 3 or picture.shape[2] != 3:
        channels = 1 if picture.ndim == 2 else picture.shape[2]
        raise DataError(
            f"has {channels} channel{'s' * (channels != 1)}, but transform_param.distort_param.{field} needs 3: set force_color"
        )


def _in_hsv(picture: np.ndarray, channel: int, table: np.ndarray, field: str) -> np.ndarray:
    """Apply a table to one channel of hue, saturation and value."""
    _require_colours(picture, field)
    tables = np.stack([_LEVELS.astype(np.uint8)] * 3, 1)[None]
    tables[0, :, channel] = table
    return cv2.cvtColor(cv2.LUT(cv2.cvtColor(picture, cv2.COLOR_BGR2HSV), tables), cv2.COLOR_HSV2BGR)


class Expansion:
    """Puts a picture into a larger one at random, on a ground of the mean colour.

    Args:
        param: an ``ExpansionParameter``.
        ground: ``mean_value`` of ``transform_param``; black if there is none.

    Attributes:
        DRAWS: how many random numbers a picture needs.

    Raises:
        DataError: ``max_expand_ratio`` is not above 1, or infinite.
    """

    DRAWS = 4

    def __init__(self, param: Any, ground: Sequence[float]) -> None:
        if not 1 < param.max_expand_ratio < math.inf:
            raise DataError(
                f"transform_param.expand_param.max_expand_ratio is {param.max_expand_ratio:g}; it must be above 1 and finite"
            )
        self._prob, self._most, self._ground = param.prob, param.max_expand_ratio, list(ground) or [0.0]

    def __call__(
        self, picture: np.ndarray, drawn: Sequence[float], encoded: bool = True
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the larger picture, and the window that it is in the coordinates of the given one; None if it is the same.

        Args:
            picture: H×W or H×W×C, ``uint8``.
            drawn: :data:`DRAWS` random numbers from 0 to 1.
            encoded: whether it was; SSD's Caffe puts raw pictures on a ground of 32, which is a space in ASCII.

        Raises:
            DataError: ``mean_value`` does not fit its channels, or the larger picture does not fit the memory.
        """
        if drawn[0] > self._prob or self._most - 1 < 1e-2:
            return picture, None
        ratio, (rows, columns) = np.float32(_between(1, self._most, drawn[1])), picture.shape[:2]
        height, width = int(np.float32(rows) * ratio), int(np.float32(columns) * ratio)
        top, left = int((height - rows) * drawn[2]), int((width - columns) * drawn[3])
        channels = 1 if picture.ndim == 2 else picture.shape[2]
        ground = self._ground if encoded else [_SPACE]
        if len(ground) == 1:
            ground = ground * channels
        require_mean_values(len(ground), channels)
        values = tuple(np.clip(np.rint(ground), 0, 255).tolist())
        margins = top, height - rows - top, left, width - columns - left
        try:
            larger = cv2.copyMakeBorder(picture, *margins, cv2.BORDER_CONSTANT, value=values)
        except cv2.error as error:
            raise DataError(
                f"is {rows} × {columns} (height × width) and cannot be laid on {height} × {width} by "
                f"transform_param.expand_param, whose max_expand_ratio is {self._most:g}"
            ) from error
        window = np.array([-left, -top, width - left, height - top], np.float32)
        return larger, window / np.array([columns, rows, columns, rows], np.float32)
