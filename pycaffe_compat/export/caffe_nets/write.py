"""A module of PyTorch as prototxt and caffemodel, checked beside the module."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...errors import CaffeError
from ...files import PathLike, atomic_path, require_writable
from ...net import Net
from ...proto import format_text, write_weights
from ..verify import TOLERANCE, Difference
from . import elements, shapes, windows
from .conversion import CONVERTERS, Blob, Conversion, Normalised, several
from .graph import Graph, read, trace

FAMILIES = (elements, shapes, windows)


@dataclass(frozen=True)
class CaffeNet:
    """What was written.

    Attributes:
        net: the ``NetParameter``.
        inputs, outputs: blob names and shapes, in the module's order.
        differences: how far each output of the net is from the module's; none if not checked.
        notes: what the user should know.
    """

    net: Any
    inputs: dict[str, tuple[int, ...]]
    outputs: dict[str, tuple[int, ...]]
    differences: list[Difference] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def to_caffe(
    module: nn.Module,
    example: Tensor | Sequence[Tensor],
    prototxt: PathLike,
    caffemodel: PathLike,
    *,
    name: str = "",
    pictures: Normalised | None = None,
    verify: bool = True,
) -> CaffeNet:
    """Write a module as a Caffe net with its weights.

    It is traced by ``torch.export`` in eval mode. Layers are named after submodules, such as ``layer1.0.conv1``; a BatchNorm
    becomes Caffe's BatchNorm and Scale. Where the windows of a pooling that rounds down are not Caffe's, ``round_mode: FLOOR``
    is set.

    Args:
        module: stays as it is.
        example: the input, or a tuple of them; its shape is that of the net's ``Input``.
        prototxt, caffemodel: the files to write.
        name: the net's name (default: the module's class).
        pictures: the preprocessing that the module expects; the net then takes BGR images with values from 0 to 255, nothing
            subtracted, and does that itself.
        verify: run the net beside the module, on random input at two batch sizes, before anything is written.

    Raises:
        NetError: the module cannot be traced, or does what no layer does; the message names all such operators with their
            paths in the module.
        CaffeError: an output differs by more than 1e-4 of its range, or a file cannot be written.
    """
    inputs = (example,) if isinstance(example, Tensor) else tuple(example)
    return _write(trace(module, example, CONVERTERS), inputs, prototxt, caffemodel, name, pictures, verify)


def program_to_caffe(
    program: PathLike,
    prototxt: PathLike,
    caffemodel: PathLike,
    *,
    name: str = "",
    pictures: Normalised | None = None,
    verify: bool = True,
) -> CaffeNet:
    """Write a program saved by ``torch.export.save`` (``.pt2``) as a Caffe net; see :func:`to_caffe`."""
    graph, inputs = read(program, CONVERTERS)
    return _write(graph, inputs, prototxt, caffemodel, name, pictures, verify)


def _write(
    graph: Graph,
    inputs: Sequence[Tensor],
    prototxt: PathLike,
    caffemodel: PathLike,
    name: str,
    pictures: Normalised | None,
    verify: bool,
) -> CaffeNet:
    for path in (prototxt, caffemodel):
        require_writable(os.fspath(path))
    conversion = Conversion(graph, name or graph.name, pictures)
    outputs = conversion.convert()
    shapes_of = [tuple(each.shape) for each in inputs]
    layers = [layer for layer in conversion.net.layer if layer.type == "Input"]
    for layer, shape in zip(layers, shapes_of, strict=True):
        layer.input_param.shape[0].dim[:] = shape
    notes = [f"{several(layers)}: {what}" for what, layers in conversion.rare.items()]
    if not graph.any_batch:
        notes.append("the module is valid only for the batch size of the example")
    net = _net(conversion)
    found = CaffeNet(
        conversion.net,
        {layer.top[0]: shape for layer, shape in zip(layers, shapes_of, strict=True)},
        {each.name: tuple(net.blob_shapes[each.name]) for each in outputs},
        _compare(conversion, net, outputs, inputs) if verify else [],
        notes,
    )
    with atomic_path(os.fspath(caffemodel)) as weights, atomic_path(os.fspath(prototxt)) as text:
        write_weights(weights, conversion.net, conversion.blobs, hdf5=os.fspath(caffemodel).endswith(".h5"))
        with open(text, "w", encoding="utf-8") as file:
            file.write(format_text(conversion.net))
    return found


def _compare(conversion: Conversion, net: Net, outputs: Sequence[Blob], inputs: Sequence[Tensor]) -> list[Difference]:
    """Run the net beside the module.

    Raises:
        CaffeError: an output is further from the module's than :data:`TOLERANCE`.
    """
    names = [layer.top[0] for layer in conversion.net.layer if layer.type == "Input"]
    random, tried = np.random.default_rng(0), []
    for more in (0, 1) if conversion.graph.any_batch else (0,):
        shapes_of = [(len(each) + more, *each.shape[1:]) if each.dim() else () for each in inputs]
        batch = [_like(random, each, shape) for each, shape in zip(inputs, shapes_of, strict=True)]
        given = [each.clone() for each in batch]  # which the module may change
        if conversion.pictures is not None:
            batch = [torch.rand_like(batch[0]) * 255]
            given = [conversion.pictures(batch[0])]
        with torch.no_grad():
            wanted = conversion.graph.run(*given)
            blobs, _ = net.run({name: value.float().cpu() for name, value in zip(names, batch, strict=True)})
        flat = list(wanted) if isinstance(wanted, (tuple, list)) else [wanted]
        if isinstance(wanted, dict):
            flat = list(wanted.values())
        for blob, want in zip(outputs, flat, strict=True):
            tried.append(_difference(blob.name, shapes_of[0][0] if shapes_of[0] else 1, blobs[blob.name], want.cpu()))
    worst = max(tried, key=lambda each: each.relative)
    if not worst.relative <= TOLERANCE:
        raise CaffeError(
            f"{conversion.graph.name}: nothing is written: the net's output {worst.output} differs from the module's by "
            f"{worst.largest:.3g}, {worst.relative:.2g} of its range; at most {TOLERANCE:g} is allowed"
        )
    return tried


def _net(conversion: Conversion) -> Net:
    net = Net(conversion.net, "TEST")
    with torch.no_grad():
        for name, blobs in conversion.blobs.items():
            for i, value in enumerate(blobs):
                net.layers[name].blob(i).copy_(value.reshape(net.layers[name].blob(i).shape))
    return net


def _like(random: np.random.Generator, example: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Random input: of integers, those that occur in the example."""
    if example.is_floating_point():
        return torch.from_numpy(random.standard_normal(shape)).to(example)
    return torch.from_numpy(random.choice(example.flatten().cpu().numpy(), shape)).to(example.device)


def _difference(name: str, batch: int, have: Tensor, want: Tensor) -> Difference:
    if have.shape != want.shape:
        raise CaffeError(f"output {name} has shape {tuple(have.shape)}, the module's has {tuple(want.shape)}")
    finite = want.isfinite()
    values = want[finite].double()
    if not torch.equal(have[~finite].nan_to_num(), want[~finite].nan_to_num()) or not torch.equal(
        have.isfinite(), finite
    ):
        return Difference(name, batch, float("inf"), 1.0)
    if not values.numel():
        return Difference(name, batch, 0.0, 0.0)
    apart = (have[finite].double() - values).abs().max().item()
    reach = max(values.abs().max().item(), (values.max() - values.min()).item())
    return Difference(name, batch, apart, reach)
