"""Reading a classification net as the chain of units that a decoder can mirror."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import NetError, nearest
from ..proto import caffe_pb2
from .blocks import Shape

LOSSES = ("SoftmaxWithLoss", "HingeLoss", "InfogainLoss", "MultinomialLogisticLoss", "SigmoidCrossEntropyLoss")
HEADS = frozenset(
    (*LOSSES, "EuclideanLoss", "ContrastiveLoss", "Softmax", "Accuracy", "ArgMax", "Silence", "HDF5Output")
)


@dataclass
class Unit:
    """A weight layer of the encoder with what follows it, up to the next weight layer.

    Attributes:
        layer: the Convolution or InnerProduct.
        bottom: the blob that it reads, and its shape without the batch.
        output: the blob that holds its (rectified) output, and its shape.
        rectified: whether a ReLU follows.
        pool: the max pooling that follows, or None.
        top: the blob that ends the unit: the pooled one where there is a pooling.
        last: the index, in the net, of the unit's last layer (dropout left out).
    """

    layer: Any
    bottom: str
    bottom_shape: Shape
    output: str
    output_shape: Shape
    last: int
    rectified: bool = False
    pool: Any = None
    top_shape: Shape = ()

    @property
    def name(self) -> str:
        return self.layer.name

    @property
    def top(self) -> str:
        return self.pool.top[0] if self.pool is not None else self.output


def pair(values: Sequence[int], h: int, w: int, default: int) -> tuple[int, int]:
    """Return a window option as ``(h, w)``, whether it was given once, twice, by ``_h`` and ``_w``, or not at all."""
    if h or w:
        return h, w
    if not values:
        return default, default
    return (values[0], values[-1])


def conv_window(layer: Any) -> tuple[tuple[int, int], ...]:
    """Return kernel, stride, pad and dilation of a 2-d (de)convolution, each as ``(h, w)``."""
    p = layer.convolution_param
    return (
        pair(p.kernel_size, p.kernel_h, p.kernel_w, 0),
        pair(p.stride, p.stride_h, p.stride_w, 1),
        pair(p.pad, p.pad_h, p.pad_w, 0),
        pair(p.dilation, 0, 0, 1),
    )


def pool_window(layer: Any) -> tuple[tuple[int, int], ...]:
    """Return kernel, stride and pad of a pooling, each as ``(h, w)``."""
    p = layer.pooling_param
    return (
        pair([p.kernel_size] if p.kernel_size else [], p.kernel_h, p.kernel_w, 0),
        pair([p.stride] if p.HasField("stride") else [], p.stride_h, p.stride_w, 1),
        pair([p.pad] if p.pad else [], p.pad_h, p.pad_w, 0),
    )


def image_shape(net: Any, image: str = "data") -> Shape:
    """Return the shape, without the batch, of the blob that holds the images, from the net's Input or Data layer.

    Raises:
        NetError: the net does not say (a Data layer without ``crop_size``, say).
    """
    for number, name in enumerate(net.input):
        if name == image:
            dims = net.input_shape[number].dim if net.input_shape else net.input_dim[4 * number : 4 * number + 4]
            return tuple(dims)[1:]
    for layer in net.layer:
        if image not in layer.top or layer.bottom:
            continue
        index = list(layer.top).index(image)
        shapes = layer.input_param.shape or layer.dummy_data_param.shape
        if shapes:
            return tuple(shapes[index if len(shapes) > 1 else 0].dim)[1:]
        transform = layer.transform_param
        channels = 1 if transform.force_gray else len(transform.mean_value)
        if transform.crop_size and (channels > 1 or transform.force_gray):
            return (channels, transform.crop_size, transform.crop_size)
        raise NetError(
            f'layer "{layer.name}" ({layer.type}) does not say the shape of "{image}" (crop_size and mean_value '
            "would): pass the shape of one image, image_shape=(channels, height, width) or --image-shape C H W"
        )
    made = [*net.input, *(top for layer in net.layer if not layer.bottom for top in layer.top)]
    raise NetError(
        f'no Input or data layer of the net makes the blob "{image}"{nearest(image, made)}; they make '
        f"{', '.join(dict.fromkeys(made)) or 'none'}: say which holds the images, image=NAME or --image NAME"
    )


def read_encoder(net: Any, image: str = "data", shape: Shape | None = None) -> list[Unit]:
    """Return the chain of units that starts at the blob ``image``, bottom up.

    A unit is a Convolution or InnerProduct with its ReLU and its max pooling; Dropout is passed over. The chain ends
    where a loss, an accuracy or nothing follows.

    Args:
        net: an upgraded ``NetParameter``.
        image: the blob that holds the images.
        shape: (channels, height, width) of one image; by default the net says.

    Raises:
        NetError: the chain branches, or holds a layer that has no mirror image.
    """
    taken = [layer.name for layer in net.layer if layer.name.startswith("dec:")]
    if taken:
        raise NetError(f'the net is augmented already: it has the layer "{taken[0]}"')
    units: list[Unit] = []
    blob, size = image, tuple(image_shape(net, image) if shape is None else shape)
    if not size or min(size) < 1:
        raise NetError(
            f"an image of shape {size} (channels, height, width) holds nothing: its numbers must be positive"
        )
    start = 0
    while True:
        readers = [
            (i, layer)
            for i, layer in enumerate(net.layer)
            if i >= start and blob in layer.bottom and layer.type not in HEADS
        ]
        if not readers:
            return units
        index, layer = readers[0]
        in_place = blob in layer.top
        if len(readers) > 1 and not in_place:
            names = ", ".join(f'"{other.name}"' for _, other in readers)
            raise NetError(f'a decoder mirrors a chain, but the net branches at the blob "{blob}": {names} read it')
        unit = units[-1] if units else None
        if layer.type in ("Convolution", "InnerProduct"):
            output = layer.top[0]
            out = _weighted_shape(layer, size)
            units.append(Unit(layer, blob, size, output, out, index, top_shape=out))
            size = out
        elif layer.type == "ReLU" and unit is not None and unit.pool is None:
            unit.rectified, unit.output, unit.last = True, layer.top[0], index
        elif layer.type == "Pooling" and unit is not None and unit.pool is None and _mirrored(layer.pooling_param):
            size = _pooled_shape(layer, size)
            unit.pool, unit.last, unit.top_shape = layer, index, size
        elif layer.type != "Dropout":
            raise NetError(
                f'layer "{layer.name}" ({layer.type}) has no mirror image here: a decoder mirrors Convolution and '
                "InnerProduct, each with at most a ReLU and then a max pooling after it; Dropout is passed over"
            )
        blob, start = layer.top[0], index + 1


def _mirrored(pooling: Any) -> bool:
    """Whether a pooling has a mirror image: max pooling over windows of a known size."""
    return pooling.pool == caffe_pb2.PoolingParameter.MAX and not pooling.global_pooling


def _weighted_shape(layer: Any, size: Shape) -> Shape:
    if layer.type == "InnerProduct":
        return (layer.inner_product_param.num_output,)
    if len(size) != 3:
        raise NetError(
            f'layer "{layer.name}" ({layer.type}): a decoder mirrors 2-d convolutions; the bottom has shape {size}'
        )
    out = [
        (n + 2 * p - (d * (k - 1) + 1)) // s + 1 for n, k, s, p, d in zip(size[1:], *conv_window(layer), strict=True)
    ]
    return (layer.convolution_param.num_output, *out)


def _pooled_shape(layer: Any, size: Shape) -> Shape:
    floor = layer.pooling_param.round_mode == caffe_pb2.PoolingParameter.FLOOR
    out = []
    for n, k, s, p in zip(size[1:], *pool_window(layer), strict=True):
        steps = (n + 2 * p - k) / s
        pooled = (math.floor(steps) if floor else math.ceil(steps)) + 1
        out.append(pooled - 1 if p and (pooled - 1) * s >= n + p else pooled)
    return (size[0], *out)
