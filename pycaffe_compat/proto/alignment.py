"""Where the Crop layers of FCN's Caffe and its descendants begin: they lay the pixels of one bottom over those of the other.

BVLC's Crop begins at ``crop_param.offset``, or at 0. The older Crop (longjon/caffe:future, s9xie/hed, crop_layer.cpp and
util/coords.hpp) has no options: it follows both bottoms back to a blob that both are made from, and works out from kernels,
strides and pads which pixels correspond. In old files (``type: CROP``) it is the only one.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

from ..errors import NetError
from ..forks import BVLC

log = logging.getLogger(__name__)
ALIGNING = ("hed", "crfasrnn", "deconvnet")  # the forks whose Crop takes no offset

# layers whose tops have the coordinates of their bottoms
_SAME = {
    "AbsVal",
    "BN",
    "BNLL",
    "BatchNorm",
    "Bias",
    "Clip",
    "Concat",
    "Dropout",
    "ELU",
    "Eltwise",
    "Exp",
    "LRN",
    "Log",
    "MVN",
}
_SAME |= {
    "PReLU",
    "Power",
    "ReLU",
    "ReLU6",
    "Scale",
    "Sigmoid",
    "Slice",
    "Softmax",
    "Split",
    "Swish",
    "TanH",
    "Threshold",
}


class _Map(NamedTuple):
    """``x`` of one blob is ``factor * x + shift`` of another, along one axis."""

    factor: Fraction = Fraction(1)
    shift: Fraction = Fraction(0)

    def after(self, first: _Map) -> _Map:
        """The map that applies ``first`` and then this one."""
        return _Map(self.factor * first.factor, self.factor * first.shift + self.shift)

    def inverse(self) -> _Map:
        return _Map(1 / self.factor, -self.shift / self.factor)


def align_crops(net: Any, likely: Sequence[str], file: str = "") -> None:
    """Give the Crop layers of a net without ``crop_param`` the offsets that their fork works out.

    In other nets they stay as they are. Where nothing tells what a net is of, a warning says where such a fork would begin.
    AutoCrop is the name of such a layer in the Caffe of richer convolutional features, beside BVLC's Crop; it becomes a Crop.

    Args:
        net: the ``NetParameter``, filtered; it is changed.
        likely: the forks that it may be of, the likeliest first.
        file: its file, for messages.

    Raises:
        NetError: the net is of such a fork, and no offset lays the bottoms over each other.
    """
    known = bool(likely) and likely[0] in ALIGNING
    where = f"{file}: " if file else ""
    for layer in net.layer:
        automatic = layer.type == "AutoCrop"
        if automatic:
            layer.type = "Crop"
        elif layer.type != "Crop" or layer.HasField("crop_param") or likely[:1] == (BVLC.name,):
            continue
        try:
            offsets = crop_offsets(net.layer, layer)
        except NetError as error:
            if known or automatic:
                raise NetError(f"{where}{error}") from None
            continue
        if known or automatic:
            set_offsets(layer, offsets)
        elif any(offsets) and not likely:
            log.warning(
                "%slayer \"%s\" (Crop): begins at 0, as in BVLC's Caffe; in FCN's and HED's Caffe it would begin at row %d and "
                "column %d: use --fork hed or fork= for that",
                where,
                layer.name,
                *offsets,
            )


def set_offsets(layer: Any, offsets: Iterable[int]) -> None:
    """Write the offsets of rows and columns into the options of a Crop layer."""
    layer.crop_param.axis = 2
    layer.crop_param.offset[:] = offsets


def crop_offsets(layers: Sequence[Any], crop: Any) -> tuple[int, int]:
    """Return the row and column of the first bottom of ``crop`` that lie under the origin of its second bottom.

    Args:
        layers: the ``LayerParameter`` messages of its net, in order.
        crop: one of them.

    Raises:
        NetError: the bottoms have no blob in common, a layer between has no coordinates, or the scales differ.
    """
    if len(crop.bottom) != 2:
        raise NetError(f'layer "{crop.name}" (Crop): has {len(crop.bottom)} bottoms, but takes 2')
    makers: dict[str, Any] = {}
    for layer in layers:
        for top in layer.top:
            makers.setdefault(top, layer)  # the first maker: later ones work in place
    path = _path(crop.bottom[0], makers)
    other = _path(crop.bottom[1], makers)
    shared = next((blob for blob in other if blob in path), None)
    if shared is None:
        raise NetError(f'layer "{crop.name}" (Crop): its bottoms have no common source blob, so they cannot be aligned')
    offsets = []
    for axis in (0, 1):
        first, second = (_map_of(blobs[: blobs.index(shared)], makers, axis) for blobs in (path, other))
        between = second.after(first.inverse())
        if between.factor != 1 or between.shift > 0 or between.shift.denominator != 1:
            along = ("height", "width")[axis]
            raise NetError(
                f'layer "{crop.name}" (Crop): along the {along}, pixel x of "{crop.bottom[0]}" is pixel '
                f'{float(between.factor):g} · x + {float(between.shift):g} of "{crop.bottom[1]}"; a crop needs a factor of 1 and '
                "an integer offset of at most 0"
            )
        offsets.append(-int(between.shift))
    return offsets[0], offsets[1]


def _path(blob: str, makers: dict[str, Any]) -> list[str]:
    """A blob and those that it is made from, by the first bottom of each layer."""
    path = [blob]
    while (maker := makers.get(path[-1])) is not None and maker.bottom and maker.bottom[0] not in path:
        path.append(maker.bottom[0])
    return path


def _map_of(blobs: Sequence[str], makers: dict[str, Any], axis: int) -> _Map:
    """From coordinates of the blob that these lead back to, to those of the first of them."""
    result = _Map()
    for blob in blobs:
        result = result.after(_layer_map(makers[blob], axis))
    return result


def _layer_map(layer: Any, axis: int) -> _Map:
    """From coordinates of a layer's bottom to those of its top."""
    if layer.type in _SAME:
        return _Map()
    if layer.type == "Crop":
        if layer.HasField("crop_param"):
            offsets = (*layer.crop_param.offset,) or (0,)
            return _Map(shift=Fraction(-offsets[axis - 2 if len(offsets) > 1 else 0]))
        raise NetError(f'layer "{layer.name}" (Crop) has no offsets yet')
    if layer.type in ("Convolution", "Pooling"):
        return _window(layer, axis).inverse()
    if layer.type == "Deconvolution":
        return _window(layer, axis)
    raise NetError(
        f'layer "{layer.name}" ({layer.type}) is between the bottoms of a Crop, which cannot be aligned across it'
    )


def _window(layer: Any, axis: int) -> _Map:
    """From the windows of a convolution or pooling to the centres of what they cover."""
    options = layer.pooling_param if layer.type == "Pooling" else layer.convolution_param
    kernel = _side(options, "kernel_size", "kernel_h" if axis == 0 else "kernel_w", axis, 0)
    stride = _side(options, "stride", "stride_h" if axis == 0 else "stride_w", axis, 1)
    pad = _side(options, "pad", "pad_h" if axis == 0 else "pad_w", axis, 0)
    dilation = _side(options, "dilation", "", axis, 1)
    if kernel < 1 or stride < 1:
        raise NetError(f'layer "{layer.name}" ({layer.type}) has no kernel and stride to align a Crop with')
    return _Map(Fraction(stride), Fraction((kernel - 1) * dilation, 2) - pad)


def _side(options: Any, square: str, single: str, axis: int, default: int) -> int:
    fields = options.DESCRIPTOR.fields_by_name
    if single in fields and options.HasField(single):
        return int(getattr(options, single))
    if square not in fields:
        return default
    given = getattr(options, square)
    if not hasattr(given, "append"):
        return int(given) if options.HasField(square) else default
    return int(given[min(axis, len(given) - 1)]) if given else default
