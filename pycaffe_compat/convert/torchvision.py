"""Translates weights of VGG and AlexNet between Caffe's layer names and torchvision's.

Names and the order of colours are translated: Caffe's nets take BGR, torchvision's RGB. Their inputs differ in scale:
Caffe's VGG takes pixels from 0 to 255 minus the mean (123.68, 116.779, 103.939 in RGB); torchvision's transforms make
``(pixel / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)``. This difference can be folded into the first
convolution. That is exact except at the border, where a padded 0 means another colour in each scale.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import WeightsError
from ..layers.base import Shape
from ..proto import caffe_pb2
from ..tables import dims
from .model import Model

CAFFE_MEAN = np.array([123.68, 116.779, 103.939])  # RGB, of pixels from 0 to 255
MEAN = np.array([0.485, 0.456, 0.406])
STD = np.array([0.229, 0.224, 0.225])

_VGG = {(1, 1, 2, 2, 2): 11, (2, 2, 2, 2, 2): 13, (2, 2, 3, 3, 3): 16, (2, 2, 4, 4, 4): 19}
_WIDTHS = (64, 128, 256, 512, 512)
_ALEXNET: dict[str, tuple[str, Shape]] = {
    "conv1": ("features.0", (64, 3, 11, 11)),
    "conv2": ("features.3", (192, 64, 5, 5)),
    "conv3": ("features.6", (384, 192, 3, 3)),
    "conv4": ("features.8", (256, 384, 3, 3)),
    "conv5": ("features.10", (256, 256, 3, 3)),
    "fc6": ("classifier.1", (4096, 9216)),
    "fc7": ("classifier.4", (4096, 4096)),
    "fc8": ("classifier.6", (-1, 4096)),
}
_NOT_ALEXNET = (
    "torchvision's AlexNet is not Caffe's: it has 64, 192, 384, 256 and 256 filters in one tower (Krizhevsky, 2014) "
    "where Caffe's has 96, 256, 384, 384 and 256 in two groups with LRN (2012). Neither can run "
    "the weights of the other"
)


def to_torchvision(model: Model, fold: bool = False) -> tuple[Model, list[str]]:
    """Return ``model``, a VGG or AlexNet of Caffe's, with torchvision's names, and remarks on what was done.

    Args:
        model: with layers ``conv1_1`` … ``fc8``, or ``conv1`` … ``fc8``; other layers, such as decoders, are left out.
        fold: scale the first convolution so that it takes the output of torchvision's transforms.

    Raises:
        WeightsError: it is neither, or a blob's shape is not torchvision's.
    """
    table = _table(model)
    blobs, names = {}, {}
    for layer, (name, shape) in table.items():
        weight, bias = _checked(model, layer, shape, f"torchvision's {name}")
        if weight.ndim == 4 and weight.shape[1] == 3:
            weight = np.ascontiguousarray(weight[:, ::-1])
            if fold:
                weight, bias = fold_scaling(weight, bias)
        blobs[name], names[name] = [weight, bias], ["weight", "bias"]
    left = [layer for layer in model.blobs if layer not in table]
    remarks = [f"left out, as torchvision has no such layers: {', '.join(left)}"] if left else []
    remarks.append("the first convolution now takes RGB instead of BGR")
    if fold:
        remarks.append(
            "input scaling folded in: feed what torchvision's transforms make; border pixels differ slightly"
        )
    else:
        remarks.append(
            "the input is still in Caffe's scale: feed 255 * image - (123.68, 116.779, 103.939), RGB, not what "
            "torchvision's transforms make; --fold-scaling changes that"
        )
    return Model(model.file, blobs, names), remarks


def from_torchvision(model: Model, fold: bool = False) -> tuple[Model, list[str]]:
    """Return ``model``, a VGG or AlexNet of torchvision's, with Caffe's layer names, and remarks on what was done.

    Args:
        model: with layers ``features.0`` … ``classifier.6``.
        fold: scale the first convolution so that it takes pixels from 0 to 255 minus Caffe's mean.

    Raises:
        WeightsError: it is neither (one with batch normalisation, say), or a blob's shape is not that net's.
    """
    table = _table(_renamed(model))
    blobs, names = {}, {}
    for layer, (name, shape) in table.items():
        weight, bias = _checked(model, name, shape, f"torchvision's {name}")
        if weight.ndim == 4 and weight.shape[1] == 3:
            if fold:
                weight, bias = unfold_scaling(weight, bias)
            weight = np.ascontiguousarray(weight[:, ::-1])
        blobs[layer], names[layer] = [weight, bias], ["weight", "bias"]
    remarks = ["the first convolution now takes BGR instead of RGB"]
    if fold:
        remarks.append("input scaling folded in: feed pixels of 0 to 255 minus 103.939, 116.779, 123.68 (BGR)")
    else:
        remarks.append("the input is in torchvision's scale, (pixel / 255 - mean) / std; --fold-scaling changes that")
    if "conv1" in table:
        remarks.append(f"{_NOT_ALEXNET}: load them into a net with those shapes, no groups and no LRN")
    kinds = {layer: "InnerProduct" if layer.startswith("fc") else "Convolution" for layer in blobs}
    skeleton = caffe_pb2.NetParameter(layer=[caffe_pb2.LayerParameter(name=n, type=t) for n, t in kinds.items()])
    return Model(model.file, blobs, names, skeleton), remarks


def fold_scaling(weight: Any, bias: Any) -> tuple[Any, Any]:
    """Return the first convolution (RGB) for torchvision's inputs instead of Caffe's."""
    scaled = weight * (255 * STD).reshape(1, 3, 1, 1)
    shift = (weight.astype(np.float64).sum((2, 3)) * (255 * MEAN - CAFFE_MEAN)).sum(1)
    return scaled.astype(weight.dtype), (bias + shift).astype(bias.dtype)


def unfold_scaling(weight: Any, bias: Any) -> tuple[Any, Any]:
    """Return the first convolution (RGB) for Caffe's inputs instead of torchvision's."""
    plain = weight / (255 * STD).reshape(1, 3, 1, 1)
    shift = (plain.sum((2, 3)) * (255 * MEAN - CAFFE_MEAN)).sum(1)
    return plain.astype(weight.dtype), (bias - shift).astype(bias.dtype)


def _table(model: Model) -> dict[str, tuple[str, Shape]]:
    """Caffe's layer names with torchvision's, and the shape that the weights have there (-1: any)."""
    convolutions = [
        tuple(map(int, found.groups())) for name in model.blobs if (found := re.fullmatch(r"conv(\d)_(\d)", name))
    ]
    if not convolutions:
        if all(name in model.blobs for name in _ALEXNET):
            return _ALEXNET
        raise WeightsError(
            f"{model.file}: neither VGG (layers conv1_1 to conv5_3 and fc6 to fc8) nor AlexNet (conv1 to conv5, fc6 to "
            f"fc8), the two that torchvision has too; its layers: {', '.join(model.blobs) or 'none'}"
        )
    stages = tuple(sum(1 for stage, _ in convolutions if stage == number) for number in range(1, 6))
    if stages not in _VGG:
        raise WeightsError(
            f"{model.file}: stages of {stages} convolutions are not those of torchvision's VGG 11, 13, 16 or 19"
        )
    return _vgg_table(stages)


def _vgg_table(stages: tuple[int, ...]) -> dict[str, tuple[str, Shape]]:
    table: dict[str, tuple[str, Shape]] = {}
    index, channels = 0, 3
    for number, (count, width) in enumerate(zip(stages, _WIDTHS, strict=True), 1):
        for k in range(1, count + 1):
            table[f"conv{number}_{k}"] = (f"features.{index}", (width, channels, 3, 3))
            index, channels = index + 2, width
        index += 1
    table["fc6"] = ("classifier.0", (4096, 25088))
    table["fc7"] = ("classifier.3", (4096, 4096))
    table["fc8"] = ("classifier.6", (-1, 4096))
    return table


def _renamed(model: Model) -> Model:
    """A torchvision model with Caffe's layer names, to look up its table; blobs are unchanged."""
    tables: list[Mapping[str, tuple[str, Shape]]] = [_ALEXNET, *(_vgg_table(stages) for stages in _VGG)]
    for table in tables:
        if {name for name, _ in table.values()} == set(model.blobs):
            return Model(model.file, {layer: model.blobs[name] for layer, (name, _) in table.items()})
    raise WeightsError(
        f"{model.file}: not torchvision's alexnet, vgg11, vgg13, vgg16 or vgg19 (those with batch normalisation have "
        f"no counterpart here); its layers: {', '.join(model.blobs) or 'none'}"
    )


def _checked(model: Model, layer: str, shape: Shape, place: str) -> tuple[Any, Any]:
    """Weight and bias of ``layer``, reshaped to those of ``place``; an error with both shapes if they do not fit."""
    arrays = model.blobs.get(layer)
    if arrays is None or len(arrays) != 2:
        have = "is missing" if arrays is None else f"has {len(arrays)} blobs"
        raise WeightsError(f'{model.file}: layer "{layer}" {have}; {place} has a weight and a bias')
    weight, bias = arrays
    bare = tuple(n for i, n in enumerate(weight.shape) if n != 1 or i >= weight.ndim - len(shape))
    outputs = bare[0] if shape[0] == -1 and len(bare) == len(shape) else shape[0]
    if bare != (outputs, *shape[1:]):
        more = f". {_NOT_ALEXNET}" if "conv1" in model.blobs else ""
        raise WeightsError(
            f'{model.file}: layer "{layer}" has weights {dims(weight.shape)}, but {place} has '
            f"{dims(shape).replace('-1', 'N')}{more}"
        )
    return weight.reshape(bare), bias.reshape(-1)
