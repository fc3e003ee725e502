"""What a net is made of: a table of its layers with shapes, parameters, memory and arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .errors import UnknownNameError, nearest
from .layers import REGISTRY, Layer, Source
from .layers.base import Shape, count
from .net import Net, as_phase
from .proto import caffe_pb2, filter_net, upgrade_net
from .tables import dims, format_table, human

RECURRENT = ("RNN", "LSTM")


@dataclass
class Row:
    """One layer of a net.

    Attributes:
        name, type: of the layer.
        bottoms, tops: names of blobs.
        shapes: of the tops.
        parameters: how many numbers its blobs hold, without those that another layer owns.
        activations: how many numbers its tops hold, without those made in place.
        flops: of its products, each multiplication and addition counted as one; None where the layer has none.
        fixed: it has parameters and all have ``lr_mult`` 0.
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
    param: Any, phase: int | str = "TEST", shapes: Mapping[str, Shape] | None = None, file: str = ""
) -> Net:
    """Return the net on the meta device: every shape is known, no parameter has memory, and no database is needed.

    A data layer whose tops' shapes follow from its options (``crop_size`` and the number of ``mean_value``) is not
    opened: an ``Input`` stands in for it. Others read their first record. ``shapes`` gives the shape of an input, or
    of a top of a data layer, by name.

    Raises:
        NetError: the net cannot be built.
        UnknownNameError: ``shapes`` names no input and no top of a data layer.
    """
    net = caffe_pb2.NetParameter()
    net.CopyFrom(param)
    upgrade_net(net)
    net.state.phase = as_phase(phase)
    net = filter_net(net, net.state)
    _close_sources(net, dict(shapes or {}))
    return Net(net, device="meta", file=file)


def describe(
    param: Any, phase: int | str = "TEST", shapes: Mapping[str, Shape] | None = None, file: str = ""
) -> list[Row]:
    """Return a row for each layer that ``param`` has in ``phase``; the arguments are those of :func:`build_shapes`."""
    built = build_shapes(param, phase, shapes, file)
    types = {layer.name: layer.type for layer in param.layer}
    try:
        return _rows(built, types)
    finally:
        built.close()


def summarize(rows: list[Row]) -> str:
    """Return ``rows`` as a table with the totals of parameters, memory and arithmetic under it."""
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
            f"activations  {activations:,} ({human(4 * activations, 'B')} in float32), none for what works in place",
            f"arithmetic   {human(flops, 'FLOP')} a forward pass: 2 for each multiply-add with weights",
        ]
    )


def _close_sources(net: Any, shapes: dict[str, Shape]) -> None:
    """Give ``Input`` layers their ``shapes``, and put one in the place of each data layer whose shapes are known."""
    known = set()
    for index, layer in enumerate(net.layer):
        cls = REGISTRY.get(layer.type)
        if cls is None or not issubclass(cls, Source):
            continue
        known.update(layer.top)
        guessed = {**_guess(layer), **shapes}
        if layer.type == "Input":
            given = layer.input_param.shape
            own = [tuple(given[i if len(given) > 1 else 0].dim) if given else () for i in range(len(layer.top))]
            guessed = {**dict(zip(layer.top, own, strict=True)), **shapes}
        if all(top in guessed for top in layer.top):
            stand_in = caffe_pb2.LayerParameter(name=layer.name, type="Input", top=layer.top)
            stand_in.input_param.shape.extend(caffe_pb2.BlobShape(dim=guessed[top]) for top in layer.top)
            net.layer[index].CopyFrom(stand_in)
    for name in shapes:
        if name not in known:
            raise UnknownNameError(
                f'"{name}" is no input of the net{nearest(name, known)}; it has {", ".join(sorted(known)) or "none"}'
            )


def _guess(layer: Any) -> dict[str, Shape]:
    """The shapes of a data layer's tops, as far as its options say them."""
    batch = layer.data_param.batch_size or layer.image_data_param.batch_size
    transform = layer.transform_param
    channels = 1 if transform.force_gray else 3 if transform.force_color else 0
    channels = channels or (len(transform.mean_value) if len(transform.mean_value) > 1 else 0)
    if layer.type == "ImageData" and not channels:
        channels = 3 if layer.image_data_param.is_color else 1
    if not (batch and transform.crop_size and channels):
        return {}
    shapes: list[Shape] = [(batch, channels, transform.crop_size, transform.crop_size), (batch,)]
    return dict(zip(layer.top, shapes, strict=False))


def _rows(net: Net, types: Mapping[str, str]) -> list[Row]:
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
                flops=_flops(step.layer, [net.blob_shapes[bottom] for bottom in step.bottoms], shapes),
                fixed=bool(blobs) and all(learnable.lr_mult == 0 for learnable in blobs),
            )
        )
    return rows


def _flops(layer: Layer, bottoms: list[Shape], tops: tuple[Shape, ...]) -> int | None:
    """A matrix or filter bank takes part in a product once for each place (row, pixel, time step) it is applied at."""
    weights = sum(count(spec.shape) for spec in layer.blob_specs if len(spec.shape) > 1)
    axis = getattr(layer, "axis", 1)
    if layer.type_name == "Convolution":
        places = sum(count(shape, 0, axis) * count(shape, axis + 1) for shape in tops)
    elif layer.type_name == "Deconvolution":
        places = sum(count(shape, 0, axis) * count(shape, axis + 1) for shape in bottoms)
    elif layer.type_name == "InnerProduct":
        places = count(bottoms[0], 0, axis)
    elif layer.type_name in RECURRENT:
        places = count(bottoms[0], 0, 2)
    else:
        return None
    return 2 * weights * places
