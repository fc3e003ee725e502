"""Decoder induction: from a classification net to the same net with a mirrored decoding pathway (paper, section 3).

Every convolution gets a deconvolution and every max pooling an unpooling, top down. A decoder layer is named after the
encoder layer that it mirrors, its top after the blob that it reconstructs: the layer ``dec:conv5_3`` has the top
``dec:conv5_2``, ``dec:conv5_1`` has ``dec:conv4_3``, ``dec:conv1_1`` has ``dec:data``. The authors' trained models load
by these names.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import NetError, nearest
from ..proto import caffe_pb2
from .blocks import FIXED, Filler, Shape, layer, relu, weighted
from .encoder import Unit, is_head, read_encoder

KINDS = ("sae", "swwae")
OBJECTIVES = ("first", "all", "layerwise")
LossWeights = Mapping[str, float] | float | None


@dataclass(frozen=True)
class Decoder:
    """What kind of decoder is induced.

    Attributes:
        kind: ``swwae`` hands the pooling switches to the decoder, ``sae`` puts each value at one fixed place of its
            window.
        objective: ``first`` reconstructs the image alone; ``all`` each pooled activation on the way too; ``layerwise``
            starts each stage from the encoder's pooled activation.
        filler: of the decoder's weights.
        normalised: divide what overlapping windows put at a place by how many they were; None: where windows overlap.
        connect: start with the no-op Reshape ``dec:connect:NAME``; None: where the decoder starts from an InnerProduct.
        split_strided: undo a strided convolution at the image in three: ``-pre``, ``-body`` and ``-post``.
        image: the blob that holds the images.
        image_shape: (channels, height, width) of one image; None: as the net says.
        image_scale: what the image is multiplied by before it is compared with its reconstruction.
    """

    kind: str = "swwae"
    objective: str = "all"
    filler: Filler | None = None
    normalised: bool | None = None
    connect: bool | None = None
    split_strided: bool = True
    image: str = "data"
    image_shape: Shape | None = None
    image_scale: float = 1 / 255

    def __post_init__(self) -> None:
        for field, value, choices in (("kind", self.kind, KINDS), ("objective", self.objective, OBJECTIVES)):
            if value not in choices:
                raise NetError(f'decoder {field} "{value}" is not one of {", ".join(choices)}{nearest(value, choices)}')

    @property
    def name(self) -> str:
        """``swwae_all``, as the files are named."""
        return f"{self.kind}_{self.objective}"


def augment(
    net: Any, decoder: Decoder | None = None, loss_weights: LossWeights = None, source: str = "", dump: str = ""
) -> Any:
    """Return ``net`` with a decoder: the paper's augmented net.

    Args:
        net: an upgraded ``NetParameter`` (it is not changed): a chain of convolutions with ReLUs and max poolings, of
            any depth.
        decoder: the variant; by default SWWAE-all.
        loss_weights: the weight of each reconstruction loss, by the name of the encoder layer whose pooled activation
            (or the blob, for the image) is reconstructed: ``{"data": 1e-4, "conv4_3": 1e-10}``; one number for all; or
            None for the paper's (:func:`paper_loss_weights`).
        source: the encoder layer to decode from; by default the last one with a pooling.
        dump: a prefix for pictures: adds the input ``mean`` and the layers that write the input beside its
            reconstruction.

    Returns:
        A new ``NetParameter``; the decoder stands right after the layers of ``source``.

    Raises:
        NetError: the net has no mirror image (see :func:`~.encoder.read_encoder`), ``source`` or a loss weight names no
            layer of it, or a layer's output is no size that its mirror image can undo.
    """
    decoder = decoder or Decoder()
    units = up_to(read_encoder(net, decoder.image, decoder.image_shape), source)
    augmented = caffe_pb2.NetParameter()
    augmented.CopyFrom(net)
    if decoder.kind == "swwae":
        for unit in units:
            if unit.pool is not None and len(unit.pool.top) < 2:
                mirrored = next(each for each in augmented.layer if each.name == unit.pool.name)
                mirrored.top.append(f"{unit.pool.top[0]}-mask")
                unit.pool = mirrored
    layers = _decode(units, decoder, _weights_of(units, decoder, loss_weights))
    if dump:
        layers += _dump(decoder, dump)
        shape = units[0].bottom_shape
        first = next(i for i, each in enumerate(augmented.layer) if decoder.image in each.top)
        mean = layer("mean", "Input", input_param={"shape": [{"dim": (1, *shape)}]})
        _replace_layers(augmented, [*augmented.layer[: first + 1], mean, *augmented.layer[first + 1 :]])
    last = next(i for i, each in enumerate(augmented.layer) if each.name == net.layer[units[-1].last].name)
    _replace_layers(augmented, [*augmented.layer[: last + 1], *layers, *augmented.layer[last + 1 :]])
    return augmented


def reconstruction_net(
    net: Any, decoder: Decoder | None = None, source: str = "", loss_weights: LossWeights = 1.0, dump: str = ""
) -> Any:
    """Return the net that trains a decoder alone, or shows what it makes: the encoder, fixed, and the decoder.

    The arguments are those of :func:`augment`; ``source`` may be any Convolution or InnerProduct. Every reconstruction
    loss has weight 1 unless told otherwise, the encoder has ``lr_mult`` 0, dropout and labels are left out.

    Raises:
        NetError: as for :func:`augment`.
    """
    decoder = decoder or Decoder()
    units = up_to(read_encoder(net, decoder.image, decoder.image_shape), source)
    kept = caffe_pb2.NetParameter(name=net.name)
    renamed: dict[str, str] = {}
    for number, original in enumerate(net.layer):
        if is_head(original) or number > units[-1].last or (not original.bottom and decoder.image not in original.top):
            continue
        if original.type == "Dropout":
            renamed[original.top[0]] = original.bottom[0]
            continue
        copy = kept.layer.add()
        copy.CopyFrom(original)
        for i, bottom in enumerate(copy.bottom):
            copy.bottom[i] = renamed.get(bottom, bottom)
        if not copy.bottom and len(copy.top) > 1:
            del copy.top[:]
            copy.top.append(decoder.image)
        if copy.param or copy.type in ("Convolution", "InnerProduct"):
            del copy.param[:]
            biased = copy.convolution_param.bias_term and copy.inner_product_param.bias_term
            copy.param.extend(caffe_pb2.ParamSpec(**spec) for spec in (FIXED if biased else FIXED[:1]))
    return augment(kept, decoder, loss_weights, units[-1].name, dump)


def strip_decoder(net: Any) -> Any:
    """Return the classification net inside an augmented one: what :func:`augment` added is taken away.

    Args:
        net: an upgraded ``NetParameter``; it is not changed.
    """
    kept = caffe_pb2.NetParameter()
    kept.CopyFrom(net)
    decoding = {"mean"}
    layers = []
    for each in net.layer:
        ends = ("/scaled", "/scaled/add-mean", "/add-mean")
        if each.name.startswith("dec:") or (each.name.endswith(ends) and each.bottom) or each.name in decoding:
            decoding.update(each.top)
        else:
            layers.append(each)
    _replace_layers(kept, layers)
    read = {bottom for each in kept.layer for bottom in each.bottom}
    for each in kept.layer:
        if each.type == "Pooling" and len(each.top) == 2 and each.top[1] not in read:
            del each.top[1]
    return kept


def paper_loss_weights(units: Sequence[Unit], image: str = "data") -> dict[str, float]:
    """Return the paper's loss weights: image 1e-4, the deepest pooled activation 1e-10, the others 1e-12."""
    pooled = [unit.name for unit in units[:-1] if unit.pool is not None]
    weights = dict.fromkeys(pooled, 1e-12)
    if pooled:
        weights[pooled[-1]] = 1e-10
    return {image: 1e-4, **weights}


