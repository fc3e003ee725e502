"""Batches of the frames of a video file, or of a camera."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from ..errors import DataError, require_file
from .batches import ImageReader, Shard
from .transformer import Transformer

Frame = tuple[int, np.ndarray]


class FrameReader(ImageReader):
    """Batches of frames, in order, with label 0.

    Args:
        source: the path of a video file, or the number of a camera.
        transformer: what is done to the frames.
        batch_size: frames per batch.
        skip: how many frames are left out before each one.

    Raises:
        MissingFileError, DataError: the video is missing, or has no frames that OpenCV can read; or, where a batch is begun,
            it has ended.
    """

    def __init__(self, source: str | int, transformer: Transformer, batch_size: int, skip: int) -> None:
        super().__init__(transformer, batch_size)
        self._source, self._step = source, skip + 1
        self._video: Any = None
        self._next = 0  # the frame that the open video reads next

    def fetch(self, shard: Shard, position: int) -> Frame:
        wanted = position if isinstance(self._source, int) else (position + 1) * self._step - 1
        if self._video is None or (wanted < self._next and not isinstance(self._source, int)):
            self._open()
        for _ in range(self._step - 1 if isinstance(self._source, int) else wanted - self._next):
            self._video.grab()
        found, frame = self._video.read()
        if not found:
            have = int(self._video.get(cv2.CAP_PROP_FRAME_COUNT))
            where = f": it has {have} frames" if not isinstance(self._source, int) and have > 0 else ""
            raise DataError(f"{self._words()} has ended before frame {wanted}{where}")
        self._next = wanted + 1
        return wanted, frame

    def _open(self) -> None:
        if isinstance(self._source, str):
            require_file(self._source, "video")
        if self._video is not None:
            self._video.release()
        self._video, self._next = cv2.VideoCapture(self._source), 0
        if not self._video.isOpened():
            raise DataError(f"{self._words()} cannot be opened by OpenCV")

    def prepare(self, item: Frame, words: Sequence[int] = ()) -> tuple[np.ndarray, Any]:
        return self._transformer.prepared(item[1].transpose(2, 0, 1), words), 0

    def name(self, item: Frame) -> str:
        return f"frame {item[0]} of {self._words()}"

    def _words(self) -> str:
        return f"camera {self._source}" if isinstance(self._source, int) else f"video {self._source}"
