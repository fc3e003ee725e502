"""The transformations of ``transform_param``: crop an image, mirror it, subtract the mean, scale."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from ..errors import DataError, prefixed
from ..proto import caffe_pb2
from .mean import read_mean, require_mean_values, require_one_mean

log = logging.getLogger(__name__)


class Transformer:
    """Caffe's ``DataTransformer``: crops one image (at random in TRAIN, its centre in TEST), mirrors and scales it.

    A mean image is cropped with the same window as the image, before mirroring. ``(x - mean) * scale`` is computed in
    float32.

    Args:
        param: a ``TransformationParameter``.
        phase: ``caffe_pb2.TRAIN`` or ``TEST``. Mirroring is random in both, as in Caffe.

    Attributes:
        color: how an encoded image is decoded: True to BGR (``force_color``), False to grey, None as it is stored.
        random: whether an image needs random words.
        WORDS: the number of random words per image.

    Raises:
        MissingFileError, DataError: options exclude each other, or the mean file is missing or not one.
    """

    WORDS = 3

    def __init__(self, param: Any, phase: int) -> None:
        self.crop: int = param.crop_size
        self.mirror: bool = param.mirror
        self.scale = np.float32(param.scale)
        self.train = phase == caffe_pb2.TRAIN
        self.random = self.mirror or (self.train and self.crop > 0)
        if param.force_color and param.force_gray:
            raise DataError("transform_param: give force_color or force_gray, not both")
        self.color: bool | None = True if param.force_color else False if param.force_gray else None
        require_one_mean(param.HasField("mean_file"), len(param.mean_value))
        self.mean_file: str = param.mean_file
        with prefixed("transform_param.mean_file"):
            self._mean_image = read_mean(param.mean_file) if param.HasField("mean_file") else None
        self._mean_values = np.array(param.mean_value or (0,), np.float32)
        self._warned = False

    def check(self, shape: Sequence[int]) -> tuple[int, int, int]:
        """Return the shape after the transformation of an image of ``shape`` (C×H×W).

        Raises:
            DataError: the crop is larger than the image, or the mean does not fit it.
        """
        channels, height, width = shape
        if height < self.crop or width < self.crop:
            raise DataError(
                f"transform_param.crop_size {self.crop} is larger than the image, which is {height} × {width} (height × width)"
            )
        require_mean_values(len(self._mean_values), channels)
        if self._mean_image is not None and self._mean_image.shape != (channels, height, width):
            raise DataError(
                f"transform_param.mean_file {self.mean_file} has shape {_by(self._mean_image.shape)}, but the image "
                f"{_by(shape)} (channels × height × width); they must be equal"
            )
        return (channels, self.crop, self.crop) if self.crop else (channels, height, width)

    def warn_raw(self, what: str) -> None:
        """Warn once that ``force_color`` and ``force_gray`` do nothing to records that are not encoded."""
        if self.color is not None and not self._warned:
            self._warned = True
            log.warning(
                "%s: force_color and force_gray apply to encoded images only; raw ones keep their channels", what
            )

    def __call__(self, image: np.ndarray, words: Sequence[int], out: np.ndarray) -> None:
        """Transform ``image`` into ``out``.

        Args:
            image: C×H×W, ``uint8`` or ``float32``; fastest if it is the transpose of an H×W×C image.
            words: :data:`WORDS` random numbers, or none if :attr:`random` is false.
            out: C-contiguous ``float32``, of the shape that :meth:`check` returns.

        Raises:
            DataError: as in :meth:`check`; or the result does not have the shape of ``out``.
        """
        shape = self.check(image.shape)
        if shape != out.shape:
            advice = "records of different sizes need a crop_size, or batch_size: 1"
            if shape[0] != out.shape[0]:
                advice = "grey and colour images can share a batch with force_color or force_gray, if they are encoded"
            raise DataError(
                f"has {_by(shape)} values after the transformation, but the first record of the batch {_by(out.shape)}; {advice}"
            )
        _, height, width = shape
        top, left = (image.shape[1] - height) // 2, (image.shape[2] - width) // 2
        if self.crop and self.train:
            top, left = words[0] % (image.shape[1] - height + 1), words[1] % (image.shape[2] - width + 1)
        window = (slice(None), slice(top, top + height), slice(left, left + width))
        means = self._mean_values if self._mean_image is None else self._mean_image[window]
        if len(means) == 1:
            means = np.broadcast_to(means, (len(out), *means.shape[1:]))
        mirror = self.mirror and words[2] & 1
        # Plane by plane, so that a plane is still in the cache for the next step.
        for plane, target, mean in zip(_planes(image[window]), out, means, strict=True):
            np.copyto(target, plane)
            np.subtract(target, mean, out=target)
            if self.scale != 1:
                np.multiply(target, self.scale, out=target)
            if mirror:
                cv2.flip(target, 1, dst=target)


def _planes(image: np.ndarray) -> Sequence[np.ndarray]:
    """Return the channels of a C×H×W image. OpenCV splits a transposed H×W×C image faster than numpy."""
    if image.dtype == np.uint8 and image.shape[0] > 1 and image.strides[0] == 1:
        return cv2.split(image.transpose(1, 2, 0), list(np.empty(image.shape, np.uint8)))
    return list(image)


def _by(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape))
