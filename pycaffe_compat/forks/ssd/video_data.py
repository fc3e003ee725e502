"""VideoData of frames, as SSD's Caffe has it (weiliu89/caffe, video_data_layer.cpp)."""

from __future__ import annotations

from typing import Any

from ...data.batches import Reader
from ...data.frames import FrameReader
from ...data.transformer import Transformer
from ...layers.base import Shape
from ...layers.data_layers import OF_IMAGES, BatchSource, shapes_of_images
from ...layers.registry import register


@register("VideoData", fork=("ssd", "textboxes", "textboxes_plus", "faceboxes", "refinedet", "intel", "xilinx"))
class VideoFrames(BatchSource):
    """The frames of ``video_file`` (``video_type: VIDEO``) or of camera ``device_id`` (WEBCAM, the default); labels are 0.

    ``skip_frames`` leaves so many out before each. After the last frame of a file there is an error.
    """

    options = ("video_data_param", "data_param", "transform_param")
    fork_options = OF_IMAGES
    inert_options = frozenset({"prefetch"})
    transforms_bytes = True
    tops = (1, 2)

    @classmethod
    def fits(cls, param: Any) -> bool:
        return not param.video_data_param.source and not param.HasField("image_data_param")

    @classmethod
    def source(cls, param: Any) -> str:
        return param.video_data_param.video_file

    @classmethod
    def known_shapes(cls, param: Any, channels: int = 0) -> list[Shape] | None:
        return shapes_of_images(param.transform_param, param.data_param.batch_size, 3)

    def make_reader(self, param: Any) -> Reader:
        options = param.video_data_param
        size = self.batch_size(param.data_param)
        of_file = options.video_type == options.VIDEO
        if of_file and not options.video_file:
            raise self.error("video_data_param.video_type is VIDEO, but there is no video_file")
        source = options.video_file if of_file else options.device_id
        return FrameReader(source, Transformer(param.transform_param, self.phase), size, options.skip_frames)