def up_to(units: list[Unit], source: str) -> list[Unit]:
    """Return the units up to and with ``source``: by default the last one that has a pooling.

    Raises:
        NetError: there is no such unit.
    """
    if source:
        names = [unit.name for unit in units]
        if source not in names:
            raise NetError(
                f'no layer "{source}" to decode from{nearest(source, names)}; '
                f"the encoder has {', '.join(names) or 'none'}"
            )
        return units[: names.index(source) + 1]
    pooled = [i for i, unit in enumerate(units) if unit.pool is not None]
    if not pooled:
        raise NetError("the net has no max pooling after a convolution to decode from: name a layer")
    return units[: pooled[-1] + 1]


def _weights_of(units: Sequence[Unit], decoder: Decoder, given: LossWeights) -> dict[str, float]:
    if given is None:
        return paper_loss_weights(units, decoder.image)
    names = [decoder.image, *(unit.name for unit in units[:-1] if unit.pool is not None)]
    for weight in given.values() if isinstance(given, Mapping) else [given]:
        if not 0 <= weight < math.inf:
            raise NetError(f"a loss weight of {weight}: it must be a finite number, at least 0")
    if not isinstance(given, Mapping):
        return dict.fromkeys(names, given)
    for name in given:
        if name not in names:
            raise NetError(f'loss weight for "{name}"{nearest(name, names)}: the reconstructed are {", ".join(names)}')
    missing = [name for name in names if name not in given]
    if decoder.objective == "first":
        missing = [name for name in missing if name == decoder.image]
    if missing:
        raise NetError(f"no loss weight for {', '.join(missing)}")
    return dict(given)


