"""Layers as messages: the few that the paper's nets are made of, with the paper's names for their helpers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..proto import caffe_pb2

Shape = tuple[int, ...]
Filler = dict[str, Any]

GAUSSIAN: Filler = {"type": "gaussian", "std": 0.01}
LEARN = ({"lr_mult": 1, "decay_mult": 1}, {"lr_mult": 2, "decay_mult": 0})
FIXED = ({"lr_mult": 0, "decay_mult": 1}, {"lr_mult": 0, "decay_mult": 0})
MEAN_VALUE = (103.939, 116.779, 123.68)  # BGR, of ILSVRC 2012; what VGG-16 subtracts


def layer(
    name: str, type_name: str, bottoms: Sequence[str] = (), tops: Sequence[str] | None = None, **fields: Any
) -> Any:
    """Return a ``LayerParameter``; its one top is named ``name`` unless ``tops`` says otherwise.

    ``fields`` are further fields of the message: plain values, and dicts for messages.
    """
    tops = [name] if tops is None else tops
    return caffe_pb2.LayerParameter(name=name, type=type_name, bottom=list(bottoms), top=list(tops), **fields)


def weighted(
    name: str,
    type_name: str,
    bottom: str,
    top: str,
    num_output: int,
    *,
    filler: Filler,
    bias: float = 0,
    **geometry: Any,
) -> Any:
    """Return a Convolution, Deconvolution or InnerProduct with the paper's multipliers (lr 1 and 2, decay 1 and 0).

    ``geometry``: ``kernel_size``, ``pad``, …, for the first two. A bias of 0 is Caffe's default, not written down.
    """
    param = {"num_output": num_output, **geometry, "weight_filler": filler}
    if bias:
        param["bias_filler"] = {"value": bias}
    field = "inner_product_param" if type_name == "InnerProduct" else "convolution_param"
    return layer(name, type_name, [bottom], [top], param=LEARN, **{field: param})


def relu(blob: str) -> Any:
    """Return the in-place ReLU of ``blob``, ``BLOB/relu``."""
    return layer(f"{blob}/relu", "ReLU", [blob], [blob])


def max_pool(blob: str, kernel: int = 2, stride: int = 2) -> Any:
    """Return the max pooling of ``blob``, ``BLOB/pool``."""
    return layer(
        f"{blob}/pool", "Pooling", [blob], pooling_param={"pool": "MAX", "kernel_size": kernel, "stride": stride}
    )


def dropout(blob: str, ratio: float = 0.5) -> Any:
    """Return the dropout of ``blob``, ``BLOB/dropout`` (not in place)."""
    return layer(f"{blob}/dropout", "Dropout", [blob], dropout_param={"dropout_ratio": ratio})


def input_layer(name: str, shape: Shape) -> Any:
    """Return the Input layer of one blob."""
    return layer(name, "Input", input_param={"shape": [{"dim": shape}]})


def lmdb_layers(train: str, val: str, batch: tuple[int, int], labels: bool = True, **transform: Any) -> list[Any]:
    """Return the two Data layers, TRAIN and TEST, of an LMDB each.

    Args:
        train, val: the folders of the databases.
        batch: the batch sizes of the two phases.
        labels: whether there is a ``label`` top.
        transform: fields of ``TransformationParameter``; ``mirror`` is for TRAIN alone.
    """
    layers = []
    for phase, source, size in (("TRAIN", train, batch[0]), ("TEST", val, batch[1])):
        shown = {field: value for field, value in transform.items() if field != "mirror" or phase == "TRAIN"}
        layers.append(
            layer(
                "data",
                "Data",
                tops=["data", "label"] if labels else ["data"],
                include=[{"phase": phase}],
                transform_param=shown,
                data_param={"source": source, "backend": "LMDB", "batch_size": size},
            )
        )
    return layers


def classifier_losses(scores: str, top5: bool) -> list[Any]:
    """Return ``loss`` and, for the TEST phase, ``accuracy`` (and ``accuracy-top5``) of ``scores`` against ``label``."""
    test: dict[str, Any] = {"include": [{"phase": "TEST"}]}
    layers = [
        layer("loss", "SoftmaxWithLoss", [scores, "label"]),
        layer("accuracy", "Accuracy", [scores, "label"], **test),
    ]
    if top5:
        layers.append(layer("accuracy-top5", "Accuracy", [scores, "label"], accuracy_param={"top_k": 5}, **test))
    return layers
