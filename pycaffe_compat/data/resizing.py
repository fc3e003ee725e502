"""``resize_param`` of SSD's Caffe: pictures of one size, and where boxes lie in them.

The arithmetic is that of weiliu89/caffe, branch ssd (``ApplyResize``, ``InferNewSize``, ``UpdateBBoxByResizePolicy``,
``ExtrapolateBBox``).
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import cv2
import numpy as np

from ..errors import DataError
from ..proto import caffe_pb2
from .boxes import Boxes
from .options import require_only

_READ = "prob resize_mode height width height_scale width_scale pad_mode pad_value interp_mode"
_P = caffe_pb2.ResizeParameter
_MODES = {
    _P.LINEAR: cv2.INTER_LINEAR,
    _P.AREA: cv2.INTER_AREA,
    _P.NEAREST: cv2.INTER_NEAREST,
    _P.CUBIC: cv2.INTER_CUBIC,
    _P.LANCZOS4: cv2.INTER_LANCZOS4,
}
_PADS = {
    _P.CONSTANT: cv2.BORDER_CONSTANT,
    _P.MIRRORED: cv2.BORDER_REFLECT_101,
    _P.REPEAT_NEAREST: cv2.BORDER_REPLICATE,
}


class Resizing:
    """Resizes pictures as a ``ResizeParameter`` says. ``where`` is what that is called.

    WARP ignores the aspect ratio. FIT_SMALL_SIZE keeps it, and nothing is smaller than ``height`` × ``width``.
    FIT_LARGE_SIZE_AND_PAD keeps them, nothing is larger, and the rest is padded on both sides. With several
    ``interp_mode`` each picture gets one of them at random.

    Attributes:
        fits_small: the size depends on the picture (FIT_SMALL_SIZE).
        random: whether a picture needs a random word.

    With ``needs_size`` false, ``height`` and ``width`` are not read: :meth:`of_size` gives them.

    Raises:
        DataError: ``height`` or ``width`` is 0, or a field of another fork is set.
    """

    def __init__(self, param: Any, where: str = "transform_param.resize_param", needs_size: bool = True) -> None:
        require_only(param, _READ, where)
        if needs_size and (not param.height or not param.width):
            raise DataError(f"{where}: height is {param.height} and width {param.width}; both must be at least 1")
        self._where = where
        self.height, self.width = param.height, param.width
        self.fits_small: bool = param.resize_mode == _P.FIT_SMALL_SIZE
        self._pads: bool = param.resize_mode == _P.FIT_LARGE_SIZE_AND_PAD
        self._border = _PADS[param.pad_mode]
        self._values = list(param.pad_value)
        self._modes = [_MODES[mode] for mode in param.interp_mode] or [cv2.INTER_LINEAR]
        self._scales = np.float32(param.width_scale), np.float32(param.height_scale)
        self.random = len(self._modes) > 1

    def of_size(self, height: int, width: int) -> Resizing:
        """Return one that differs only in ``height`` and ``width``."""
        other = copy.copy(self)
        other.height, other.width = height, width
        return other

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width of what a picture of this height and width becomes."""
        if not self.fits_small:
            return self.height, self.width
        aspect = np.float32(width) / np.float32(height)
        if aspect < np.float32(self.width) / np.float32(self.height):
            return int(np.float32(self.width) / aspect), self.width
        return self.height, int(aspect * np.float32(self.height))

    def __call__(self, picture: np.ndarray, word: int = 0) -> np.ndarray:
        """Return a picture (H×W or H×W×C, ``uint8``) resized; ``word`` is a random number.

        Raises:
            DataError: OpenCV cannot make it, or ``pad_value`` does not fit its channels.
        """
        mode = self._modes[word % len(self._modes)]
        try:
            if self._pads:
                return self._padded(picture, mode)
            height, width = self.size(*picture.shape[:2])
            return cv2.resize(picture, (width, height), interpolation=mode)
        except cv2.error as error:
            raise DataError(
                f"is {picture.shape[0]} × {picture.shape[1]} (height × width) and cannot be resized by "
                f"{self._where} to {self.height} × {self.width}: {error.err or error}"
            ) from error

    def _padded(self, picture: np.ndarray, mode: int) -> np.ndarray:
        aspect = np.float32(picture.shape[1]) / np.float32(picture.shape[0])
        height, width = self.height, self.width
        if aspect > np.float32(width) / np.float32(height):
            height = int(np.float32(width) / aspect)
        else:
            width = int(aspect * np.float32(height))
        resized = cv2.resize(picture, (width, height), interpolation=mode)
        top, left = (self.height - height) // 2, (self.width - width) // 2
        margins = top, self.height - height - top, left, self.width - width - left
        return cv2.copyMakeBorder(resized, *margins, self._border, value=self._padding(picture))

    def _padding(self, picture: np.ndarray) -> tuple[float, ...]:
        channels = 1 if picture.ndim == 2 else picture.shape[2]
        if len(self._values) not in (0, 1, channels):
            raise DataError(
                f"{self._where} has {len(self._values)} pad_value, but the image {channels} channels; give one, "
                "or one for each channel"
            )
        values = self._values or [0]
        return tuple(values * channels if len(values) == 1 else values)

    def moved(self, boxes: Boxes, height: int, width: int) -> Boxes:
        """Return where the boxes of a picture of this height and width lie when it is resized."""
        one = np.float32
        new_height, new_width, old_height, old_width = one(self.height), one(self.width), one(height), one(width)
        aspect = old_width / old_height
        pad_x = pad_y = one(0)
        if self._pads and aspect > new_width / new_height:
            pad_y = (new_height - new_width / aspect) / one(2)
        elif self._pads:
            pad_x = (new_width - aspect * new_height) / one(2)
        elif self.fits_small and aspect < new_width / new_height:
            new_height = new_width / aspect
        elif self.fits_small:
            new_width = aspect * new_height
        corners = np.empty_like(boxes.corners)
        for axis, old, new, pad in ((0, old_width, new_width, pad_x), (1, old_height, new_height, pad_y)):
            places = boxes.corners[:, axis::2] * old * (new - one(2) * pad) / old
            corners[:, axis] = (pad + np.maximum(one(0), places[:, 0])) / new
            corners[:, axis + 2] = (pad + np.minimum(new, places[:, 1])) / new
        return replace(boxes, corners=corners)

    def extrapolated(self, boxes: Boxes, height: int, width: int, window: np.ndarray) -> Boxes:
        """Return boxes in units of ``width_scale`` × ``height_scale`` pixels, if FIT_SMALL_SIZE is given those.

        Args:
            boxes: those of the window.
            height, width: of the picture before it was resized.
            window: what was cut from the resized picture.

        Raises:
            DataError: the window is smaller than that.
        """
        x_scale, y_scale = self._scales
        if not self.fits_small or not x_scale or not y_scale:
            return boxes
        one = np.float32
        new_height, new_width, aspect = one(self.height), one(self.width), one(width) / one(height)
        if aspect < new_width / new_height:
            new_height = new_width / aspect
        else:
            new_width = new_height * aspect
        crop_width, crop_height = new_width * (window[2] - window[0]), new_height * (window[3] - window[1])
        if crop_width < x_scale or crop_height < y_scale:
            raise DataError(
                f"transform_param.resize_param: height_scale × width_scale {y_scale:g} × {x_scale:g} is more than the "
                f"{crop_height:g} × {crop_width:g} pixels of the picture"
            )
        x, y = boxes.corners[:, ::2] * crop_width / x_scale, boxes.corners[:, 1::2] * crop_height / y_scale
        return replace(boxes, corners=np.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], 1))
