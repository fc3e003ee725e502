"""``noise_param`` of SSD's Caffe: pictures with less colour, blurred, equalised, compressed, sprinkled.

The steps and their order are those of weiliu89/caffe, branch ssd (``ApplyNoise``).
"""

from __future__ import annotations

import logging
from typing import Any

import cv2
import numpy as np

from ..errors import DataError
from . import draws
from .datum import decode_image
from .options import require_only

log = logging.getLogger(__name__)
_READ = (
    "prob hist_eq inverse decolorize gauss_blur jpeg posterize erode saltpepper saltpepper_param clahe convert_to_hsv "
    "convert_to_lab"
)
_STEP = 64  # levels of grey that posterize makes one of
_POSTERIZED = (np.arange(256) // _STEP * _STEP + _STEP // 2).astype(np.uint8)


class Noise:
    """Changes pictures as a ``NoiseParameter`` says; SSD's Caffe does not read its ``prob`` and changes every picture.

    Attributes:
        random: whether a picture needs a random word.

    Raises:
        DataError: a field of another fork is set; ``saltpepper`` has no values; ``convert_to_lab`` is set, of whose float pixels
            SSD's Caffe reads the bytes.
    """

    def __init__(self, param: Any) -> None:
        require_only(param, _READ, "transform_param.noise_param")
        self._param = param
        self._values = [int(value) & 255 for value in param.saltpepper_param.value]
        self.random: bool = param.saltpepper
        if param.convert_to_lab:
            raise DataError(
                "transform_param.noise_param.convert_to_lab is not supported: SSD's Caffe would read the bytes of floats as "
                "pixels"
            )
        if param.saltpepper and not self._values:
            raise DataError(
                "transform_param.noise_param.saltpepper needs saltpepper_param.value, one or one for each channel"
            )
        if param.HasField("prob") and param.prob != 1:
            log.warning(
                "transform_param.noise_param.prob is %g; it has no effect: every image is changed, as in SSD's Caffe",
                param.prob,
            )

    def __call__(self, picture: np.ndarray, word: int = 0) -> np.ndarray:
        """Return a picture (H×W or H×W×3, ``uint8``) changed; ``word`` is a random number.

        Raises:
            DataError: an option needs three channels, or ``saltpepper_param.value`` does not fit.
        """
        try:
            return self._changed(picture, word)
        except cv2.error as error:
            channels = 1 if picture.ndim == 2 else picture.shape[2]
            raise DataError(
                f"has {channels} channels and cannot be changed as transform_param.noise_param says: {error.err or error}"
            ) from error

    def _changed(self, picture: np.ndarray, word: int) -> np.ndarray:
        param, grey = self._param, picture.ndim == 2
        if grey and (param.decolorize or param.convert_to_hsv):
            raise DataError(
                f"transform_param.noise_param.{'decolorize' if param.decolorize else 'convert_to_hsv'} needs a colour image, "
                "but this one is grey: set force_color"
            )
        if param.decolorize:
            picture = cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
        if param.gauss_blur:
            picture = cv2.GaussianBlur(picture, (7, 7), 1.5)
        if param.hist_eq:
            picture = _on_luminance(picture, cv2.equalizeHist)
        if param.clahe:
            picture = _on_luminance(picture, cv2.createCLAHE(clipLimit=4).apply)
        if param.jpeg > 0:
            data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, int(param.jpeg)])[1]
            picture = decode_image(data.tobytes(), not grey)
        if param.erode:
            picture = cv2.erode(picture, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3), (1, 1)))
        if param.posterize:
            picture = cv2.LUT(picture, _POSTERIZED)
        if param.inverse:
            picture = cv2.bitwise_not(picture)
        if param.saltpepper:
            picture = self._sprinkled(picture, word)
        return cv2.cvtColor(picture, cv2.COLOR_BGR2HSV) if param.convert_to_hsv else picture

    def _sprinkled(self, picture: np.ndarray, word: int) -> np.ndarray:
        channels = 1 if picture.ndim == 2 else picture.shape[2]
        if len(self._values) not in (1, channels):
            raise DataError(
                f"transform_param.noise_param.saltpepper_param has {len(self._values)} values, but the image {channels} "
                "channels; give one, or one for each channel"
            )
        rows, columns = picture.shape[:2]
        number = int(np.float32(self._param.saltpepper_param.fraction) * np.float32(columns) * np.float32(rows))
        places = draws.words(int(word), [0], 2 * number, draws.PICTURES)[0].reshape(2, -1)
        picture = picture.copy()
        picture[places[1] % np.uint64(rows), places[0] % np.uint64(columns)] = (
            self._values if channels > 1 else self._values[0]
        )
        return picture


def _on_luminance(picture: np.ndarray, change: Any) -> np.ndarray:
    """Return a picture whose luminance ``change`` has changed."""
    if picture.ndim == 2:
        return change(picture)
    planes = cv2.cvtColor(picture, cv2.COLOR_BGR2YCrCb)
    planes[..., 0] = change(np.ascontiguousarray(planes[..., 0]))
    return cv2.cvtColor(planes, cv2.COLOR_YCrCb2BGR)