def _replace_layers(net: Any, layers: list[Any]) -> None:
    copies = [caffe_pb2.LayerParameter.FromString(each.SerializeToString()) for each in layers]
    del net.layer[:]
    net.layer.extend(copies)


def _decode(units: Sequence[Unit], decoder: Decoder, loss_weights: Mapping[str, float]) -> list[Any]:
    """The decoder's layers, from the last unit down to the image, with their losses."""
    image = decoder.image
    source = units[-1]
    blob = source.top
    layers: list[Any] = []
    if decoder.connect or (decoder.connect is None and source.layer.type == "InnerProduct"):
        layers.append(
            layer(
                f"dec:connect:{source.name}", "Reshape", [blob], [f"dec:{source.name}"], reshape_param={"num_axes": 0}
            )
        )
        blob = f"dec:{source.name}"
    for unit, below in zip(reversed(units), [*reversed(units[:-1]), None], strict=True):
        if unit.pool is not None:
            layers += _unpool(unit, blob, decoder)
            blob = f"dec:{unit.name}/unpool"
        target = below.name if below else image
        at_pool = below is not None and below.pool is not None
        top = f"dec:{target}[2]" if at_pool and decoder.objective == "layerwise" else f"dec:{target}"
        layers += _undo(unit, blob, top, decoder)
        blob = top
        if below is None:
            break
        if below.rectified:
            layers.append(relu(blob))
        if unit.layer.type == "InnerProduct" and len(unit.bottom_shape) == 3:
            reshaped = f"{blob}/reshape"
            shape = {"axis": 1, "shape": {"dim": unit.bottom_shape}}
            layers.append(layer(reshaped, "Reshape", [blob], reshape_param=shape))
            blob = reshaped
        if at_pool and decoder.objective != "first":
            layers.append(_loss(f"dec:loss@{below.name}", blob, below.top, loss_weights[below.name]))
            if decoder.objective == "layerwise":
                blob = below.top
    scaled = f"{image}/scaled"
    layers.append(layer(scaled, "Power", [image], power_param={"scale": decoder.image_scale}))
    layers.append(_loss(f"dec:loss@{scaled}", blob, scaled, loss_weights[image]))
    return layers


def _loss(name: str, reconstruction: str, original: str, weight: float) -> Any:
    return layer(name, "EuclideanLoss", [reconstruction, original], loss_weight=[weight])


def _unpool(unit: Unit, blob: str, decoder: Decoder) -> list[Any]:
    """The unpooling that mirrors the unit's pooling: ``dec:NAME/unpool``, normalised where windows overlap."""
    window = unit.built_pool.window
    kernel, stride, pad = window
    plane = window.unpooled(unit.top_shape[1:])
    for axis, n, pooled, undone, k, s in zip(
        "hw", unit.output_shape[1:], unit.top_shape[1:], plane, kernel, stride, strict=True
    ):
        if undone != n:
            raise NetError(
                f'layer "{unit.pool.name}" (Pooling) makes {pooled} of {n} along {axis}, but unpooling '
                f"{pooled} gives {undone}: a decoder needs sizes that windows of {k} with stride {s} tile exactly; "
                "crop or pad the image so that they do"
            )
    if decoder.kind == "sae" and any(pad):
        raise NetError(
            f'layer "{unit.pool.name}" (Pooling) pads its input, which fixed switches cannot undo: only a swwae decoder can'
        )
    name = f"dec:{unit.name}/unpool"
    normalised = window.overlaps if decoder.normalised is None else decoder.normalised
    param = caffe_pb2.PoolingParameter()
    param.CopyFrom(unit.pool.pooling_param)
    for rounding in ("round_mode", "ceil_mode"):
        param.ClearField(rounding)
    tops = [f"{name}/unnorm", f"{name}/mask"] if normalised else [name]
    if decoder.kind == "swwae":
        param.pool = caffe_pb2.PoolingParameter.SWITCH
        unpool = layer(
            name, "Depooling", [blob, unit.pool.top[1]], tops, propagate_down=[True, False], pooling_param=param
        )
    else:
        param.pool = caffe_pb2.PoolingParameter.FIX
        unpool = layer(name, "Depooling", [blob], tops, pooling_param=param)
    if not normalised:
        return [unpool]
    inverse = f"{name}/mask-inv"
    return [
        unpool,
        layer(inverse, "SafeInv", [f"{name}/mask"]),
        layer(f"{name}/norm", "Eltwise", [f"{name}/unnorm", inverse], [name], eltwise_param={"operation": "PROD"}),
    ]


