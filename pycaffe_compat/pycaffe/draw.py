"""Pictures of nets: the graph is written in Graphviz's language, whose program ``dot`` makes pictures of it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from typing import Any

from ..errors import CaffeError
from ..files import atomic_path
from ..packages import require_package
from ..proto import as_phase, caffe_pb2, filter_net, upgrade_net

RANKDIRS = ("LR", "TB", "BT", "RL")
TEXT_FORMATS = ("dot", "gv")
_WINDOWED = {
    "Convolution": "convolution_param",
    "Deconvolution": "convolution_param",
    "Im2col": "convolution_param",
    "Pooling": "pooling_param",
    "Depooling": "pooling_param",
}
_BLOB_STYLE = {"shape": "octagon", "style": "filled", "fillcolor": "#EEEEEE"}
_IN_PLACE = "#C8E6C9"
_OTHER = "#BBDEFB"
_COLORS = {
    **dict.fromkeys(("Convolution", "Deconvolution", "Im2col"), "#FFAB91"),
    **dict.fromkeys(("Pooling", "Depooling", "SPP"), "#FFE082"),
    **dict.fromkeys(("InnerProduct", "Embed", "RNN", "LSTM"), "#CE93D8"),
}


def get_pooling_types_dict() -> dict[int, str]:
    """Pooling method number → its name."""
    return {number: name for name, number in caffe_pb2.PoolingParameter.PoolMethod.items()}


def get_layer_lr_mult(layer: Any) -> list[float]:
    """The learning rate multipliers that a layer's ``param`` blocks give, in order."""
    return [param.lr_mult for param in layer.param]


def get_layer_label(layer: Any, rankdir: str, display_lrm: bool = False) -> str:
    """The quoted text in a layer's box: name, type, window options; on one line in pictures from top to bottom."""
    parts = [layer.name, f"({layer.type})"]
    if layer.type in _WINDOWED:
        param = getattr(layer, _WINDOWED[layer.type])
        if layer.type.endswith("ooling"):
            parts[1] = f"({get_pooling_types_dict()[param.pool]} {layer.type})"
        if not getattr(param, "global_pooling", False):
            parts += [
                f"kernel size: {_window(param, 'kernel', 'kernel_size', 1)}",
                f"stride: {_window(param, 'stride', 'stride', 1)}",
                f"pad: {_window(param, 'pad', 'pad', 0)}",
            ]
    if display_lrm and layer.param:
        parts.append("lr mult: " + ", ".join(f"{rate:g}" for rate in get_layer_lr_mult(layer)))
    return _quoted((" " if rankdir in ("TB", "BT") else "\n").join(parts))


def _window(param: Any, stem: str, field: str, default: int) -> str:
    """A window's option as it is given: ``3``, or ``3x5`` where height and width (or further axes) differ."""
    height, width = getattr(param, f"{stem}_h"), getattr(param, f"{stem}_w")
    given = getattr(param, field)
    sizes = [given] if isinstance(given, int) else list(given)
    if param.HasField(f"{stem}_h") or param.HasField(f"{stem}_w"):
        sizes = [height, width]
    return "x".join(map(str, dict.fromkeys(sizes) if len(set(sizes)) == 1 else sizes)) or str(default)


def choose_color_by_layertype(layertype: str) -> str:
    """The fill colour of a layer's box."""
    return _COLORS.get(layertype, _OTHER)


def get_edge_label(layer: Any) -> str:
    """The text on an edge from a layer to its top: how many channels, or the batch size; ``""`` in quotes for none."""
    if layer.type == "Data":
        return _quoted(f"Batch {layer.data_param.batch_size}")
    if layer.type in ("Convolution", "Deconvolution"):
        return str(layer.convolution_param.num_output)
    if layer.type == "InnerProduct":
        return str(layer.inner_product_param.num_output)
    return '""'


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _attributes(values: Mapping[str, str]) -> str:
    quoted = (f"{name}={value if value.startswith(chr(34)) else _quoted(value)}" for name, value in values.items())
    return f"[{', '.join(quoted)}]"


def _upgraded(caffe_net: Any) -> Any:
    if not isinstance(caffe_net, caffe_pb2.NetParameter):
        hint = (
            "; caffe_pb2 and text_format read one from a prototxt" if isinstance(caffe_net, (str, os.PathLike)) else ""
        )
        raise CaffeError(f"a NetParameter can be drawn, not a {type(caffe_net).__name__}{hint}")
    net = caffe_pb2.NetParameter()
    net.CopyFrom(caffe_net)
    upgrade_net(net)
    return net


