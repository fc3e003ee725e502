"""DenseImageData, as SegNet's Caffe has it (alexgkendall/caffe-segnet, dense_image_data_layer.cpp), and ENet's addition."""

from __future__ import annotations

from typing import Any

from ...data.label_maps import Changes, LabelMapReader, PairFiles, Size
from ...layers.label_map_data import LabelMapSource
from ...layers.registry import register


@register("DenseImageData", fork=("segnet", "enet"))
class DenseImageData(LabelMapSource):
    """Images and label maps of a list of lines ``IMAGE LABELMAP``, cropped and mirrored together.

    ``crop_height`` and ``crop_width`` crop at random in both phases. A mean image is as large as the crop.
    ``label_divide_factor`` (ENet) makes label maps smaller than images by that factor.
    """

    options = ("dense_image_data_param", "transform_param")
    inert_options = frozenset({"mean_file"})  # the fork reads only that of transform_param
    tops = (2, 2)

    @classmethod
    def crop_of(cls, param: Any) -> Size | None:
        options = param.dense_image_data_param
        return (options.crop_height, options.crop_width) if options.crop_height and options.crop_width else None

    @classmethod
    def label_size(cls, param: Any, size: Size) -> Size:
        factor = max(param.dense_image_data_param.label_divide_factor, 1)
        return size[0] // factor, size[1] // factor

    def make_reader(self, param: Any) -> LabelMapReader:
        options, transform = param.dense_image_data_param, param.transform_param
        if transform.mirror or transform.crop_size:
            raise self.error(
                "transform_param.mirror and crop_size would change only the image; give mirror, crop_height and crop_width "
                "in dense_image_data_param"
            )
        crop = self.crop_of(param)
        if crop is None and (options.crop_height or options.crop_width):
            raise self.error(
                f"crop_height is {options.crop_height} and crop_width {options.crop_width}; set both, or neither"
            )
        size = self.size_option(options)
        factor = options.label_divide_factor
        if factor != 1 and (not factor or size is None or crop is not None or min(self.label_size(param, size)) < 1):
            raise self.error(
                f"label_divide_factor is {factor}; it must be at least 1, and a factor above 1 needs new_height and new_width of "
                "at least that much, without a crop"
            )
        files = PairFiles(options.root_folder, options.is_color, size, size and self.label_size(param, size))
        changes = Changes(crop=crop, mirror=options.mirror, mean_of_crop=True)
        return self.read(param, "IMAGE LABELMAP", files.both, changes)
