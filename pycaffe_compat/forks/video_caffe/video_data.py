"""VideoData of clips, as Video-caffe has it (chuckcho/video-caffe, video_data_layer.cpp, and ReadVideoToCVMat in io.cpp)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from ...data.clips import (
    ClipReader,
    ClipTransform,
    Words,
    read_clips,
    read_frames,
    read_video,
    require_one_size,
    video_length,
)
from ...data.draws import Order
from ...errors import DataError, prefixed
from ...layers.base import Shape
from ...layers.data_layers import BatchSource
from ...layers.registry import register


@register("VideoData", fork="video_caffe")
class ClipData(BatchSource):
    """Clips of ``new_length`` frames, N×C×L×H×W, of the videos of a list PATH START LABEL, whose frames are counted from 1.

    A video is a file or a folder of images, image_0001.jpg and so on. ``is_color: false`` makes clips of one channel.
    """

    options = ("video_data_param", "transform_param")
    tops = (2, 2)

    @classmethod
    def fits(cls, param: Any) -> bool:
        return param.HasField("video_data_param")

    @classmethod
    def known_shapes(cls, param: Any, channels: int = 0) -> list[Shape] | None:
        options, crop = param.video_data_param, param.transform_param.crop_size
        size = (crop, crop) if crop else (options.new_height, options.new_width)
        planes = 3 if options.is_color else 1
        return [(options.batch_size, planes, options.new_length, *size), (options.batch_size,)] if min(size) else None

    def make_reader(self, param: Any) -> ClipReader:
        options = param.video_data_param
        size = self.batch_size(options)
        if not options.new_length:
            raise self.error("new_length is 0; it must be at least 1")
        self._resized = self.size_option(options)
        self._length, self._root, self._color = options.new_length, options.root_folder, options.is_color
        with prefixed("video_data_param.source"):
            clips = read_clips(options.source, "PATH START LABEL")
        order = Order.of_list(len(clips), options, "video_data_param", f"videos of {options.source}")
        transform = ClipTransform(param.transform_param, self.phase, repeat_means=False)
        return ClipReader(self._load, _label, clips, size, order, transform, 0)

    def _load(self, words: Words, random: Sequence[int]) -> np.ndarray:
        path, first = self._root + words[0], int(words[1])
        if first < 1:
            raise DataError(f"video {path}: begins at frame {first}; frames are counted from 1")
        if os.path.isdir(path):
            names = [f"{path}/image_{first + step:04d}.jpg" for step in range(self._length)]
            frames = list(read_frames(names, self._color, self._resized))
        else:
            have = video_length(path)
            if have < first + self._length - 1:
                raise DataError(f"video {path}: has {have} frames, but the clip needs {first + self._length - 1}")
            frames = list(read_video(path, range(first - 1, first - 1 + self._length), self._resized))
            if not self._color:
                frames = [cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY) for frame in frames]
        require_one_size(path, frames)
        clip = np.stack(frames)
        return clip[None] if clip.ndim == 3 else clip.transpose(3, 0, 1, 2)


def _label(words: Words) -> np.ndarray:
    return np.array(int(words[2]), np.float32)
