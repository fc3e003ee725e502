"""Reading a classification net as the chain of units that a decoder can mirror."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..errors import NetError, nearest
from ..layers import REGISTRY, Source
from ..layers.making import infer_shapes, make_layer
from ..proto import caffe_pb2, upgrade_net
from ..tables import dims
from .blocks import Shape


@dataclass
class Unit:
    """A weight layer of the encoder with what follows it, up to the next weight layer.

    Attributes:
        layer: the Convolution or InnerProduct, and the same built, with its geometry as attributes.
        bottom: the blob that it reads, and its shape without the batch.
        output: the blob that holds its (rectified) output, and its shape.
        rectified: whether a ReLU follows.
        pool: the max pooling that follows, and the same built; or None.
        top: the blob that ends the unit: the pooled one where there is a pooling.
        last: the index, in the net, of the unit's last layer (dropout left out).
    """

    layer: Any
    built: Any
    bottom: str
    bottom_shape: Shape
    output: str
    output_shape: Shape
    last: int
    rectified: bool = False
    pool: Any = None
    built_pool: Any = None
    top_shape: Shape = ()

    @property
    def name(self) -> str:
        return self.layer.name

    @property
    def top(self) -> str:
        return self.pool.top[0] if self.pool is not None else self.output


def is_head(layer: Any) -> bool:
    """Whether a net ends in this ``LayerParameter``: a loss, an accuracy, a layer that writes files."""
    cls = REGISTRY.get(layer.type)
    return cls is not None and cls.head


def image_shape(net: Any, image: str = "data") -> Shape:
    """Return the shape, without the batch, of the blob that holds the images, from the net's Input or data layer.

    Raises:
        NetError: the net does not say (a Data layer without ``crop_size``, for example).
    """
    upgraded = caffe_pb2.NetParameter()
    upgraded.CopyFrom(net)
    upgrade_net(upgraded)
    for layer in upgraded.layer:
        if image not in layer.top or layer.bottom:
            continue
        cls = REGISTRY.get(layer.type)
        shapes = cls.known_shapes(layer) if cls is not None and issubclass(cls, Source) else None
        index = list(layer.top).index(image)
        if shapes is not None and index < len(shapes) and len(shapes[index]) > 1:
            return shapes[index][1:]
        raise NetError(
            f'layer "{layer.name}" ({layer.type}) does not give the shape of "{image}" (crop_size and mean_value '
            "would): pass the shape of one image, image_shape=(channels, height, width) or --image-shape C H W"
        )
    made = [top for layer in upgraded.layer if not layer.bottom for top in layer.top]
    raise NetError(
        f'no Input or data layer of the net makes the blob "{image}"{nearest(image, made)}; they make '
        f"{', '.join(dict.fromkeys(made)) or 'none'}: name the blob of images with image=NAME or --image NAME"
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
        raise NetError(f'the net already has a decoder: it has the layer "{taken[0]}"')
    units: list[Unit] = []
    blob, size = image, tuple(image_shape(net, image) if shape is None else shape)
    if not size or min(size) < 1:
        raise NetError(
            f"an image of shape {dims(size)} (channels, height, width) holds nothing: its numbers must be positive"
        )
    start = 0
    while True:
        readers = [
            (i, layer)
            for i, layer in enumerate(net.layer)
            if i >= start and blob in layer.bottom and not is_head(layer)
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
            built, out = _built(layer, size)
            units.append(Unit(layer, built, blob, size, output, out, index, top_shape=out))
            size = out
        elif layer.type == "ReLU" and unit is not None and unit.pool is None:
            unit.rectified, unit.output, unit.last = True, layer.top[0], index
        elif layer.type == "Pooling" and unit is not None and unit.pool is None and _mirrored(layer.pooling_param):
            unit.built_pool, size = _built(layer, size)
            unit.pool, unit.last, unit.top_shape = layer, index, size
        elif layer.type != "Dropout":
            raise NetError(
                f'layer "{layer.name}" ({layer.type}) cannot be mirrored: a decoder mirrors Convolution and '
                "InnerProduct, each optionally followed by a ReLU and then a max pooling; Dropout is skipped"
            )
        blob, start = layer.top[0], index + 1


def _mirrored(pooling: Any) -> bool:
    """Whether a pooling has a mirror image: max pooling over windows of a known size."""
    return pooling.pool == caffe_pb2.PoolingParameter.MAX and not pooling.global_pooling


def _built(param: Any, size: Shape) -> tuple[Any, Shape]:
    """Build a layer for a bottom of ``size`` (without the batch); return it and the size of its first top."""
    if param.type == "Convolution" and len(size) != 3:
        raise NetError(
            f'layer "{param.name}" ({param.type}): a decoder mirrors 2-d convolutions; the bottom has shape {dims(size)}'
        )
    bottoms = [(1, *size)]
    layer = make_layer(param, bottoms)
    return layer, infer_shapes(layer, bottoms)[0][1:]
