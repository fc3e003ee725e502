"""A net as an ONNX model: its graph, its weights, its file."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...errors import CaffeError, NetError
from ...files import atomic_path, require_writable
from ...layers.inputs import DummyData
from ...net import Net
from ...packages import require_package
from ...proto import wire
from ...wiring import Step
from .. import __name__ as _package
from ..outline import Outline, Value, outline
from ..preprocess import Preprocessing
from ..reasons import why
from ..registry import Unsaid
from . import (
    cascades,
    combining,
    detection,
    flows,
    linear,
    neurons,
    normalization,
    peaks,
    recurrent,
    regions,
    resizing,
    windows,
    yolo,
)
from .emitter import EMITTERS, Emitter, as_float32

FAMILIES = (
    cascades,
    combining,
    detection,
    flows,
    linear,
    neurons,
    normalization,
    peaks,
    recurrent,
    regions,
    resizing,
    windows,
    yolo,
)
OPSET, OLDEST = 18, 18
ONE_FILE = 2 << 30  # protobuf's limit; beyond it weights go into a file of their own
PathLike = str | os.PathLike[str]


def to_onnx(
    net: Net,
    path: PathLike,
    *,
    opset: int = OPSET,
    dynamic: Mapping[str, Sequence[int]] | None = None,
    preprocessing: Preprocessing | None = None,
    bake: bool = False,
    fold: bool = False,
) -> Outline:
    """Write ``net`` as an ONNX model of standard operators.

    Blobs and layers keep their names: a blob that later layers change in place is called BLOB/LAYER before they do, and an
    input after they do.
    Losses, Accuracy and layers that write files are left out. Weights are stored as float32.

    Args:
        net: built for the TEST phase, with its weights.
        path: the file; weights of 2 GB and more go into ``path`` + ``.data`` beside it.
        opset: the version of ONNX's operators, at least 18.
        dynamic: by input, the axes whose length may change besides axis 0, which always may where the net allows it.
        preprocessing: the preprocessing that the net expects; goes into the model's ``metadata_props``.
        bake: let the model preprocess its input: its first input is an RGB image with values from 0 to 255.
        fold: fold BatchNorm and Scale into the convolution before them.

    Returns:
        What was exported: inputs, outputs, notes.

    Raises:
        CaffeError: onnx is not installed, or has no such opset.
        NetError: a net without inputs, or layers that ONNX cannot express; the message names them all.
    """
    onnx = _onnx()
    newest = onnx.defs.onnx_opset_version()
    if not OLDEST <= opset <= newest:
        raise CaffeError(f"opset {opset}: this onnx ({onnx.__version__}) and this exporter know {OLDEST} to {newest}")
    require_writable(os.fspath(path))
    found = outline(net, dynamic, fold)
    if preprocessing is not None:
        preprocessing.check(found)
    emitter, renamed = _emit(found, (preprocessing or Preprocessing()) if bake else None)
    metadata = {} if preprocessing is None else preprocessing.metadata
    if bake:
        metadata["preprocessed"] = "model"
    model = _model(onnx, found, emitter, renamed, opset, metadata)
    with replacing(path):
        _write(onnx, model, emitter, os.fspath(path))
    return found


@contextlib.contextmanager
def replacing(path: PathLike) -> Iterator[None]:
    """Within, a model takes the place of the one at ``path``; then the old one's weights beside it go, if the new has none."""
    old = _weights_beside(path)
    yield
    if old and not _weights_beside(path):
        os.remove(old)


def _weights_beside(path: PathLike) -> str:
    """``path`` + ``.data``, if it is there and the model at ``path`` says that its weights are in it; else nothing."""
    beside, onnx = f"{os.fspath(path)}.data", _onnx()
    if not (os.path.isfile(beside) and os.path.isfile(path)):
        return ""
    try:
        model = onnx.load(os.fspath(path), load_external_data=False)
    except Exception:  # no model, in the words of protobuf's versions
        return ""
    entries = (entry for tensor in model.graph.initializer for entry in tensor.external_data)
    return beside if any(e.key == "location" and e.value == os.path.basename(beside) for e in entries) else ""


def _onnx() -> Any:
    return require_package("onnx", "ONNX models need the package onnx", "pycaffe_compat[onnx]")


def _emit(found: Outline, baked: Preprocessing | None) -> tuple[Emitter, dict[str, str]]:
    """The nodes of all layers, and what their outputs are called in the end."""
    emitter = Emitter(found.folded, (value.name for value in found.values.values()))
    faults: list[str] = []
    renamed: dict[str, str] = {}
    replaced = _bake(emitter, found, baked) if baked is not None else {}
    first = len(emitter.nodes)
    for step in found.steps:
        if (step.is_source and not isinstance(step.layer, DummyData)) or step.name in found.aliases:
            continue
        tops = [found.values[v] for v in step.top_values]
        emitter.begin(step.name, tops)
        try:
            _emit_step(emitter, step, found, tops, renamed)
        except Unsaid as error:
            faults.append(str(error))
    for node in emitter.nodes[first:]:
        for i, name in enumerate(node.input):
            node.input[i] = replaced.get(name, name)
    if faults:
        raise NetError(f"{found.net.file or 'the net'}: cannot be written as ONNX: {'; '.join(faults)}")
    for blob, value in found.outputs.items():
        name = found.results[blob]
        if name != blob:
            found.notes.append(f"the output {blob} is called {name}, as {blob} is an input")
        if value.name != name:
            emitter.begin(name, [])
            renamed[emitter.op("Identity", value)] = name
    return emitter, renamed


