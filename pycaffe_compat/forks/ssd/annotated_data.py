"""AnnotatedData, as SSD's Caffe has it (weiliu89/caffe, annotated_data_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...data.annotated import COLUMNS, AnnotatedReader
from ...data.augmentation import Augmentation
from ...data.batches import Reader
from ...data.transformer import Transformer
from ...layers.base import Shape
from ...layers.data_layers import OF_IMAGES, DatabaseSource, shapes_of_images
from ...layers.registry import register


@register("AnnotatedData", fork=("ssd", "ssd_focal", "textboxes", "refinedet", "nvidia", "intel", "openvino", "xilinx"))
class AnnotatedData(DatabaseSource):
    """Images and their objects' boxes from an LMDB of AnnotatedDatums, in key order, again and again.

    The second top is 1×1×N×8, with a row for each box: the number of the picture in the batch, class, number of the object in
    its class, left, top, right, bottom, difficult. What is random has SSD's distributions, not the numbers of its generator.
    """

    options = ("annotated_data_param", "data_param", "transform_param")
    fork_options = OF_IMAGES | {
        f"transform_param.{name}" for name in ("distort_param", "expand_param", "emit_constraint")
    }
    inert_options = frozenset({"label_map_file", "prefetch", "rand_skip"})

    @classmethod
    def source(cls, param: Any) -> str:
        return param.data_param.source

    @classmethod
    def known_shapes(cls, param: Any, channels: int = 0) -> list[Shape] | None:
        """As if each batch had one box: how many there are, only the database tells."""
        shapes = shapes_of_images(param.transform_param, param.data_param.batch_size, channels)
        return shapes and [shapes[0], (1, 1, 1, COLUMNS)]

    def augmentation(self, transform: Any, samplers: Sequence[Any], color: bool | None) -> Augmentation:
        """What is done to pictures and boxes first."""
        return Augmentation(transform, samplers, color)

    def open(self, param: Any, transformer: Transformer, batch_size: int, color: bool | None) -> Reader:
        options = param.annotated_data_param
        augmentation = self.augmentation(param.transform_param, options.batch_sampler, color)
        return AnnotatedReader(
            param.data_param.source, transformer, batch_size, color, augmentation, options.HasField("anno_type")
        )