def _undo(unit: Unit, blob: str, top: str, decoder: Decoder) -> list[Any]:
    """What mirrors the unit's weight layer: an InnerProduct, a Deconvolution, or three layers if it is strided."""
    original = unit.layer
    name = f"dec:{unit.name}"
    filler = decoder.filler or {"type": "gaussian", "std": 0.001}
    if original.type == "InnerProduct":
        size = 1
        for n in unit.bottom_shape:
            size *= n
        bias = original.inner_product_param.bias_filler.value
        return [weighted(name, "InnerProduct", blob, top, size, filler=filler, bias=bias)]
    built = unit.built
    for axis, n, out, k, s, p, d in zip(
        "hw",
        unit.bottom_shape[1:],
        unit.output_shape[1:],
        built.kernel,
        built.stride,
        built.pad,
        built.dilation,
        strict=True,
    ):
        undone = s * (out - 1) + d * (k - 1) + 1 - 2 * p
        if undone != n:
            raise NetError(
                f'layer "{unit.name}" (Convolution) makes {out} of {n} along {axis}, but its deconvolution '
                f"makes {undone} of {out}: choose an image size that is a multiple of its stride"
            )
    param = original.convolution_param
    bias = param.bias_filler.value
    geometry = {
        field.name: list(value) if isinstance(value, Sequence) or hasattr(value, "append") else value
        for field, value in param.ListFields()
        if field.name.startswith(("kernel", "stride", "pad", "dilation"))
    }
    channels = unit.bottom_shape[0]
    if max(built.stride) == 1 or unit.bottom != decoder.image or not decoder.split_strided:
        return [weighted(name, "Deconvolution", blob, top, channels, filler=filler, bias=bias, **geometry)]
    pre, body = f"{name}-pre", f"{name}-body"
    width = param.num_output
    smooth = {"kernel_size": [5], "pad": [2]}
    return [
        weighted(pre, "Convolution", blob, pre, width, filler=filler, bias=bias, **smooth),
        relu(pre),
        weighted(body, "Deconvolution", pre, body, max(width // 2, 1), filler=filler, bias=bias, **geometry),
        relu(body),
        weighted(f"{name}-post", "Deconvolution", body, top, channels, filler=filler, bias=bias, **smooth),
    ]


def _dump(decoder: Decoder, prefix: str) -> list[Any]:
    """The layers that write pictures, input beside reconstruction, with the mean added back."""
    image = decoder.image
    add: dict[str, Any] = {"eltwise_param": {"operation": "SUM"}}
    original, decoded, pictures = (
        f"{image}/scaled/add-mean",
        f"dec:{image}/add-mean",
        f"dec:pair@{image}/scaled/add-mean",
    )
    return [
        layer("mean/scaled", "Power", ["mean"], power_param={"scale": decoder.image_scale}),
        layer(original, "Eltwise", [f"{image}/scaled", "mean/scaled"], **add),
        layer(decoded, "Eltwise", [f"dec:{image}", "mean/scaled"], **add),
        layer(pictures, "Concat", [original, decoded], concat_param={"axis": 3}),
        layer(
            f"dec:dump@{image}/scaled/add-mean",
            "ImageOutput",
            [pictures],
            [],
            image_output_param={"output_prefix": prefix},
        ),
    ]
