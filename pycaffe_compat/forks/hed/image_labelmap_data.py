"""ImageLabelmapData, as the Caffe of holistically nested edges has it (s9xie/hed, image_labelmap_data_layer.cpp)."""

from __future__ import annotations

from typing import Any

from ...data.label_maps import Changes, LabelMapReader, PairFiles, Sample, Words
from ...layers.label_map_data import LabelMapSource
from ...layers.registry import register


@register("ImageLabelmapData", fork=("hed", "rcf"))
class ImageLabelmapData(LabelMapSource):
    """Images and edge maps of a list of lines ``IMAGE LABELMAP``, cropped and mirrored together; edges are 1, the rest 0.

    What is at least 128 of 255 in a map counts as an edge. Crops are random in both phases.
    """

    options = ("image_data_param", "transform_param")
    tops = (2, 2)

    def make_reader(self, param: Any) -> LabelMapReader:
        options, transform = param.image_data_param, param.transform_param
        size = self.size_option(options)
        files = PairFiles(options.root_folder, options.is_color, size, size, nearest=False)

        def edges(words: Words) -> Sample:
            sample = files.both(words)
            return sample._replace(labels=(sample.labels >= 128).astype(sample.labels.dtype))

        load = edges if self.is_binary(param) else files.both
        changes = Changes(crop=self.crop_of(param), mirror=transform.mirror)
        return self.read(param, "IMAGE LABELMAP", load, changes)

    @classmethod
    def is_binary(cls, param: Any) -> bool:
        """Whether labels become 0 and 1."""
        return True
