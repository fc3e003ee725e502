"""VideoData of clips, as C3D 1.0 has it (facebookarchive/C3D, C3D-v1.0, video_data_layer.cpp)."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...data.clips import ClipReader, Words
from ...layers.base import Shape
from ...layers.registry import register
from ..c3d.video_data import VideoData

_TO_VIDEO = (
    *("source", "batch_size", "rand_skip", "shuffle", "new_height", "new_width", "new_length"),
    *("use_image", "use_temporal_jitter", "sampling_rate"),
)
_TO_TRANSFORM = ("crop_size", "mirror", "scale", "mean_file")


@register("VideoData", fork="c3d_v10")
class OldVideoData(VideoData):
    """Clips as in C3D 1.1's layer, with all options in ``image_data_param``, including crop, mirror, scale and mean.

    Labels are N×1×1×1×1. ``mean_value`` is one number.
    """

    options = ("image_data_param",)
    inert_options = frozenset(
        {
            "show_data",
            "use_label",
            "num_truth_channels",
            "use_byte_input",
            "is_flow",
            "truth_scale",
            "clip_min",
            "clip_max",
        }
    )
    tops = (1, 2)
    all_places = False

    @classmethod
    def fits(cls, param: Any) -> bool:
        return param.HasField("image_data_param")

    @classmethod
    def known_shapes(cls, param: Any, channels: int = 0) -> list[Shape] | None:
        shapes = super().known_shapes(_newer(param))
        return shapes and [shapes[0], (*shapes[1], 1, 1, 1, 1)]

    def make_reader(self, param: Any) -> ClipReader:
        options = param.image_data_param
        if options.mirror and not options.crop_size:
            raise self.error("image_data_param.mirror needs crop_size")
        if options.sampling_rate < 1:
            raise self.error(f"image_data_param.sampling_rate is {options.sampling_rate}; it must be at least 1")
        return super().make_reader(_newer(param))

    def _label(self, words: Words) -> np.ndarray:
        return super()._label(words).reshape(1, 1, 1, 1)


def _newer(param: Any) -> Any:
    """Return the layer with its options where C3D 1.1 has them."""
    made = type(param)(name=param.name, top=param.top, phase=param.phase)
    options = param.image_data_param
    for fields, target in ((_TO_VIDEO, made.video_data_param), (_TO_TRANSFORM, made.transform_param)):
        for name in fields:
            if options.HasField(name):
                setattr(target, name, getattr(options, name))
    made.video_data_param.batch_size = options.batch_size
    if options.HasField("mean_value") and not options.mean_file:
        made.transform_param.mean_value.append(options.mean_value)
    return made
