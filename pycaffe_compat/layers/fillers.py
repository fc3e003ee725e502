"""Caffe's fillers: how the blobs of a new layer get their first values."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import LayerError, nearest, require_file
from ..files import open_text
from ..proto import caffe_pb2
from ..proto.binary import read_message
from ..proto.blob_proto import blob_to_array
from ..tables import dims
from .base import count
from .gabor import NETS, gabor_filters


def fill(tensor: Tensor, filler: Any = None) -> None:
    """Fill ``tensor`` in place.

    Random numbers come from torch's global generator.

    Args:
        filler: a ``FillerParameter``, a tensor of the values, or None for zeros.

    Raises:
        LayerError: the filler's type is unknown, its options are impossible, or it cannot fill a blob of this shape.
    """
    if isinstance(filler, Tensor):
        with torch.no_grad():
            tensor.copy_(filler)
        return
    if filler is None:
        filler = caffe_pb2.FillerParameter()
    kind = filler.type
    rule = FILLERS.get(kind)
    if rule is None:
        raise LayerError(f'unknown filler "{kind}"{nearest(kind, FILLERS)}; known: {", ".join(sorted(FILLERS))}')
    if filler.sparse != -1 and kind not in ("gaussian", "identity"):
        raise LayerError(f'filler "{kind}" has sparse: {filler.sparse}, but only the gaussian filler can be sparse')
    if tensor.numel() == 0:
        return
    with torch.no_grad():
        rule(tensor, filler)


def _constant(tensor: Tensor, filler: Any) -> None:
    tensor.fill_(filler.value)


def _uniform(tensor: Tensor, filler: Any) -> None:
    if filler.min > filler.max:
        raise LayerError(f'filler "uniform" has min: {filler.min:g} above max: {filler.max:g}')
    tensor.uniform_(filler.min, filler.max)


def _gaussian(tensor: Tensor, filler: Any) -> None:
    if filler.std < 0:
        raise LayerError(f'filler "gaussian" has std: {filler.std:g}; it must not be negative')
    tensor.normal_(filler.mean, filler.std)
    if filler.sparse != -1:
        outputs = tensor.shape[0] if tensor.dim() else 1
        if not 0 <= filler.sparse <= outputs:
            raise LayerError(
                f'filler "gaussian" has sparse: {filler.sparse}; as the average number of non-zero weights of an input '
                f"it must be 0 to {outputs}, the number of outputs"
            )
        tensor.mul_(torch.empty_like(tensor).bernoulli_(filler.sparse / outputs))


def _positive_unitball(tensor: Tensor, filler: Any) -> None:
    tensor.uniform_(0, 1)
    rows = tensor.view(tensor.shape[0], -1) if tensor.dim() else tensor.view(1, 1)
    rows.div_(rows.sum(1, keepdim=True))


def _gaussian_unitball(tensor: Tensor, filler: Any) -> None:
    """Rows of length 1 in all directions alike. Source: ``filler.hpp`` of happynear/caffe-windows."""
    tensor.normal_()
    rows = tensor.view(tensor.shape[0], -1) if tensor.dim() else tensor.view(1, 1)
    rows.div_((rows.square().sum(1, keepdim=True) + 1e-12).sqrt())


def _fan(tensor: Tensor, filler: Any) -> float:
    """Fan-in, fan-out or their average, which Caffe takes from the first two axes of the blob."""
    shape = tuple(tensor.shape)
    fan_in = count(shape) / (shape[0] if shape else 1)
    fan_out = count(shape) / (shape[1] if len(shape) > 1 else 1)
    if filler.variance_norm == caffe_pb2.FillerParameter.AVERAGE:
        return (fan_in + fan_out) / 2
    return fan_out if filler.variance_norm == caffe_pb2.FillerParameter.FAN_OUT else fan_in


def _xavier(tensor: Tensor, filler: Any) -> None:
    bound = math.sqrt(3 / _fan(tensor, filler))
    tensor.uniform_(-bound, bound)


def _msra(tensor: Tensor, filler: Any) -> None:
    slope = filler.alpha  # of a leaky ReLU: happynear's Caffe
    tensor.normal_(0, math.sqrt(2 / _fan(tensor, filler) / (1 + slope * slope)))


def _bilinear(tensor: Tensor, filler: Any) -> None:
    shape = tuple(tensor.shape)
    if len(shape) != 4 or shape[2] != shape[3]:
        raise LayerError(f'filler "bilinear" fills square filters (out, in, n, n), not a blob of shape {dims(shape)}')
    factor = math.ceil(shape[3] / 2)
    centre = (shape[3] - 1) / (2 * factor)
    ramp = 1 - (torch.arange(shape[3], dtype=torch.float64, device=tensor.device) / factor - centre).abs()
    tensor.copy_(torch.outer(ramp, ramp).expand(shape))


def _identity(tensor: Tensor, filler: Any) -> None:
    """Filters within a group have ``groups / outputs`` (times ``value``) in their centres; the rest is 0, or normal by ``std``.

    Source: ``filler.hpp`` of fyu/caffe-dilation.
    """
    shape = tuple(tensor.shape)
    if len(shape) != 4:
        raise LayerError(f'filler "identity" fills filters (out, in, height, width), not a blob of shape {dims(shape)}')
    groups = filler.num_groups if filler.HasField("num_groups") else shape[1]
    if groups < 1 or shape[0] % groups or shape[1] < groups:
        raise LayerError(
            f'filler "identity" with {groups} groups (num_groups, or one for each input) cannot fill a blob of shape '
            f"{dims(shape)}: it must divide the outputs and not exceed the inputs"
        )
    if filler.HasField("std"):
        _gaussian(tensor, filler)
    else:
        tensor.zero_()
    value = groups / shape[0] * (filler.value if filler.HasField("value") else 1)
    outputs, inputs = shape[0] // groups, shape[1] // groups
    centres = tensor[:, :, shape[2] // 2, shape[3] // 2]
    for group in range(groups):
        centres[group * outputs : (group + 1) * outputs, group * inputs : (group + 1) * inputs] = value


def _diagonal(tensor: Tensor, filler: Any) -> None:
    """Filters from each input to the output of its number add up to its ``diag_val``, or to 1; the rest is 0.

    Source: ``filler.hpp`` of lmb-freiburg/flownet2.
    """
    if tensor.dim() < 2:
        raise LayerError(f'filler "diagonal" fills filters (out, in, …), not a blob of shape {dims(tensor.shape)}')
    tensor.zero_()
    area = count(tuple(tensor.shape), 2)
    for i in range(min(tensor.shape[:2])):
        tensor[i, i] = (filler.diag_val[i] if i < len(filler.diag_val) else 1) / area


def read_numbers(path: str, what: str) -> list[float]:
    """Return the numbers of a text file, with white space between them; ``what`` names it in messages.

    Raises:
        MissingFileError, LayerError: there is no such file, or it holds something else.
    """
    file = require_file(path, what)
    try:
        with open_text(file) as text:
            return [float(word) for word in text.read().split()]
    except (OSError, ValueError) as error:
        raise LayerError(f"{what} {file} holds no list of numbers: {error}") from error


def _file(tensor: Tensor, filler: Any) -> None:
    """The first numbers of a text file (daerduoCarey/SpatialTransformerLayer, ``filler.hpp``)."""
    if not filler.HasField("file"):
        raise LayerError('filler "file" needs file, the path of a text file of numbers')
    numbers = read_numbers(filler.file, "the filler's file")
    if len(numbers) < tensor.numel():
        raise LayerError(f"the filler's file {filler.file} has {len(numbers)} numbers for {tensor.numel()} values")
    tensor.copy_(torch.tensor(numbers[: tensor.numel()]).view(tensor.shape))


def _blob_proto(tensor: Tensor, filler: Any) -> None:
    """The blob of a binary file (Cysu/caffe at 6c4da017, ``filler.hpp``); axes of length 1 before the others do not matter."""
    if not filler.source:
        raise LayerError('filler "blob_proto" needs source, the path of a binary BlobProto')
    file = require_file(filler.source, "the filler's source")
    values = blob_to_array(read_message(file, caffe_pb2.BlobProto), what=file)
    if _without_ones(values.shape) != _without_ones(tensor.shape):
        raise LayerError(
            f'filler "blob_proto": {file} holds a blob of shape {dims(values.shape)}, but the layer\'s is {dims(tensor.shape)}'
        )
    tensor.copy_(torch.from_numpy(values).reshape(tensor.shape))


def _without_ones(shape: Sequence[int]) -> tuple[int, ...]:
    """A shape without the axes of length 1 that it begins with."""
    return tuple(itertools.dropwhile(lambda size: size == 1, shape))


def _gabor(tensor: Tensor, filler: Any) -> None:
    """The filters that a first layer learns, for those of four nets. Source: ``filler.hpp`` and ``gabor.hpp`` of intel/caffe."""
    shape = tuple(tensor.shape)
    if len(shape) != 4 or shape[1] != 3 or shape[2] != shape[3] or (shape[0], shape[2]) not in NETS:
        known = ", ".join(dims((outputs, 3, size, size)) for outputs, size in NETS)
        raise LayerError(f'filler "gabor" has filters of the shapes {known}; none for a blob of shape {dims(shape)}')
    tensor.copy_(gabor_filters(shape[0], shape[2]))


FILLERS: dict[str, Callable[[Tensor, Any], None]] = {
    "constant": _constant,
    "uniform": _uniform,
    "gaussian": _gaussian,
    "positive_unitball": _positive_unitball,
    "gaussian_unitball": _gaussian_unitball,
    "xavier": _xavier,
    "msra": _msra,
    "bilinear": _bilinear,
    "identity": _identity,
    "file": _file,
    "blob_proto": _blob_proto,
    "diagonal": _diagonal,
    "gabor": _gabor,
}
