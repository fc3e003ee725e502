"""Pictures of nets through Graphviz (the optional package pydot, and Graphviz's ``dot``)."""

from __future__ import annotations

import os
from typing import Any

from ..errors import CaffeError
from ..proto import caffe_pb2, filter_net

_LAYER_STYLE = {"shape": "record", "fillcolor": "#6495ED", "style": "filled"}
_BLOB_STYLE = {"shape": "octagon", "fillcolor": "#E0E0E0", "style": "filled"}
_FILL_BY_TYPE = {
    "Convolution": "#FF5050",
    "Deconvolution": "#FF5050",
    "Pooling": "#FF9900",
    "Depooling": "#FF9900",
    "InnerProduct": "#CC33FF",
}


def _pydot() -> Any:
    try:
        import pydot
    except ImportError:
        raise CaffeError("drawing a net needs the package pydot (pip install pydot) and Graphviz's dot program") from None
    return pydot


def get_pooling_types_dict() -> dict[int, str]:
    """Pooling method number → its name."""
    return {v: k for k, v in caffe_pb2.PoolingParameter.PoolMethod.items()}


def get_layer_label(layer: Any, rankdir: str, display_lrm: bool = False) -> str:
    """The text in a layer's box: its name, type and window options, on one line in top-down pictures (``TB``)."""
    separator = " " if rankdir in ("TB", "BT") else r"\n"
    parts = [layer.name, f"({layer.type})"]
    options = {"Convolution": "convolution_param", "Deconvolution": "convolution_param", "Pooling": "pooling_param", "Depooling": "pooling_param"}
    if layer.type in options:
        param = getattr(layer, options[layer.type])
        sizes = {}
        for field, fallback in (("kernel_size", 1), ("stride", 1), ("pad", 0)):
            value = getattr(param, field)
            values = list(value) if not isinstance(value, int) else [value]
            sizes[field] = values[0] if values else fallback
        if layer.type.endswith("ooling"):
            parts[1] = f"({get_pooling_types_dict()[param.pool]} {layer.type})"
        parts += [f"kernel size: {sizes['kernel_size']}", f"stride: {sizes['stride']}", f"pad: {sizes['pad']}"]
    if display_lrm and layer.param:
        parts.append("lr mult: " + ", ".join(f"{p.lr_mult:g}" for p in layer.param))
    return '"' + separator.join(parts) + '"'


def choose_color_by_layertype(layertype: str) -> str:
    """The fill colour of a layer's box."""
    return _FILL_BY_TYPE.get(layertype, _LAYER_STYLE["fillcolor"])


def get_edge_label(layer: Any) -> str:
    """The text on an edge from a layer to its top: how many channels, or the batch size."""
    if layer.type == "Data":
        return f"Batch {layer.data_param.batch_size}"
    if layer.type in ("Convolution", "Deconvolution"):
        return str(layer.convolution_param.num_output)
    if layer.type == "InnerProduct":
        return str(layer.inner_product_param.num_output)
    return '""'


def get_pydot_graph(caffe_net: Any, rankdir: str, label_edges: bool = True, phase: int | None = None, display_lrm: bool = False) -> Any:
    """The ``pydot.Dot`` graph of a ``NetParameter``, of one phase or of all layers (None)."""
    pydot = _pydot()
    if phase is not None:
        state = caffe_pb2.NetState()
        state.CopyFrom(caffe_net.state)
        state.phase = phase
        caffe_net = filter_net(caffe_net, state)
    graph = pydot.Dot(caffe_net.name or "Net", graph_type="digraph", rankdir=rankdir)
    blobs: set[str] = set()
    edges: list[tuple[str, str, str]] = []
    for index, layer in enumerate(caffe_net.layer):
        node = f"{layer.name}_{layer.type}_{index}"
        in_place = list(layer.bottom) == list(layer.top) and len(layer.bottom) == 1
        style = {**_LAYER_STYLE, "fillcolor": "#90EE90" if in_place else choose_color_by_layertype(layer.type)}
        graph.add_node(pydot.Node(f'"{node}"', label=get_layer_label(layer, rankdir, display_lrm), **style))
        for bottom in layer.bottom:
            blobs.add(bottom)
            edges.append((f"{bottom}_blob", node, '""'))
        for top in layer.top:
            blobs.add(top)
            edges.append((node, f"{top}_blob", get_edge_label(layer) if label_edges else '""'))
    for blob in sorted(blobs):
        graph.add_node(pydot.Node(f'"{blob}_blob"', label=f'"{blob}"', **_BLOB_STYLE))
    for source, target, label in edges:
        graph.add_edge(pydot.Edge(f'"{source}"', f'"{target}"', label=label))
    return graph


def draw_net(caffe_net: Any, rankdir: str, ext: str = "png", phase: int | None = None, display_lrm: bool = False) -> bytes:
    """The picture of a net in a format of Graphviz, as bytes."""
    graph = get_pydot_graph(caffe_net, rankdir, phase=phase, display_lrm=display_lrm)
    try:
        return graph.create(format=ext)
    except (OSError, AssertionError) as error:
        raise CaffeError(f"Graphviz could not draw the net (is its dot program installed?): {error}") from error


def draw_net_to_file(
    caffe_net: Any, filename: str | os.PathLike[str], rankdir: str = "LR", phase: int | None = None, display_lrm: bool = False
) -> None:
    """Write the picture of a net to a file; the ending says the format (``.png``, ``.svg``, ``.pdf`` …)."""
    ext = os.path.splitext(os.fspath(filename))[1].lstrip(".") or "png"
    picture = draw_net(caffe_net, rankdir, ext, phase, display_lrm)
    with open(filename, "wb") as file:
        file.write(picture)
