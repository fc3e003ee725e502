"""Layers from the options of a prototxt, and the shapes of their tops, with an error for whatever goes wrong."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import CaffeError, LayerError, in_file
from ..proto import caffe_pb2
from ..proto.additions import titles
from .base import Layer, Shape
from .own_options import fork_of_layer, leaves_out_weight, with_own_options
from .registry import layer_class

log = logging.getLogger(__name__)
# What a layer's code, or PyTorch beneath it, raises for options or bottoms that it does not check.
MISFITS = (ArithmeticError, IndexError, RuntimeError, TypeError, ValueError)


def make_layer(
    param: Any,
    shapes: Sequence[Shape],
    file: str = "",
    fork: str = "",
    likely: Sequence[str] = (),
) -> Layer:
    """Build the layer that ``param`` describes for bottoms of these shapes; its blobs have no memory yet.

    ``fork`` and ``likely`` say what the net is of: see :func:`pycaffe_compat.layers.layer_class`.

    Raises:
        LayerError: the options or the bottoms do not fit. The message names the net's ``file`` and the layer, whatever
            exception absurd options cause.
    """
    cls = layer_class(param, file, fork, likely)
    where = f'layer "{param.name}" ({param.type})'
    own = fork_of_layer(param, cls, fork, likely)
    try:
        layer = cls(with_own_options(param, cls, own, where), shapes)
    except CaffeError as error:
        raise in_file(error, file) from error
    except MISFITS as error:
        raise LayerError(f"{f'{file}: ' if file else ''}{where}: cannot be built: {error}") from error
    if leaves_out_weight(param, cls, fork, likely):
        layer.default_weight = 0.0
        if not param.loss_weight and layer.phase == caffe_pb2.TRAIN:
            log.warning(
                "%s%s: it has no loss_weight, which defaults to 0 in %s, so it trains nothing. Write loss_weight: 1 if it should "
                "count",
                f"{file}: " if file else "",
                where,
                titles([own]),
            )
    return layer


@torch.no_grad()
def infer_shapes(layer: Layer, bottom_shapes: Sequence[Shape], file: str = "") -> list[Shape]:
    """Return the shapes of a layer's tops, by running it on the meta device.

    Raises:
        LayerError: the layer does not fit its bottoms; the message names the net's ``file``.
    """
    state = {n: p.to("meta") for n, p in (*layer.named_parameters(), *layer.named_buffers())}
    try:
        bottoms = tuple(torch.empty(shape, device="meta") for shape in bottom_shapes)
        made = torch.func.functional_call(layer, state, bottoms)
    except CaffeError as error:
        raise in_file(error, file) from error
    except MISFITS as error:
        raise in_file(layer.misfit(bottom_shapes, error), file) from error
    if not isinstance(made, tuple):
        made = (made,) if isinstance(made, Tensor) else ()
    return [tuple(t.shape) for t in made]
