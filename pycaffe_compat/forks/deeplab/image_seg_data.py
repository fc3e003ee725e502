"""ImageSegData, as DeepLab's Caffe has it (xmyqsh/deeplab-v2, image_seg_data_layer.cpp and data_transformer.cpp)."""

from __future__ import annotations

from typing import Any

from ...data.label_maps import Size
from ...errors import DataError
from ...layers.label_map_data import SegmentationSource
from ...layers.registry import register


@register("ImageSegData", fork=("deeplab", "deeplab_v1", "pspnet"))
class ImageSegData(SegmentationSource):
    """Images and label maps of a list, cropped and mirrored together; a third top has the images' sizes.

    ``label_type`` says what a line has beside the image: the path of a label map (PIXEL), one label (IMAGE), or nothing.
    ``scale_factors`` resize both by one of the factors, drawn for each image. With ``new_height`` and ``new_width`` label
    maps are interpolated like images, as in the fork, which makes labels between those of neighbouring classes.
    """

    inert_options = frozenset({"has_label", "max_labels"})
    nearest = False

    @classmethod
    def crop_of(cls, param: Any) -> Size | None:
        transform = param.transform_param
        height, width = transform.crop_height, transform.crop_width
        if not height and not width:
            return super().crop_of(param)
        if transform.crop_size or not height or not width:
            raise DataError(
                f"transform_param: crop_size is {transform.crop_size}, crop_height {height} and crop_width {width}; give "
                "crop_size, or both of the others"
            )
        return height, width