def _bake(e: Emitter, found: Outline, baked: Preprocessing) -> dict[str, str]:
    """Nodes that make the net's input of a picture in RGB; by the input's name what they make."""
    name, value = next(iter(found.inputs.items()))
    if len(value.shape) != 4:
        raise NetError(f'input "{name}" has {len(value.shape)} axes; a picture has 4: number, channels, height, width')
    channels = value.shape[1]
    e.begin("preprocess", [])
    x: object = value
    if baked.order == "BGR" and channels == 3:
        x = e.op("Gather", x, e.ints(2, 1, 0), axis=1)
    means = baked.means(channels)
    if means.any():
        x = e.op("Sub", x, e.constant(means.reshape(1, -1, 1, 1)))
    x = e.op("Mul", x, e.number(baked.scale)) if baked.scale != 1 or x is value else x
    return {name: str(x)}


def _emit_step(emitter: Emitter, step: Step, found: Outline, tops: Sequence[Value], renamed: dict[str, str]) -> None:
    layer = step.layer
    if isinstance(layer, DummyData):
        for i, top in enumerate(tops):
            if layer.fillers[i].type != "constant":
                raise Unsaid(f'layer "{layer.name}" (DummyData): fills its tops with random numbers')
            constant = emitter.constant(as_float32(getattr(layer, f"top{i}")))
            renamed[emitter.op("Identity", constant)] = top.name
        return
    function = EMITTERS.find(type(layer))
    if function is None:
        reason = why(type(layer)) or "ONNX has no operators for it, or none are known here"
        raise Unsaid(f'layer "{layer.name}" ({layer.type_name}): {reason}')
    made = function(emitter, layer, *(found.values[v] for v in step.bottom_values))
    names = [made] if isinstance(made, (str, Value)) else list(made or [])
    for name, top in zip(names, tops, strict=True):
        if str(name) in renamed or not any(str(name) in node.output for node in emitter.nodes):
            name = emitter.op("Identity", name)
        renamed[str(name)] = top.name


def _model(
    onnx: Any, found: Outline, e: Emitter, renamed: Mapping[str, str], opset: int, metadata: Mapping[str, str]
) -> Any:
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT

    def info(name: str, blob: str, value: Value) -> Any:
        dims = [found.axis(blob, a) if a in value.moving else n for a, n in enumerate(value.shape)]
        return helper.make_tensor_value_info(name, kind, dims)

    for node in e.nodes:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                names[i] = renamed.get(name, name)
    read = {name for node in e.nodes for name in node.input}
    for stored in (e.weights, e.constants):  # runtimes warn of what nothing reads
        for name in stored.keys() - read:
            del stored[name]
    constants = [onnx.numpy_helper.from_array(array, name) for name, array in e.constants.items()]
    outputs = [info(found.results[blob], blob, value) for blob, value in found.outputs.items()]
    graph = helper.make_graph(
        e.nodes,
        found.net.caffe_name or "net",
        [info(name, name, value) for name, value in found.inputs.items()],
        outputs,
        initializer=constants,
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], producer_name=_package.split(".")[0]
    )
    model.ir_version = min(model.ir_version, 10)
    helper.set_model_props(model, dict(metadata))
    return model


def _write(onnx: Any, model: Any, e: Emitter, path: str) -> None:
    """Write the model with its weights as they lie in memory: protobuf would copy them, twice."""
    fields = {
        kind.name: kind.number for kind in (*onnx.GraphProto.DESCRIPTOR.fields, *onnx.TensorProto.DESCRIPTOR.fields)
    }
    graph_field = onnx.ModelProto.DESCRIPTOR.fields_by_name["graph"].number
    graph = model.graph.SerializeToString()
    model.ClearField("graph")
    sizes = {name: 4 * value.numel() for name, value in e.weights.items()}
    apart = sum(sizes.values()) + len(graph) >= ONE_FILE
    entries, offset = {}, 0
    for name, value in e.weights.items():
        tensor = onnx.TensorProto(name=name, dims=list(value.shape), data_type=onnx.TensorProto.FLOAT)
        if apart:
            tensor.data_location = onnx.TensorProto.EXTERNAL
            beside = {"location": f"{os.path.basename(path)}.data", "offset": offset, "length": sizes[name]}
            for key, entry in beside.items():
                tensor.external_data.add(key=key, value=str(entry))
            offset += sizes[name]
            entries[name] = tensor.SerializeToString()
        else:
            entries[name] = tensor.SerializeToString() + wire.header(fields["raw_data"], sizes[name])
    lengths = {name: len(entry) + (0 if apart else sizes[name]) for name, entry in entries.items()}
    heads = {name: wire.header(fields["initializer"], length) + entries[name] for name, length in lengths.items()}
    inside = len(graph) + sum(len(heads[n]) - len(entries[n]) + lengths[n] for n in entries)
    if apart:
        with atomic_path(f"{path}.data") as temporary, open(temporary, "wb") as file:
            for value in e.weights.values():
                file.write(as_float32(value).data)
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        file.write(model.SerializeToString() + wire.header(graph_field, inside) + graph)
        for name, value in e.weights.items():
            file.write(heads[name])
            if not apart:
                file.write(as_float32(value).data)
