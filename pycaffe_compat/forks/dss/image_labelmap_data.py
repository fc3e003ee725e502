"""ImageLabelmapData of salient objects, as DSS's Caffe has it (Andrew-Qibin/caffe_dss, image_labelmap_data_layer.cpp)."""

from __future__ import annotations

from typing import Any

from ...layers.registry import register
from ..hed.image_labelmap_data import ImageLabelmapData


@register("ImageLabelmapData", fork="dss")
class SaliencyData(ImageLabelmapData):
    """Images and label maps of a list of lines ``IMAGE LABELMAP``, cropped and mirrored together.

    Labels are the values of the maps, or with ``normalize`` 1 for what is at least 128 of 255 and 0 for the rest.
    """

    @classmethod
    def fits(cls, param: Any) -> bool:
        return param.image_data_param.HasField("normalize")

    @classmethod
    def is_binary(cls, param: Any) -> bool:
        return param.image_data_param.normalize
