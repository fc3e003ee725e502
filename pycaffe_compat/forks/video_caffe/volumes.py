"""Layers of volumes, as Video-caffe has them (chuckcho/video-caffe, cudnn_ndconv_layer.cpp, cudnn_ndpooling_layer.cpp)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...errors import LayerError
from ...layers.base import Shape
from ...layers.convolution import Convolution
from ...layers.pooling import Pooling
from ...layers.registry import register

_OF_CONVOLUTION = {"kernel_shape": "kernel_size", "stride_shape": "stride", "pad_shape": "pad"}
_OF_POOLING = {"kernel_shape": "kernel_size_3d", "stride_shape": "stride_3d", "pad_shape": "pad_3d"}


def _spelt(param: Any, field: str, names: Mapping[str, str]) -> Any:
    """Return the layer with the sizes in its options ``field`` under the ``names`` that other layers read.

    Raises:
        LayerError: there is no ``kernel_shape``, or the others do not have as many sizes.
    """
    copy = type(param)()
    copy.CopyFrom(param)
    options = getattr(copy, field)
    where = f'layer "{param.name}" ({param.type}): {field}'
    if not options.HasField("kernel_shape"):
        raise LayerError(f"{where} has no kernel_shape; give it, such as kernel_shape {{ dim: 3 dim: 3 dim: 3 }}")
    axes = len(options.kernel_shape.dim)
    for name, other in names.items():
        sizes = list(getattr(options, name).dim)
        if options.HasField(name) and len(sizes) != axes:
            raise LayerError(f"{where}.{name} has {len(sizes)} sizes, but kernel_shape {axes}")
        if getattr(options, "global_pooling", False) and name == "kernel_shape":
            sizes = []  # the bottom's
        getattr(options, other).extend(sizes)
    return copy


@register("NdConvolution", fork="video_caffe")
class NdConvolution(Convolution):
    """Convolution over several axes: ``kernel_shape``, ``stride_shape`` and ``pad_shape`` have a size for each."""

    options = ("convolution_param",)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(_spelt(param, "convolution_param", _OF_CONVOLUTION), bottom_shapes)


@register("NdPooling", fork="video_caffe")
class NdPooling(Pooling):
    """Pooling over several axes: ``kernel_shape``, ``stride_shape`` and ``pad_shape`` have a size for each."""

    options = ("pooling_param",)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(_spelt(param, "pooling_param", _OF_POOLING), bottom_shapes)
