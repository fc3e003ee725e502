"""A table of a net's layers: shapes, parameters, memory and arithmetic."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from .errors import DataError, MissingFileError, NetError, UnknownNameError, nearest
from .layers import REGISTRY, Source, layer_class
from .layers.base import Shape, count
from .layers.data_layers import BatchSource
from .layers.own_options import fork_of_layer, with_own_options
from .net import CaffeModule
from .proto import as_phase, caffe_pb2, included, upgrade_net
from .proto.recognise import forks_of
from .tables import dims, format_table, human

log = logging.getLogger(__name__)
_MOST = 2**63 - 1  # what a length may be


@dataclass
class Row:
    """One layer of a net.

    Attributes:
        name, type: the layer's.
        bottoms, tops: the names of its blobs.
        shapes: the shapes of the tops.
        parameters: the number of elements in its blobs, without those that another layer owns.
        activations: the number of elements in its tops, without those made in place.
        flops: 2 for each multiply-add with weights; None for a layer that is not counted.
        fixed: it has parameters, and all have ``lr_mult`` 0.
    """

    name: str
    type: str
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    shapes: tuple[Shape, ...]
    parameters: int
    activations: int
    flops: int | None
    fixed: bool


def build_shapes(
    param: Any,
    phase: int | str = "TEST",
    shapes: Mapping[str, Shape] | None = None,
    file: str = "",
    channels: int = 3,
    advice: str = "",
) -> CaffeModule:
    """Return the net on the meta device: every shape is known, and no parameter has memory.

    A data layer is not opened if its options give the shapes of its tops (``crop_size`` and the number of channels): an
    ``Input`` takes its place. If only the number of channels is unknown and the database is missing, ``channels`` are
    assumed, with a warning. Other data layers read their first record. Mean files are never read.

    Args:
        param: the ``NetParameter``.
        phase: the phase to build.
        shapes: by name, the shape of an input or of a top of a data layer.
        file: where ``param`` came from, for messages.
        channels: how many channels the images of a missing database are taken to have.
        advice: how the caller's user gives the shapes, added to messages about data that is missing.

    Raises:
        NetError: the net cannot be built.
        DataError, MissingFileError: a data layer must be opened and cannot be.
        UnknownNameError: ``shapes`` names no input and no top of a data layer.
    """
    net = caffe_pb2.NetParameter()
    net.CopyFrom(param)
    upgrade_net(net)
    net.state.phase = as_phase(phase)
    advice = advice and f"; {advice}"
    _close_sources(net, dict(shapes or {}), _Missing(file, channels, advice))
    try:
        return CaffeModule(net, device="meta", file=file)
    except (DataError, MissingFileError) as error:
        raise type(error)(f"{error}{advice}") from error


class _Missing(NamedTuple):
    """What is done about a database that is missing: see :func:`build_shapes`."""

    file: str
    channels: int
    advice: str


def describe(
    param: Any,
    phase: int | str = "TEST",
    shapes: Mapping[str, Shape] | None = None,
    file: str = "",
    advice: str = "",
) -> list[Row]:
    """Return a row for each layer that ``param`` has in ``phase``; the arguments are those of :func:`build_shapes`."""
    built = build_shapes(param, phase, shapes, file, advice=advice)
    types = {layer.name: layer.type for layer in param.layer}
    try:
        return _rows(built, types)
    finally:
        built.close()


def summarize(rows: list[Row]) -> str:
    """Return ``rows`` as a table, and under it the totals of parameters, memory and arithmetic."""
    table = [
        (
            row.name,
            row.type,
            " ".join(row.bottoms) + (" → " if row.bottoms else "→ ") + " ".join(row.tops),
            "  ".join(dims(shape) for shape in row.shapes),
            (human(row.parameters) + (" fixed" if row.fixed else "")) if row.parameters else "",
            human(4 * row.activations, "B") if row.activations else "in place" if row.tops else "",
            human(row.flops) if row.flops else "",
        )
        for row in rows
    ]
    head = ("layer", "type", "bottoms → tops", "shape", "parameters", "memory", "FLOPs")
    parameters = sum(row.parameters for row in rows)
    fixed = sum(row.parameters for row in rows if row.fixed)
    activations = sum(row.activations for row in rows)
    flops = sum(row.flops or 0 for row in rows)
    return "\n".join(
        [
            format_table(head, table, right=(4, 5, 6)),
            "",
            f"{len(rows)} layers",
            f"parameters   {parameters:,} ({human(4 * parameters, 'B')} in float32)"
            + (f", {fixed:,} of them fixed (lr_mult 0)" if fixed else ""),
            f"activations  {activations:,} ({human(4 * activations, 'B')} in float32), without layers that work in place",
            f"arithmetic   {human(flops, 'FLOP')} a forward pass: 2 for each multiply-add with weights",
        ]
    )


def _close_sources(net: Any, shapes: dict[str, Shape], missing: _Missing) -> None:
    """Give ``Input`` layers their ``shapes``, and replace each data layer whose shapes are known by an ``Input``."""
    known, likely = set(), forks_of(net)
    for index, layer in enumerate(net.layer):
        cls = REGISTRY.get(layer.type) if included(layer, net.state) else None
        if cls is None or not issubclass(cls, Source):
            continue
        known.update(layer.top)
        cls = layer_class(layer, missing.file, net.fork, likely)
        if not issubclass(cls, Source):
            continue
        found = shapes
        if not all(top in shapes for top in layer.top):
            fork = fork_of_layer(layer, cls, net.fork, likely)
            own = with_own_options(layer, cls, fork, f'layer "{layer.name}" ({layer.type})')
            found = {**dict(zip(layer.top, _shapes_of(own, cls, missing), strict=False)), **shapes}
        if all(top in found for top in layer.top):
            stand_in = caffe_pb2.LayerParameter(name=layer.name, type="Input", top=layer.top)
            for top in layer.top:
                if max(found[top], default=0) > _MOST:
                    raise NetError(
                        f'the shape of "{top}", {dims(found[top])}, is too large: {max(found[top])} exceeds {_MOST}'
                    )
                stand_in.input_param.shape.add(dim=found[top])
            net.layer[index].CopyFrom(stand_in)
        elif layer.HasField("transform_param"):
            layer.transform_param.ClearField("mean_file")  # it changes no shape, and may not be here
    for name in shapes:
        if name not in known:
            raise UnknownNameError(
                f'"{name}" is not an input of the net{nearest(name, known)}; it has {", ".join(sorted(known)) or "none"}'
            )


def _shapes_of(param: Any, cls: type[Source], missing: _Missing) -> list[Shape]:
    """The shapes of a source's tops, if its options give them, or all but the channels of a database that is missing."""
    shapes = cls.known_shapes(param)
    if shapes is None and issubclass(cls, BatchSource) and not os.path.exists(cls.source(param)):
        shapes = cls.known_shapes(param, missing.channels)
        if shapes is not None:
            log.warning(
                '%slayer "%s" (%s): its options do not give the number of channels, and its source is missing (%s): '
                "%d channels are assumed%s",
                f"{missing.file}: " if missing.file else "",
                param.name,
                param.type,
                cls.source(param) or "none given",
                missing.channels,
                missing.advice,
            )
    if shapes is None or not (cls.is_input or all(shapes[0])):
        return []
    return shapes


def _rows(net: CaffeModule, types: Mapping[str, str]) -> list[Row]:
    rows = []
    for step in net.steps:
        shapes = tuple(net.blob_shapes[top] for top in step.tops)
        blobs = [learnable for learnable in net.learnable if learnable.layer is step.layer]
        own = [top not in step.bottoms for top in step.tops]
        rows.append(
            Row(
                name=step.name,
                type=types.get(step.name, step.layer.type_name),
                bottoms=step.bottoms,
                tops=step.tops,
                shapes=shapes,
                parameters=sum(learnable.tensor.numel() for learnable in blobs),
                activations=sum(count(shape) for shape, new in zip(shapes, own, strict=True) if new),
                flops=step.layer.flops([net.blob_shapes[bottom] for bottom in step.bottoms], shapes),
                fixed=bool(blobs) and all(learnable.lr_mult == 0 for learnable in blobs),
            )
        )
    return rows
