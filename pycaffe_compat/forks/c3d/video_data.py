"""VideoData of clips, as C3D 1.1 has it (facebookarchive/C3D, video_data_layer.cpp and image_io.cpp)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from ...data.clips import (
    LIMIT,
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
from ...layers.label_map_data import warn_moved
from ...layers.registry import register
from ...proto import caffe_pb2

log = logging.getLogger(__name__)


@register("VideoData", fork="c3d")
class VideoData(BatchSource):
    """Clips of ``new_length`` frames, N×3×L×H×W, of the videos of a list PATH START LABEL.

    ``use_image`` takes folders of images, 000001.jpg and so on, for videos. ``sampling_rate`` takes every so manieth frame,
    ``use_sampling_rate_jitter`` a random rate up to ``max_sampling_rate``. ``use_temporal_jitter`` begins at a random frame;
    then the list has PATH LABEL, or PATH FRAMES LABEL for folders. ``use_multiple_label`` takes labels with commas between
    them, and the second top is N×``num_of_labels``, 1 at the labels. In TRAIN a video that is too short is replaced by the
    next.
    """

    options: ClassVar[tuple[str, ...] | None] = ("video_data_param", "transform_param")
    inert_options = frozenset({"show_data", "is_color"})
    tops = (2, 2)
    all_places: ClassVar[bool] = True

    @classmethod
    def fits(cls, param: Any) -> bool:
        return param.HasField("video_data_param")

    @classmethod
    def known_shapes(cls, param: Any, channels: int = 0) -> list[Shape] | None:
        options, crop = param.video_data_param, param.transform_param.crop_size
        size = (crop, crop) if crop else (options.new_height, options.new_width)
        n = options.batch_size
        labels = (n, options.num_of_labels) if options.use_multiple_label else (n,)
        return [(n, 3, options.new_length, *size), labels] if min(size) and options.new_length else None

    def make_reader(self, param: Any) -> ClipReader:
        options = param.video_data_param
        size = self.batch_size(options)
        if not options.new_length or not options.sampling_rate:
            raise self.error(
                f"new_length is {options.new_length} and sampling_rate {options.sampling_rate}; both must be at least 1"
            )
        if options.use_multiple_label and not options.HasField("num_of_labels"):
            raise self.error("use_multiple_label needs num_of_labels")
        self._resized = self.size_option(options)
        self._length, self._rate, self._root = options.new_length, options.sampling_rate, options.root_folder
        self._rates = options.max_sampling_rate if options.use_sampling_rate_jitter else 0
        self._folders, self._jitter = options.use_image, options.use_temporal_jitter
        self._labels = options.num_of_labels if options.use_multiple_label else 0
        warn_moved(self, options, "video_data_param")
        if not options.is_color:
            log.warning('layer "%s" (VideoData): is_color has no effect; clips have 3 channels', self.name)
        second = "" if self._jitter and not self._folders else "FRAMES " if self._jitter else "START "
        field = self.option_fields()[0]
        with prefixed(f"{field}.source"):
            clips = read_clips(options.source, f"PATH {second}{'LABELS' if self._labels else 'LABEL'}")
        order = Order.of_list(len(clips), options, field, f"videos of {options.source}")
        transform = ClipTransform(param.transform_param, self.phase, repeat_means=False, all_places=self.all_places)
        self._told = False
        replace = self._tell if self.phase == caffe_pb2.TRAIN else None
        return ClipReader(self._load, self._label, clips, size, order, transform, 2, replace)

    def _tell(self, error: DataError) -> None:
        """Warn, of the first video only, that another one is taken for it."""
        if not self._told:
            self._told = True
            log.warning('layer "%s" (VideoData): %s; the next one of the list is taken', self.name, error)

    def _load(self, words: Words, random: Sequence[int]) -> np.ndarray:
        rate = random[1] % self._rates + 1 if self._rates else self._rate
        path, span = self._root + words[0], self._length * rate
        training = self.phase == caffe_pb2.TRAIN
        if self._folders:
            first = int(words[1])
            if self._jitter:
                choices = first - span + 1
                self._need(path, first, span)
                first = random[0] % choices + 1 if training else 0
            numbers = range(first, first + span, rate)
            frames = list(read_frames([f"{path}/{number:06d}.jpg" for number in numbers], True, self._resized))
        else:
            have = video_length(path)
            first = 0 if self._jitter else int(words[1])
            if first < 0:
                raise DataError(f"video {path}: begins at frame {first}; frames are numbered from 0")
            self._need(path, have, first + span)
            if self._jitter:
                first = random[0] % (have - span + 1)
            frames = list(read_video(path, range(first, first + span, rate), self._resized))
        require_one_size(path, frames)
        return np.stack(frames).transpose(3, 0, 1, 2)

    def _need(self, path: str, have: int, frames: int) -> None:
        if have < frames:
            raise DataError(f"video {path} {LIMIT}: it has {have} frames, and the clip needs {frames}")

    def _label(self, words: Words) -> np.ndarray:
        labels = [int(label) for label in words[-1].split(",")]
        if not self._labels:
            return np.array(labels[0], np.float32)
        if not all(0 <= label < self._labels for label in labels):
            raise DataError(f"video {words[0]}: has labels {words[-1]}, but num_of_labels is {self._labels}")
        made = np.zeros(self._labels, np.float32)
        made[labels] = 1
        return made
