"""Caffe's upgrades of old nets and solvers, exactly: the same fields move to the same places in the same order.

Forms of a net: V0 (``layers { layer { type: "conv" … } }``), V1 (``layers { type: CONVOLUTION … }``) and V2
(``layer { type: "Convolution" … }``), and within these, older ways to declare inputs, data transforms and BatchNorm
parameters.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from ..errors import NetError, SolverError, nearest
from ..forks import all_forks
from . import caffe_pb2
from .alignment import crop_offsets, set_offsets
from .copying import copy_fields

log = logging.getLogger(__name__)
V1_TYPES = {
    "NONE": "",
    "ABSVAL": "AbsVal",
    "ACCURACY": "Accuracy",
    "ARGMAX": "ArgMax",
    "BNLL": "BNLL",
    "CONCAT": "Concat",
    "CONTRASTIVE_LOSS": "ContrastiveLoss",
    "CONVOLUTION": "Convolution",
    "DECONVOLUTION": "Deconvolution",
    "DATA": "Data",
    "DROPOUT": "Dropout",
    "DUMMY_DATA": "DummyData",
    "EUCLIDEAN_LOSS": "EuclideanLoss",
    "ELTWISE": "Eltwise",
    "EXP": "Exp",
    "FLATTEN": "Flatten",
    "HDF5_DATA": "HDF5Data",
    "HDF5_OUTPUT": "HDF5Output",
    "HINGE_LOSS": "HingeLoss",
    "IM2COL": "Im2col",
    "IMAGE_DATA": "ImageData",
    "INFOGAIN_LOSS": "InfogainLoss",
    "INNER_PRODUCT": "InnerProduct",
    "LRN": "LRN",
    "MEMORY_DATA": "MemoryData",
    "MULTINOMIAL_LOGISTIC_LOSS": "MultinomialLogisticLoss",
    "MVN": "MVN",
    "POOLING": "Pooling",
    "POWER": "Power",
    "RELU": "ReLU",
    "SIGMOID": "Sigmoid",
    "SIGMOID_CROSS_ENTROPY_LOSS": "SigmoidCrossEntropyLoss",
    "SILENCE": "Silence",
    "SOFTMAX": "Softmax",
    "SOFTMAX_LOSS": "SoftmaxWithLoss",
    "SPLIT": "Split",
    "SLICE": "Slice",
    "TANH": "TanH",
    "WINDOW_DATA": "WindowData",
    "THRESHOLD": "Threshold",
}


def v1_type(name: str) -> str:
    """The type that the old form calls by a value of its enum; those of forks too: ``SMOOTH_L1_LOSS`` is SmoothL1Loss."""
    if name in V1_TYPES:
        return V1_TYPES[name]
    known = {each.casefold(): each for fork in all_forks() for each in fork.layer_types}
    return known.get(name.replace("_", "").casefold()) or "".join(part.title() for part in name.split("_"))


V0_TYPES = {
    "accuracy": "ACCURACY",
    "bnll": "BNLL",
    "concat": "CONCAT",
    "conv": "CONVOLUTION",
    "data": "DATA",
    "dropout": "DROPOUT",
    "euclidean_loss": "EUCLIDEAN_LOSS",
    "flatten": "FLATTEN",
    "hdf5_data": "HDF5_DATA",
    "hdf5_output": "HDF5_OUTPUT",
    "im2col": "IM2COL",
    "images": "IMAGE_DATA",
    "infogain_loss": "INFOGAIN_LOSS",
    "innerproduct": "INNER_PRODUCT",
    "lrn": "LRN",
    "multinomial_logistic_loss": "MULTINOMIAL_LOGISTIC_LOSS",
    "pool": "POOLING",
    "relu": "RELU",
    "sigmoid": "SIGMOID",
    "softmax": "SOFTMAX",
    "softmax_loss": "SOFTMAX_LOSS",
    "split": "SPLIT",
    "tanh": "TANH",
    "window_data": "WINDOW_DATA",
}

# V0 field -> V0 layer type -> where its value goes in the V1 layer. "*" is any type.
_V0_FIELDS: dict[str, dict[str, str]] = {
    "num_output": {"conv": "convolution_param.num_output", "innerproduct": "inner_product_param.num_output"},
    "biasterm": {"conv": "convolution_param.bias_term", "innerproduct": "inner_product_param.bias_term"},
    "weight_filler": {"conv": "convolution_param.weight_filler", "innerproduct": "inner_product_param.weight_filler"},
    "bias_filler": {"conv": "convolution_param.bias_filler", "innerproduct": "inner_product_param.bias_filler"},
    "pad": {"conv": "convolution_param.pad", "pool": "pooling_param.pad"},
    "kernelsize": {"conv": "convolution_param.kernel_size", "pool": "pooling_param.kernel_size"},
    "group": {"conv": "convolution_param.group"},
    "stride": {"conv": "convolution_param.stride", "pool": "pooling_param.stride"},
    "pool": {"pool": "pooling_param.pool"},
    "dropout_ratio": {"dropout": "dropout_param.dropout_ratio"},
    "local_size": {"lrn": "lrn_param.local_size"},
    "alpha": {"lrn": "lrn_param.alpha"},
    "beta": {"lrn": "lrn_param.beta"},
    "k": {"lrn": "lrn_param.k"},
    "source": {
        "data": "data_param.source",
        "hdf5_data": "hdf5_data_param.source",
        "images": "image_data_param.source",
        "window_data": "window_data_param.source",
        "infogain_loss": "infogain_loss_param.source",
    },
    "scale": {"*": "transform_param.scale"},
    "meanfile": {"*": "transform_param.mean_file"},
    "batchsize": {
        "data": "data_param.batch_size",
        "hdf5_data": "hdf5_data_param.batch_size",
        "images": "image_data_param.batch_size",
        "window_data": "window_data_param.batch_size",
    },
    "cropsize": {"*": "transform_param.crop_size"},
    "mirror": {"*": "transform_param.mirror"},
    "rand_skip": {"data": "data_param.rand_skip", "images": "image_data_param.rand_skip"},
    "shuffle_images": {"images": "image_data_param.shuffle"},
    "new_height": {"images": "image_data_param.new_height"},
    "new_width": {"images": "image_data_param.new_width"},
    "concat_dim": {"concat": "concat_param.concat_dim"},
    "det_fg_threshold": {"window_data": "window_data_param.fg_threshold"},
    "det_bg_threshold": {"window_data": "window_data_param.bg_threshold"},
    "det_fg_fraction": {"window_data": "window_data_param.fg_fraction"},
    "det_context_pad": {"window_data": "window_data_param.context_pad"},
    "det_crop_mode": {"window_data": "window_data_param.crop_mode"},
    "hdf5_output_param": {"hdf5_output": "hdf5_output_param"},
}

_TRANSFORMED = {"DATA": "data_param", "IMAGE_DATA": "image_data_param", "WINDOW_DATA": "window_data_param"}
_TRANSFORMS = ("scale", "mean_file", "crop_size", "mirror")
_SOLVER_TYPES = {
    "SGD": "SGD",
    "NESTEROV": "Nesterov",
    "ADAGRAD": "AdaGrad",
    "RMSPROP": "RMSProp",
    "ADADELTA": "AdaDelta",
    "ADAM": "Adam",
}


def upgrade_net(net: Any, file: str = "") -> list[str]:
    """Upgrade a ``NetParameter`` in place to the form that Caffe 1.0 builds nets from; return what was upgraded, in words.

    The steps and their order are Caffe's: V0 to V1 (padding layers are folded into the convolution or pooling after them),
    data transforms out of ``*data_param``, V1 to V2, net-level inputs into an ``Input`` layer at the start, BatchNorm's
    three ``param`` frozen. A net that needs none of these is left as it is, and the list is empty.

    Args:
        net: the net; its blobs, if any, are kept.
        file: the name that errors begin with.

    Raises:
        NetError: the net mixes forms, a V0 layer type is unknown, a padding layer comes before a layer that cannot
            pad, or there are fewer than four ``input_dim`` for each input.
    """
    try:
        return [words for step in _STEPS if (words := step(net))]
    except NetError as error:
        if file:
            raise NetError(f"{file}: {error}") from None
        raise


def _v0_to_v1(net: Any) -> str:
    old = [layer.HasField("layer") for layer in net.layers]
    if not any(old):
        return ""
    if not all(old):
        name = net.layers[old.index(False)].name
        raise NetError(
            f'layers "{name}" is in the V1 form, but others are in V0 (layers {{ layer {{ … }} }}): use one form'
        )
    if net.layer:
        raise _mixed(net)
    padded = _fold_padding(net)
    lost: list[str] = []
    upgraded = [_v1_layer(connection, lost) for connection in padded]
    folded = len(net.layers) - len(upgraded)
    for name in ("state", "debug_info"):
        if net.HasField(name):
            net.ClearField(name)
            lost.append(f"the net's {name}")
    if net.input_shape and net.input_dim:  # without input_dim it is kept, or the inputs would be lost
        net.ClearField("input_shape")
        lost.append("the net's input_shape")
    net.ClearField("layers")
    net.layers.extend(upgraded)
    words = f"{len(upgraded)} layers from the V0 form"
    if folded:
        words += f", {folded} padding layer{'s' * (folded > 1)} folded into the layers after them"
    if lost:
        words += f"; dropped, as Caffe does: {', '.join(lost)}"
    return words


def _fold_padding(net: Any) -> list[Any]:
    """Copies of the V0 layers without the padding layers; the ``pad`` and bottom of these go to the layer after them."""
    kept: list[Any] = []
    producer: dict[str, Any] = dict.fromkeys(net.input)
    for connection in net.layers:
        layer = connection.layer
        copy = type(connection)()
        copy.CopyFrom(connection)
        if layer.type != "padding":
            kept.append(copy)
        for index, bottom in enumerate(connection.bottom):
            if bottom not in producer:
                raise NetError(f'layer "{layer.name}": unknown bottom blob "{bottom}"{nearest(bottom, producer)}')
            source = producer[bottom]
            if source is None or source.layer.type != "padding":
                continue
            if layer.type not in ("conv", "pool"):
                raise NetError(
                    f'layer "{layer.name}" of type "{layer.type}" follows the padding layer "{source.layer.name}"; '
                    "only conv and pool can pad"
                )
            if len(connection.bottom) != 1:
                raise NetError(
                    f'layer "{layer.name}" has {len(connection.bottom)} bottoms, but padding needs exactly 1'
                )
            if len(source.bottom) != 1 or len(source.top) != 1:
                raise NetError(
                    f'padding layer "{source.layer.name}" has {len(source.bottom)} bottoms and {len(source.top)} tops, '
                    "but takes exactly 1 of each"
                )
            copy.layer.pad = source.layer.pad
            copy.bottom[index] = source.bottom[0]
        producer.update((top, connection) for top in connection.top)
    return kept


def _v1_layer(connection: Any, lost: list[str]) -> Any:
    """The V1 form of a V0 layer; fields that its type cannot have are added to ``lost``."""
    old, new = connection.layer, type(connection)()
    new.bottom.extend(connection.bottom)
    new.top.extend(connection.top)
    if old.HasField("name"):
        new.name = old.name
    if old.HasField("type"):
        if old.type not in V0_TYPES:
            raise NetError(
                f'layer "{old.name}": unknown V0 layer type "{old.type}"{nearest(old.type, V0_TYPES)}; '
                f"known: padding, {', '.join(V0_TYPES)}"
            )
        new.type = caffe_pb2.V1LayerParameter.LayerType.Value(V0_TYPES[old.type])
    for name in ("blobs", "blobs_lr", "weight_decay"):
        getattr(new, name).extend(getattr(old, name))
    for name, homes in _V0_FIELDS.items():
        if not old.HasField(name):
            continue
        home = homes.get(old.type) or homes.get("*")
        if home is None:
            lost.append(f'{name} of layer "{old.name}" (type "{old.type}"; it is for {", ".join(homes)})')
        else:
            _assign(new, home, getattr(old, name))
    return new


def _assign(message: Any, path: str, value: Any) -> None:
    """Set the field at the dotted ``path``: append where it is repeated, copy where it is a message."""
    *outer, name = path.split(".")
    for part in outer:
        message = getattr(message, part)
    target = getattr(message, name)
    if hasattr(target, "append"):
        target.append(value)
    elif hasattr(target, "CopyFrom"):
        target.CopyFrom(value)
    else:
        setattr(message, name, value)


def _data_transforms(net: Any) -> str:
    types = caffe_pb2.V1LayerParameter.LayerType
    concerned = [
        (layer, getattr(layer, _TRANSFORMED[types.Name(layer.type)]))
        for layer in net.layers
        if types.Name(layer.type) in _TRANSFORMED
    ]
    moved: list[str] = []
    if not any(param.HasField(name) for _, param in concerned for name in _TRANSFORMS):
        return ""
    for layer, param in concerned:
        param.SetInParent()
        layer.transform_param.SetInParent()
        for name in _TRANSFORMS:
            if param.HasField(name):
                setattr(layer.transform_param, name, getattr(param, name))
                param.ClearField(name)
                moved.append(f"{layer.name}.{name}")
    return f"data transforms moved to transform_param: {', '.join(moved)}"


def _v1_to_v2(net: Any) -> str:
    if not net.layers:
        return ""
    if net.layer:
        raise _mixed(net)
    upgraded = [_v2_layer(layer) for layer in net.layers]
    net.ClearField("layers")
    net.layer.extend(upgraded)
    return f"{len(upgraded)} layers from the V1 form{_align_crops(net)}"


def _align_crops(net: Any) -> str:
    """Give Crop layers, which in the V1 form are those of FCN's Caffe, the offsets that it works out; say so."""
    aligned = []
    for layer in net.layer:
        if layer.type != "Crop" or layer.HasField("crop_param"):
            continue
        try:
            offsets = crop_offsets(net.layer, layer)
        except NetError as error:
            log.warning("%s; it begins at 0", error)
            offsets = (0, 0)
        set_offsets(layer, offsets)
        aligned.append(f"{layer.name} at {offsets[0]}, {offsets[1]}")
    return f", Crop layers aligned: {'; '.join(aligned)}" if aligned else ""