def dot_text(
    caffe_net: Any, rankdir: str = "LR", label_edges: bool = True, phase: int | None = None, display_lrm: bool = False
) -> str:
    """The graph of a ``NetParameter`` in Graphviz's language: layers as boxes, blobs as octagons.

    Args:
        caffe_net: the net; a copy is upgraded if it is of an older format.
        rankdir: ``"LR"`` (left to right), ``"TB"``, ``"BT"`` or ``"RL"``.
        label_edges: write numbers of channels on the edges.
        phase: draw the layers of this phase; None: all.
        display_lrm: show learning rate multipliers.

    Raises:
        CaffeError: there is no such direction.
    """
    if rankdir not in RANKDIRS:
        raise CaffeError(f'rankdir: "{rankdir}" is not a direction; valid: {", ".join(RANKDIRS)}')
    caffe_net = _upgraded(caffe_net)
    if phase is not None:
        state = caffe_pb2.NetState()
        state.CopyFrom(caffe_net.state)
        state.phase = as_phase(phase)
        caffe_net = filter_net(caffe_net, state)
    lines = [f"digraph {_quoted(caffe_net.name or 'Net')} {{", f"rankdir={rankdir};"]
    blobs: dict[str, None] = {}
    for index, layer in enumerate(caffe_net.layer):
        node = _quoted(f"{layer.name}_{layer.type}_{index}")
        in_place = len(layer.bottom) == 1 and list(layer.bottom) == list(layer.top)
        color = _IN_PLACE if in_place else choose_color_by_layertype(layer.type)
        label = get_layer_label(layer, rankdir, display_lrm)
        lines.append(f"{node} {_attributes({'label': label, 'shape': 'box', 'style': 'filled', 'fillcolor': color})};")
        blobs.update(dict.fromkeys((*layer.bottom, *layer.top)))
        lines += [f"{_quoted(f'{bottom}_blob')} -> {node};" for bottom in layer.bottom]
        edge = _attributes({"label": get_edge_label(layer) if label_edges else '""'})
        lines += [f"{node} -> {_quoted(f'{top}_blob')} {edge};" for top in layer.top]
    lines += [f"{_quoted(f'{blob}_blob')} {_attributes({'label': _quoted(blob), **_BLOB_STYLE})};" for blob in blobs]
    return "\n".join([*lines, "}", ""])


def get_pydot_graph(
    caffe_net: Any, rankdir: str, label_edges: bool = True, phase: int | None = None, display_lrm: bool = False
) -> Any:
    """The ``pydot.Dot`` graph of a ``NetParameter``; arguments as for :func:`dot_text`.

    Raises:
        CaffeError: the package pydot is not installed, or cannot read the graph. Nothing else here needs it.
    """
    pydot = require_package("pydot", "get_pydot_graph needs the package pydot", "pydot")
    graphs = pydot.graph_from_dot_data(dot_text(caffe_net, rankdir, label_edges, phase, display_lrm))
    if not graphs:
        raise CaffeError("pydot cannot read the net's graph; draw_net needs no pydot")
    return graphs[0]


def draw_net(
    caffe_net: Any, rankdir: str, ext: str = "png", phase: int | None = None, display_lrm: bool = False
) -> bytes:
    """The picture of a net as bytes, in a format of Graphviz, or its text (``dot``, ``gv``).

    Raises:
        CaffeError: Graphviz is not installed, or does not know the format.
    """
    text = dot_text(caffe_net, rankdir, phase=phase, display_lrm=display_lrm).encode("utf-8", "replace")
    if ext in TEXT_FORMATS:
        return text
    try:
        made = subprocess.run(["dot", f"-T{ext}"], input=text, capture_output=True, check=False)
    except OSError as error:
        raise CaffeError(
            f"Graphviz's program dot was not found ({error.strerror}): install Graphviz, or write text "
            f"({' or '.join(f'.{each}' for each in TEXT_FORMATS)}) and draw it elsewhere"
        ) from error
    if made.returncode:
        raise CaffeError(f"Graphviz could not draw the net as {ext}: {made.stderr.decode(errors='replace').strip()}")
    return made.stdout


def draw_net_to_file(
    caffe_net: Any,
    filename: str | os.PathLike[str],
    rankdir: str = "LR",
    phase: int | None = None,
    display_lrm: bool = False,
) -> None:
    """Write the picture of a net to a file; the ending says the format (``.png``, ``.svg``, ``.pdf``, ``.dot`` …)."""
    ext = os.path.splitext(os.fspath(filename))[1].lstrip(".") or "png"
    picture = draw_net(caffe_net, rankdir, ext, phase, display_lrm)
    with atomic_path(filename) as temporary, open(temporary, "wb") as file:
        file.write(picture)
