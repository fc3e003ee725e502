"""The classification nets that the paper augments: VGG (11 to 19 layers, or any like it) and AlexNet without LRN."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import NetError
from ..proto import caffe_pb2
from .blocks import (
    GAUSSIAN,
    MEAN_VALUE,
    Filler,
    Shape,
    classifier_losses,
    dropout,
    input_layer,
    lmdb_layers,
    max_pool,
    relu,
    weighted,
)

DEPTHS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
WIDTHS = (64, 128, 256, 512, 512)


def deploy_inputs(image_shape: Shape = (1, 3, 224, 224), labels: bool = True) -> list[Any]:
    """Return the Input layers of a deploy net: ``data`` and, 1×1×1×1 as in the authors' files, ``label``."""
    return [input_layer("data", image_shape), *([input_layer("label", (1, 1, 1, 1))] if labels else [])]


def imagenet_inputs(batch: tuple[int, int], labels: bool = True) -> list[Any]:
    """Return the two Data layers that read ILSVRC 2012: 224×224 crops, mirrored in TRAIN, BGR minus the mean."""
    databases = ("data/ilsvrc12/train_lmdb", "data/ilsvrc12/val_lmdb")
    return lmdb_layers(*databases, batch, labels, crop_size=224, mirror=True, mean_value=MEAN_VALUE)


def vgg(
    depth: int = 16,
    inputs: Sequence[Any] | None = None,
    *,
    stages: Sequence[tuple[int, int]] | None = None,
    hidden: Sequence[int] = (4096, 4096),
    classes: int = 1000,
    filler: Filler = GAUSSIAN,
    top5: bool = False,
    name: str = "",
) -> Any:
    """Return VGG's ``NetParameter`` (Simonyan and Zisserman, 2014) with the paper's layer names.

    Layers ``conv1_1`` … ``conv5_3``, ``fc6``, ``fc7``, ``fc8``, helpers named after the layer before them
    (``conv1_2/relu``, ``conv1_2/pool``, ``fc6/dropout``), then ``loss`` and ``accuracy``.

    Args:
        depth: 11, 13, 16 or 19.
        inputs: the layers that make ``data`` and ``label``; by default the Input layers of a deploy net.
        stages: instead of ``depth``, the number of convolutions and their width for each stage.
        hidden: the widths of the hidden fully connected layers.
        filler: of the weights; biases start at 0.
        top5: with the layer ``accuracy-top5``.

    Raises:
        NetError: VGG has no form of that depth.
    """
    if stages is None:
        if depth not in DEPTHS:
            raise NetError(f"vgg: depth {depth} is not one of {', '.join(map(str, DEPTHS))}")
        stages = list(zip(DEPTHS[depth], WIDTHS, strict=True))
        name = name or f"VGG_ILSVRC_{depth}_layers"
    layers = list(deploy_inputs() if inputs is None else inputs)
    blob = "data"
    for number, (convolutions, width) in enumerate(stages, 1):
        for k in range(1, convolutions + 1):
            top = f"conv{number}_{k}"
            layers += [
                weighted(top, "Convolution", blob, top, width, kernel_size=[3], pad=[1], filler=filler),
                relu(top),
            ]
            blob = top
        layers.append(max_pool(blob))
        blob += "/pool"
    for number, width in enumerate(hidden, len(stages) + 1):
        top = f"fc{number}"
        layers += [weighted(top, "InnerProduct", blob, top, width, filler=filler), relu(top), dropout(top)]
        blob = f"{top}/dropout"
    scores = f"fc{len(stages) + len(hidden) + 1}"
    layers.append(weighted(scores, "InnerProduct", blob, scores, classes, filler=filler))
    return caffe_pb2.NetParameter(name=name, layer=[*layers, *classifier_losses(scores, top5)])


def alexnet(inputs: Sequence[Any] | None = None, classes: int = 1000) -> Any:
    """Return AlexNet's ``NetParameter`` as the paper's reconstruction nets have it: no LRN, no dropout, 227×227.

    3×3 stride 2 poolings overlap; ``conv2``, ``conv4`` and ``conv5`` have two groups (Krizhevsky et al., 2012). It ends
    with the scores ``fc8``.
    """
    layers = list(deploy_inputs((1, 3, 227, 227), labels=False) if inputs is None else inputs)
    blob = "data"
    for number, (width, kernel, stride, pad, group, bias, pooled) in enumerate(
        (
            (96, 11, 4, 0, 1, 0, True),
            (256, 5, 1, 2, 2, 0.1, True),
            (384, 3, 1, 1, 1, 0, False),
            (384, 3, 1, 1, 2, 0.1, False),
            (256, 3, 1, 1, 2, 0.1, True),
        ),
        1,
    ):
        top = f"conv{number}"
        geometry: dict[str, Any] = {"kernel_size": [kernel]}
        if pad:
            geometry["pad"] = [pad]
        if stride > 1:
            geometry["stride"] = [stride]
        if group > 1:
            geometry["group"] = group
        layers += [weighted(top, "Convolution", blob, top, width, filler=GAUSSIAN, bias=bias, **geometry), relu(top)]
        blob = top
        if pooled:
            layers.append(max_pool(top, 3, 2))
            blob = f"{top}/pool"
    for top, width, std, bias in (("fc6", 4096, 0.005, 0.1), ("fc7", 4096, 0.005, 0.1), ("fc8", classes, 0.01, 0)):
        layers.append(
            weighted(top, "InnerProduct", blob, top, width, filler={"type": "gaussian", "std": std}, bias=bias)
        )
        if top != "fc8":
            layers.append(relu(top))
        blob = top
    return caffe_pb2.NetParameter(name="AlexNet", layer=layers)


def without_fillers(net: Any) -> Any:
    """Return a copy of ``net`` for trained weights to go into: without fillers, which only a start from scratch needs.

    Built without weights such a net holds zeros, at once; the random numbers of VGG-16 take seconds.
    """
    copy = caffe_pb2.NetParameter()
    copy.CopyFrom(net)
    for each in copy.layer:
        for name in ("convolution_param", "inner_product_param"):
            if each.HasField(name):
                getattr(each, name).ClearField("weight_filler")
                getattr(each, name).ClearField("bias_filler")
    return copy