def _mixed(net: Any) -> NetError:
    name = net.layers[0].name or net.layers[0].layer.name
    return NetError(
        f'the net has both "layers" (the old form, first "{name}") and "layer" (first "{net.layer[0].name}"); '
        'write all of them as layer { type: "Name" … }'
    )


_RENAMED = {"param", "blob_share_mode", "blobs_lr", "weight_decay", "type", "layer"}


def _v2_layer(old: Any) -> Any:
    new = caffe_pb2.LayerParameter()
    if old.HasField("type"):
        new.type = v1_type(old.DESCRIPTOR.fields_by_name["type"].enum_type.values_by_number[old.type].name)
    copy_fields(old, new, _RENAMED)
    for name, values in (
        ("name", old.param),
        ("share_mode", old.blob_share_mode),
        ("lr_mult", old.blobs_lr),
        ("decay_mult", old.weight_decay),
    ):
        for index, value in enumerate(values):
            while len(new.param) <= index:
                new.param.add()
            setattr(new.param[index], name, value)
    return new


def _inputs(net: Any) -> str:
    if not net.input:
        return ""
    names, shapes, dims = list(net.input), list(net.input_shape), list(net.input_dim)
    words = f"net-level input {', '.join(names)}"
    if shapes or dims:
        have, need = (len(shapes), len(names)) if shapes else (len(dims), 4 * len(names))
        if have < need:
            form = "one input_shape" if shapes else "four input_dim"
            raise NetError(f"{words}: each input needs {form}, {need} in all, but there are {have}")
        layer = caffe_pb2.LayerParameter(name="input", type="Input", top=names)
        layer.input_param.SetInParent()
        for index in range(len(names)):
            shape = layer.input_param.shape.add()
            shape.dim.extend(shapes[index].dim if shapes else dims[4 * index : 4 * index + 4])
        rest = list(net.layer)
        net.ClearField("layer")
        net.layer.add().CopyFrom(layer)
        net.layer.extend(rest)
        words += ' into the Input layer "input"'
    else:
        words += " without shapes dropped"
    for name in ("input", "input_shape", "input_dim"):
        net.ClearField(name)
    return words


