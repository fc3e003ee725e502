"""What SSD's Caffe does to a picture and its boxes before ``transform_param`` does the rest.

The steps and their order are those of weiliu89/caffe, branch ssd (``annotated_data_layer.cpp``, ``data_transformer.cpp``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from ..errors import DataError
from .boxes import Boxes, Emit, clip
from .datum import decode_image
from .distortion import Distortion, Expansion
from .sampling import JitterSampler, WindowSampler


class Augmentation:
    """Other colours, a larger ground, and a window of all that: each only if the options ask for it.

    A picture that came encoded is stored as a JPEG and decoded again after each step, as in SSD's Caffe, which passes Datums
    from step to step. One that came raw keeps its colours.

    Args:
        transform: a ``TransformationParameter``.
        samplers: ``batch_sampler``.
        color: how an encoded picture is decoded, as in :func:`.datum.decode_image`.
        sampler: what chooses a window instead of ``samplers``.
        least: that of :class:`.boxes.Emit`.

    Attributes:
        emit: which boxes a window keeps; None for all.
        distorts: whether the colours of encoded pictures are changed.
        draws: how many random numbers a picture needs.

    Raises:
        DataError: options that make no sense.
    """

    def __init__(
        self,
        transform: Any,
        samplers: Sequence[Any],
        color: bool | None,
        sampler: JitterSampler | WindowSampler | None = None,
        least: float = 0,
    ) -> None:
        self._color = color
        self._distortion = Distortion(transform.distort_param) if transform.HasField("distort_param") else None
        self._expansion = None
        if transform.HasField("expand_param"):
            if transform.HasField("mean_file"):
                raise DataError(
                    "transform_param: expand_param does not work with mean_file, whose size is fixed; give mean_value"
                )
            self._expansion = Expansion(transform.expand_param, transform.mean_value)
        self.emit = Emit(transform.emit_constraint, least) if transform.HasField("emit_constraint") else None
        self._sampler = WindowSampler(samplers) if samplers else sampler
        self.distorts = self._distortion is not None
        self.draws = (
            (Distortion.DRAWS if self._distortion else 0)
            + (Expansion.DRAWS if self._expansion else 0)
            + (self._sampler.draws if self._sampler else 0)
        )

    def __call__(self, picture: np.ndarray, boxes: Boxes, drawn: np.ndarray, encoded: bool) -> tuple[np.ndarray, Boxes]:
        """Return a picture and its boxes, changed.

        Args:
            picture: H×W or H×W×C, ``uint8``.
            boxes: of the objects in it.
            drawn: :attr:`draws` random numbers from 0 to 1.
            encoded: whether the picture came so.

        Raises:
            DataError: an option does not fit the picture.
        """
        drawn, rest = np.split(drawn, [Distortion.DRAWS if self._distortion else 0])
        if self._distortion is not None and encoded:
            picture = self._stored(self._distortion(picture, drawn.tolist()))
        drawn, rest = np.split(rest, [Expansion.DRAWS if self._expansion else 0])
        if self._expansion is not None:
            before = picture.shape[:2]
            picture, window = self._expansion(picture, drawn.tolist(), encoded)
            if window is not None:
                picture = self._stored(picture) if encoded else picture
                boxes = boxes.within(window, self.emit, size=before)
        before = picture.shape[:2]
        if self._sampler is not None and (window := self._sampler(boxes, rest, before)) is not None:
            window = clip(window)
            picture = _cut(picture, window)
            picture = self._stored(picture) if encoded else picture
            boxes = boxes.within(window, self.emit, size=before)
        return picture, boxes

    def _stored(self, picture: np.ndarray) -> np.ndarray:
        """Return a picture after it was stored as a JPEG."""
        try:
            data = cv2.imencode(".jpg", picture)[1]
        except cv2.error as error:
            raise DataError(f"cannot be stored as a JPEG after it was changed: {error.err or error}") from error
        return decode_image(data.tobytes(), self._color)


def _cut(picture: np.ndarray, window: np.ndarray) -> np.ndarray:
    """Return what lies in a window: left, top, right, bottom as fractions; at least one pixel."""
    rows, columns = picture.shape[:2]
    left, top, right, bottom = window * np.array([columns, rows, columns, rows], np.float32)
    x, y = min(int(left), columns - 1), min(int(top), rows - 1)
    return picture[y : y + max(int(bottom - top), 1), x : x + max(int(right - left), 1)]
