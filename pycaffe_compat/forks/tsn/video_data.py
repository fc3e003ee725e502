"""VideoData of snippets of videos, as the Caffe of temporal segment networks has it (yjxiong/caffe, video_data_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...data.clips import ClipReader, ClipTransform, Words, read_clips, read_frames, require_one_size
from ...data.draws import Order
from ...errors import prefixed
from ...layers.base import Shape
from ...layers.data_layers import BatchSource
from ...layers.label_map_data import warn_moved
from ...layers.registry import register
from ...proto import caffe_pb2

_OWN = ("modality", "num_segments", "name_pattern", "grayscale")
_PATTERNS = ("image_%04d.jpg", "flow_%c_%04d.jpg")


@register("VideoData", fork=("tsn", "person_search"))
class SegmentedVideoData(BatchSource):
    """``new_length`` frames from each of ``num_segments`` equal parts of videos: folders of images, listed as PATH FRAMES LABEL.

    All frames of a video stand behind each other as channels: BGR, or for FLOW the horizontal and the vertical image of
    each. The frames of a part begin at random in TRAIN and in its middle in TEST. In a video whose parts are shorter than
    ``new_length`` all parts begin with the first frame.
    """

    options = ("video_data_param", "transform_param")
    inert_options = frozenset(
        {"encoded", "rand_skip", "original_image", "stride", "upper_size", "upper_height", "upper_width"}
    )
    tops = (2, 2)

    @classmethod
    def fits(cls, param: Any) -> bool:
        return any(param.video_data_param.HasField(name) for name in _OWN)

    @classmethod
    def known_shapes(cls, param: Any, channels: int = 0) -> list[Shape] | None:
        options, crop = param.video_data_param, param.transform_param.crop_size
        size = (crop, crop) if crop else (options.new_height, options.new_width)
        planes = 2 if options.modality == options.FLOW else 1 if options.grayscale else 3
        n = options.batch_size
        return [(n, planes * options.new_length * options.num_segments, *size), (n, 1, 1, 1)] if min(size) else None

    def make_reader(self, param: Any) -> ClipReader:
        options = param.video_data_param
        size = self.batch_size(options)
        if not options.new_length or not options.num_segments:
            raise self.error(
                f"new_length is {options.new_length} and num_segments {options.num_segments}; both must be at least 1"
            )
        self._resized = (options.new_height, options.new_width) if options.new_height and options.new_width else None
        self._segments, self._length = options.num_segments, options.new_length
        self._flow, self._color = options.modality == options.FLOW, not options.grayscale
        self._pattern = options.name_pattern or _PATTERNS[self._flow]
        try:
            self._names(0)
        except (TypeError, ValueError) as error:
            wanted = "a %c for x and y and a number such as %04d" if self._flow else "one number such as %04d"
            raise self.error(
                f'video_data_param.name_pattern is "{self._pattern}"; it needs {wanted} ({error})'
            ) from None
        warn_moved(self, options, "video_data_param")
        with prefixed("video_data_param.source"):
            clips = read_clips(options.source, "PATH FRAMES LABEL")
        transform = ClipTransform(param.transform_param, self.phase, repeat_means=True)
        order = Order(len(clips), options.shuffle)
        return ClipReader(self._load, _label, clips, size, order, transform, self._segments)

    def _names(self, number: int) -> list[str]:
        """The file names of a frame."""
        return [self._pattern % (axis, number) for axis in "xy"] if self._flow else [self._pattern % number]

    def _load(self, words: Words, random: Sequence[int]) -> np.ndarray:
        folder, share = words[0], int(words[1]) // self._segments
        choices = share - self._length + 1
        paths = []
        for segment, word in enumerate(random):
            first = 0
            if choices > 0:
                chosen = word % choices if self.phase == caffe_pb2.TRAIN else choices // 2
                first = segment * share + chosen
            paths += [f"{folder}/{name}" for frame in range(self._length) for name in self._names(first + frame + 1)]
        frames = list(read_frames(paths, self._color and not self._flow, self._resized))
        planes = [frame[None] if frame.ndim == 2 else frame.transpose(2, 0, 1) for frame in frames]
        require_one_size(folder, planes)
        return np.concatenate(planes)


def _label(words: Words) -> np.ndarray:
    return np.full((1, 1, 1), int(words[2]), np.float32)
