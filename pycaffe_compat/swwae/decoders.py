"""What an augmented net can reconstruct images from: its own layers, cut and rewired to decode from one blob alone."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ..errors import NetError, nearest
from ..proto import caffe_pb2, filter_net
from .blocks import Shape, input_layer
from .encoder import is_head

PREFIX = "dec:"
WEIGHTED = ("Convolution", "InnerProduct")
STAGE = re.compile(r"conv(\d+)(_\d+)?")


@dataclass(frozen=True)
class Source:
    """A blob of the encoder that an image can be reconstructed from.

    Attributes:
        blob: its name, ``conv5_3/pool``.
        layer: the weight layer that it comes from, ``conv5_3``.
        label: what figures call it: ``pool5`` for a pooled ``conv5`` or ``conv5_3``, else the blob's name.
        depth: the number of weight layers of the encoder up to it.
    """

    blob: str
    layer: str
    label: str
    depth: int


@dataclass
class Augmented:
    """A net with a decoder that ends in an image.

    Attributes:
        kind: ``"swwae"`` where the decoder reads pooling switches, ``"sae"`` where it does not.
        objective: ``"first"``, ``"all"`` or ``"layerwise"``, by its losses.
        image: the blob of the images; its reconstruction is ``dec:IMAGE``.
        image_scale: what the image is multiplied by before the net compares it with its reconstruction.
        transform: the ``transform_param`` of the layer that makes the images; None for an Input layer.
        sources: what can be decoded from, deepest first. The first is the net's own; the others are the activations that
            the decoder reconstructs on its way.
    """

    kind: str
    objective: str
    image: str
    image_scale: float
    transform: Any
    sources: list[Source]
    _net: Any = field(repr=False)
    _pairs: dict[str, str] = field(repr=False)

    def net_from(self, source: Source, shape: Shape) -> Any:
        """Return the net that reconstructs images from ``source`` alone: an Input layer, the encoder up to it, the decoder.

        The decoders of ``layerwise`` are stacked: each stage gets what the one above it made.

        Args:
            source: one of :attr:`sources`.
            shape: (images, channels, height, width).
        """
        own = [each for each in self._net.layer if self.image not in each.top or each.bottom]
        layers = [input_layer(self.image, shape), *(_copy(each) for each in own)]
        for decoded, target in self._pairs.items():
            wanted, other = (target, decoded) if target == source.blob else (decoded, target)
            for each in layers:
                if not each.name.startswith(PREFIX) or wanted in each.top or other in each.top:
                    continue
                if each.bottom and each.bottom[0] == other:
                    each.bottom[0] = wanted
        return caffe_pb2.NetParameter(name=self._net.name, layer=_leading_to(layers, PREFIX + self.image))


def read_augmented(net: Any, image: str = "") -> Augmented:
    """Find the decoder of a net.

    Args:
        net: an upgraded ``NetParameter`` (it is not changed): a train_val or deploy net, this project's or of the paper's
            authors, or one like them: layers of the decoder are called ``dec:…``, the reconstruction ``dec:IMAGE``.
        image: the blob of the images; ``""`` finds it.

    Raises:
        NetError: no layer makes a reconstruction of the images.
    """
    plain = filter_net(net, caffe_pb2.NetState(phase=caffe_pb2.TEST))
    image = _image_of(plain, image)
    losses = [each for each in plain.layer if is_head(each) and len(each.bottom) == 2]
    pairs = {
        each.bottom[0]: each.bottom[1]
        for each in losses
        if each.bottom[0].startswith(PREFIX) and each.bottom[0] != PREFIX + image
    }
    decoding = [each for each in plain.layer if each.name.startswith(PREFIX) and not is_head(each)]
    layerwise = any(each.bottom and each.bottom[0] in pairs.values() for each in decoding)
    first = next(
        (each.bottom[0] for each in decoding if each.bottom and not each.bottom[0].startswith(PREFIX)),
        "",
    )
    if not first:
        raise NetError(f'no layer of the decoder reads the encoder, so "{PREFIX}{image}" is not a reconstruction')
    found = Augmented(
        kind="swwae" if any(_reads_switches(each) for each in decoding) else "sae",
        objective="layerwise" if layerwise else "all" if pairs else "first",
        image=image,
        image_scale=_scale_of(plain, losses, image),
        transform=_transform_of(plain, image),
        sources=[_source(plain, blob) for blob in (first, *pairs.values())],
        _net=plain,
        _pairs=pairs,
    )
    found.sources.sort(key=lambda each: -each.depth)
    return found


def _image_of(net: Any, image: str) -> str:
    """The blob of the images, whose reconstruction the net makes."""
    tops = {top for each in net.layer for top in each.top}
    made = [top for each in net.layer if not each.bottom for top in each.top]
    if image:
        if image not in made:
            raise NetError(
                f'no Input or data layer makes the blob "{image}"{nearest(image, made)}; they make {", ".join(made) or "none"}'
            )
        if PREFIX + image not in tops:
            raise NetError(f'no layer makes "{PREFIX}{image}", the reconstruction of "{image}"')
        return image
    found = [top for top in made if PREFIX + top in tops]
    if not found:
        wanted = " or ".join(f'"{PREFIX}{top}"' for top in made if top != "label") or f'"{PREFIX}data"'
        decoded = sorted(top for top in tops if top.startswith(PREFIX) and "/" not in top)
        has = f"; it reconstructs {', '.join(decoded[:5])}" if decoded else "; it has no decoder at all"
        raise NetError(
            f"the net reconstructs no image: no layer has the top {wanted}{has}. caffe-make-prototxt --net adds a decoder to "
            "a net, caffe-train-stages trains it"
        )
    return found[0]


def _reads_switches(layer: Any) -> bool:
    return layer.type == "Depooling" and layer.pooling_param.pool == caffe_pb2.PoolingParameter.SWITCH


def _transform_of(net: Any, image: str) -> Any:
    maker = next(each for each in net.layer if image in each.top and not each.bottom)
    return maker.transform_param if maker.HasField("transform_param") else None


def _scale_of(net: Any, losses: Iterable[Any], image: str) -> float:
    """What the image is multiplied by, in the loss of its reconstruction; 1 where nothing says."""
    compared = [each.bottom[1] for each in losses if each.bottom[0] == PREFIX + image] or [f"{image}/scaled"]
    for each in net.layer:
        if each.type == "Power" and list(each.bottom) == [image] and each.top[0] == compared[0]:
            param = each.power_param
            if param.power != 1 or param.shift != 0 or not param.scale:
                raise NetError(
                    f'layer "{each.name}" (Power): images are compared as scale * image, so power must be 1, shift 0 and scale '
                    f"not 0, not power {param.power:g}, shift {param.shift:g}, scale {param.scale:g}"
                )
            return param.scale
    return 1.0


def _source(net: Any, blob: str) -> Source:
    """Where ``blob`` stands in the encoder."""
    pooled, name = False, blob
    layers = [each for each in net.layer if not each.name.startswith(PREFIX)]
    while True:
        maker = next((each for each in layers if name in each.top and name not in each.bottom), None)
        if maker is None or maker.type in WEIGHTED or not maker.bottom:
            break
        pooled = pooled or maker.type == "Pooling"
        name = maker.bottom[0]
    layer = maker.name if maker is not None else blob
    weighted = [each.name for each in layers if each.type in WEIGHTED]
    stage = STAGE.fullmatch(layer)
    label = f"pool{stage[1]}" if stage and pooled else blob
    return Source(blob, layer, label, weighted.index(layer) + 1 if layer in weighted else 0)


def _leading_to(layers: list[Any], blob: str) -> list[Any]:
    """The layers that ``blob`` depends on, in order."""
    needed, kept = {blob}, []
    for each in reversed(layers):
        if needed.isdisjoint(each.top):
            continue
        kept.append(each)
        needed.update(each.bottom)
    return kept[::-1]


def _copy(layer: Any) -> Any:
    return caffe_pb2.LayerParameter.FromString(layer.SerializeToString())
