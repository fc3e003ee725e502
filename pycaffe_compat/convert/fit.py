"""Checks trained weights against a net."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..errors import WeightsError, nearest
from ..loading import FileReport, match_blobs
from ..net import CaffeModule
from ..proto import caffe_pb2, read_net
from ..summary import build_shapes
from ..tables import some
from .model import Model, PathLike


def shapes_of(prototxt: PathLike, blobs: Mapping[str, Sequence[Any]]) -> CaffeModule:
    """Return the net in ``prototxt`` on the meta device, with its data layers closed.

    Where neither the net nor its database says how many channels an image has, the stored ``blobs`` do.
    """
    param = read_net(prototxt)
    net = build_shapes(param, "TEST", file=os.fspath(prototxt), channels=_channels(param, blobs))
    net.close()
    return net


def _channels(param: Any, blobs: Mapping[str, Sequence[Any]]) -> int:
    """How many channels the first convolution that reads a data layer has weights for; 3 if there is none."""
    made = {top for layer in param.layer if not layer.bottom for top in layer.top}
    for layer in param.layer:
        weight = next(iter(blobs.get(layer.name, ())), None)
        if layer.type == "Convolution" and made.issuperset(layer.bottom) and weight is not None and weight.ndim == 4:
            return weight.shape[1] * layer.convolution_param.group
    return 3


def fit_to_net(model: Model, prototxt: PathLike) -> tuple[Model, FileReport]:
    """Return ``model`` with the names, types and blob shapes of the net in ``prototxt``, and what it gives the net.

    The rules are those of loading: shapes may differ in leading axes of length 1, as in old caffemodels, and a layer
    that shares all its blobs with others need not be stored. Layers that the net does not have stay as they are.

    Raises:
        WeightsError: a layer has another number of blobs, or a blob another shape, than in the net, or they have no layer
            in common; both files are named.
    """
    net_file = os.fspath(prototxt)
    net = shapes_of(prototxt, model.blobs)
    owners = net.blob_owners()
    report, found = match_blobs(model, net.layers, owners, net_file, {key for keys in owners.values() for key in keys})
    if report.missing and not report.loaded:
        extra = _with_blobs(model, report)
        hint = _hint(report.missing, extra)
        raise WeightsError(
            f"{model.file} has no weights for any layer of {net_file}{hint}; it has {_listed(extra) or 'none'}"
        )
    arrays = {owners[name][index]: model.blobs[name][index] for name, index in found}
    fitted = Model(model.file, dict(model.blobs), dict(model.names), caffe_pb2.NetParameter())
    fitted.skeleton.CopyFrom(model.skeleton)
    have = {layer.name: layer for layer in fitted.skeleton.layer}
    for name, layer in net.layers.items():
        specs = layer.blob_specs
        if not specs or name in report.missing:
            continue
        fitted.blobs[name] = [arrays[key].reshape(spec.shape) for key, spec in zip(owners[name], specs, strict=True)]
        fitted.names[name] = [spec.name for spec in specs]
        (have.get(name) or fitted.skeleton.layer.add(name=name)).type = layer.type_name
    return fitted, report


def remarks(model: Model, report: FileReport, prototxt: PathLike) -> list[str]:
    """Say which layers with weights only one of ``model`` and the net in ``prototxt`` has."""
    net_file, extra = os.fspath(prototxt), _with_blobs(model, report)
    said = []
    if report.missing:
        hint = _hint(report.missing, extra)
        said.append(f"{report.file} has no weights for {_listed(report.missing)} of {net_file}{hint}")
    if extra:
        said.append(f"{net_file} has no layers for the weights of {_listed(extra)}")
    return said


def _with_blobs(model: Model, report: FileReport) -> list[str]:
    return [name for name in report.ignored if name in model.blobs]


def _listed(names: Sequence[str]) -> str:
    return some([f'"{name}"' for name in names])


def _hint(names: Iterable[str], choices: Sequence[str]) -> str:
    for name in names:
        if near := nearest(name, choices, 1):
            return near
    return ""