def _batch_norms(net: Any) -> str:
    old = [
        layer
        for layer in net.layer
        if layer.type == "BatchNorm" and len(layer.param) == 3 and any(p.lr_mult or p.decay_mult for p in layer.param)
    ]
    for layer in old:
        for param in layer.param:
            param.lr_mult = param.decay_mult = 0
    return f"BatchNorm statistics frozen (lr_mult 0): {', '.join(layer.name for layer in old)}" if old else ""


_STEPS: tuple[Callable[[Any], str], ...] = (_v0_to_v1, _data_transforms, _v1_to_v2, _inputs, _batch_norms)


def upgrade_solver(solver: Any, file: str = "") -> list[str]:
    """Upgrade a ``SolverParameter`` in place to Caffe 1.0's form (``solver_type: ADAM`` to ``type: "Adam"``).

    Returns:
        What was upgraded, in words.

    Raises:
        SolverError: both ``solver_type`` and ``type`` are given.
    """
    if not solver.HasField("solver_type"):
        return []
    name = caffe_pb2.SolverParameter.SolverType.Name(solver.solver_type)
    if solver.HasField("type"):
        raise SolverError(
            f"{file + ': ' if file else ''}both solver_type: {name} (the old form) and "
            f'type: "{solver.type}" are given; keep type'
        )
    solver.type = _SOLVER_TYPES[name]
    solver.ClearField("solver_type")
    return [f'solver_type: {name} to type: "{solver.type}"']
