"""Checks trained weights against a net."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from ..errors import WeightsError, nearest
from ..loading import same_shape
from ..proto import caffe_pb2, read_net
from ..summary import build_shapes
from ..tables import dims
from .model import Model, PathLike


def fit_to_net(model: Model, prototxt: PathLike) -> tuple[Model, list[str]]:
    """Return ``model`` with names, types and blob shapes of the net in ``prototxt``, and remarks on what only one has.

    Shapes may differ in leading axes of length 1, as in old caffemodels. Layers that the net does not have stay as they
    are.

    Raises:
        WeightsError: a layer has another number of blobs, or a blob another shape, than in the net, or they have no layer
            in common; both files are named.
    """
    net_file = os.fspath(prototxt)
    net = build_shapes(read_net(prototxt), "TEST", file=net_file)
    net.close()
    fitted = Model(model.file, dict(model.blobs), dict(model.names), caffe_pb2.NetParameter())
    fitted.skeleton.CopyFrom(model.skeleton)
    have = {layer.name: layer for layer in fitted.skeleton.layer}
    missing = []
    for name, layer in net.layers.items():
        if not layer.blob_specs:
            continue
        if name not in model.blobs:
            missing.append(name)
            continue
        arrays, specs = model.blobs[name], layer.blob_specs
        if len(arrays) != len(specs):
            raise WeightsError(
                f'layer "{name}" has {len(specs)} blobs in {net_file}, but {len(arrays)} in {model.file}'
            )
        for index, (array, spec) in enumerate(zip(arrays, specs, strict=True)):
            if not same_shape(array.shape, spec.shape):
                raise WeightsError(
                    f'layer "{name}", blob {index} ({spec.name}): shape {dims(spec.shape)} in {net_file}, '
                    f"but {dims(array.shape)} in {model.file}"
                )
        fitted.blobs[name] = [array.reshape(spec.shape) for array, spec in zip(arrays, specs, strict=True)]
        fitted.names[name] = [spec.name for spec in specs]
        have[name].type = layer.type_name
    extra = [name for name in model.blobs if name not in net.layers]
    if missing and len(missing) == sum(bool(layer.blob_specs) for layer in net.layers.values()):
        raise WeightsError(
            f"{model.file} has no weights for any layer of {net_file}{_hint(missing, extra)}; it has {_listed(extra) or 'none'}"
        )
    remarks = []
    if missing:
        remarks.append(f"{model.file} has no weights for {_listed(missing)} of {net_file}{_hint(missing, extra)}")
    if extra:
        remarks.append(f"{net_file} has no layers for the weights of {_listed(extra)}")
    return fitted, remarks


def _listed(names: Sequence[str], most: int = 6) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(f'"{name}"' for name in names[:most]) + more


def _hint(names: Iterable[str], choices: Sequence[str]) -> str:
    for name in names:
        if near := nearest(name, choices, 1):
            return near
    return ""
