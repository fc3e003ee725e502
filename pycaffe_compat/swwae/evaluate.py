"""How well a classifier does, as the paper counts: errors at rank 1 and 5 of a single crop, or of the whole image.

For the whole image the fully connected layers become convolutions (fc6 7×7, the others 1×1) with the same weights, and the
scores of the classes are averaged over all positions.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..data.mean import read_mean
from ..errors import DataError, DivergedError, WeightsError
from ..net import Net
from ..proto import Weights, caffe_pb2, read_net, read_weights
from .blocks import MEAN_VALUE, Shape, input_layer
from .decoder import strip_decoder
from .encoder import Unit, image_shape, read_encoder
from .pictures import EDGE, Image, centre, read_images, resize_shorter

MODES = ("crop", "convolution")


@dataclass
class Errors:
    """What an evaluation found: the number of images, and how many had the label not first, or not among the first five."""

    images: int = 0
    wrong1: int = 0
    wrong5: int = 0

    def add(self, scores: Tensor, labels: Tensor) -> None:
        """Count a batch: ``scores`` (n, classes) and ``labels`` (n,). A class that ties with the label counts against it.

        Raises:
            DataError: a label is no class. DivergedError: a score is not a finite number.
        """
        classes = scores.shape[1]
        strange = labels[(labels < 0) | (labels >= classes)]
        if len(strange):
            raise DataError(
                f"the label {int(strange[0])} is not one of the net's {classes} classes, 0 to {classes - 1}"
            )
        if not bool(torch.isfinite(scores).all()):
            raise DivergedError("the net's scores are not finite numbers: its weights are damaged")
        own = scores.gather(1, labels.to(scores.device).long().reshape(-1, 1))
        rank = (scores >= own).sum(1) - 1
        self.images += len(rank)
        self.wrong1 += int((rank >= 1).sum())
        self.wrong5 += int((rank >= 5).sum())

    @property
    def top1(self) -> float:
        """The share of images whose label was not the first, in percent."""
        return 100 * self.wrong1 / max(self.images, 1)

    @property
    def top5(self) -> float:
        """The share of images whose label was not among the first five, in percent."""
        return 100 * self.wrong5 / max(self.images, 1)


def scoring_net(net: Any, convolutional: bool = False, shape: Shape | None = None) -> tuple[Any, str]:
    """Return the net that gives the classes' scores, from images alone, and the name of the scores' blob.

    Decoder, losses and data layers are left out. With ``convolutional`` each InnerProduct ``NAME`` becomes the Convolution
    ``NAME-conv`` over the window that it saw, so that images of any size can be scored; :func:`load_surgically` gives it its
    weights.

    Args:
        net: an upgraded ``NetParameter``: a classifier, augmented or not.
        convolutional: turn fully connected layers into convolutions.
        shape: (channels, height, width) of one image; by default the net says.

    Raises:
        NetError: the net is no chain of convolutions, poolings and fully connected layers.
    """
    plain = strip_decoder(net)
    shape = tuple(shape or image_shape(plain))
    units = read_encoder(plain, shape=shape)
    by_name = {unit.name: unit for unit in units}
    chain = _chain_layers(plain, units)
    result = caffe_pb2.NetParameter(name=plain.name, layer=[input_layer("data", (1, *shape))])
    for layer in chain:
        unit = by_name.get(layer.name)
        copy = result.layer.add()
        if convolutional and unit is not None and layer.type == "InnerProduct":
            copy.CopyFrom(_as_convolution(unit))
        else:
            copy.CopyFrom(layer)
    return result, units[-1].output


def _chain_layers(net: Any, units: list[Unit]) -> list[Any]:
    """The layers on the way from the image to the scores, in order."""
    reached, layers = {units[0].bottom}, []
    for layer in net.layer:
        if layer.bottom and set(layer.bottom) <= reached and "label" not in layer.bottom:
            layers.append(layer)
            reached.update(layer.top)
        if layer.name == units[-1].name:
            break
    return layers


def _as_convolution(unit: Unit) -> Any:
    window = unit.bottom_shape[1:] or (1, 1)
    param = {
        "num_output": unit.layer.inner_product_param.num_output,
        "bias_term": unit.layer.inner_product_param.bias_term,
    }
    return caffe_pb2.LayerParameter(
        name=f"{unit.name}-conv",
        type="Convolution",
        bottom=unit.layer.bottom,
        top=unit.layer.top,
        convolution_param={**param, "kernel_h": window[0], "kernel_w": window[1]},
    )


def load_surgically(net: Net, weights: Any) -> None:
    """Load weights by layer name; the layer ``NAME-conv`` takes those of the fully connected ``NAME``, in its own shape.

    Args:
        net: the net, changed in place.
        weights: the path of a caffemodel, or :class:`~pycaffe_compat.proto.Weights`.

    Raises:
        WeightsError: a layer of the net has no weights there, or of another size.
    """
    stored = weights if isinstance(weights, Weights) else read_weights(weights)
    for name, layer in net.layers.items():
        if not layer.blob_specs:
            continue
        source = name if name in stored else name.removesuffix("-conv")
        if source not in stored or len(stored.shapes(source)) != len(layer.blob_specs):
            raise WeightsError(f'{stored.file} has no weights for the layer "{source}"')
        for index, blob in enumerate(layer.blobs):
            buffer = np.empty(tuple(blob.shape), np.float32)
            stored.readinto(source, index, buffer)
            with torch.no_grad():
                blob.copy_(torch.from_numpy(buffer))


def evaluate(
    net: Any,
    weights: Any,
    images: str | os.PathLike[str] | Iterable[Image],
    mode: str = "crop",
    *,
    edge: int = EDGE,
    batch: int = 32,
    mean: Sequence[float] = (),
    scale: float | None = None,
    limit: int | None = None,
    device: torch.device | str = "cpu",
    progress: bool | None = None,
    shape: Shape | None = None,
) -> Errors:
    """Count the errors of a classifier at rank 1 and 5.

    Args:
        net: an upgraded ``NetParameter`` (augmented or not), or the path of its prototxt.
        weights: its caffemodel.
        images: the path of an LMDB, or (channels, height, width) uint8 in BGR and the label of each image.
        mode: ``crop`` scores the centre of the net's own size, ``convolution`` the whole image.
        edge: images are resized so that their shorter edge has this length.
        batch: images at a time, for ``crop``.
        mean, scale: what is subtracted, a number a channel, and what the rest is multiplied by. By default as the net's data
            layers say (of a mean image, the mean of each channel); VGG's mean and 1 where it has none.
        limit: only the first so many images.
        device: where the net runs.
        progress: show a progress bar; None: where standard error is a terminal.
        shape: (channels, height, width) of what the net takes; by default the net says.

    Raises:
        DataError: an option that cannot be, an image smaller than the crop, a label that is no class.
        DivergedError: scores that are not finite.
    """
    _check(mode, edge=edge, batch=batch, limit=limit)
    param = net if hasattr(net, "layer") else read_net(net)
    scorer, blob = scoring_net(param, mode == "convolution", shape)
    channels, *size = scorer.layer[0].input_param.shape[0].dim[1:]
    mean, scale = _normalisation(param, channels, mean, scale)
    built = Net(scorer, "TEST", device=device)
    load_surgically(built, weights)
    offset = torch.tensor(mean, dtype=torch.float32, device=device).reshape(1, -1, 1, 1)
    if isinstance(images, (str, os.PathLike)):
        images = read_images(images, color=channels == 3)
    resized = ((resize_shorter(image, edge), label) for image, label in itertools.islice(images, limit))
    if mode == "crop":
        resized = ((centre(image, *size), label) for image, label in resized)
    errors = Errors()
    shown = None if progress is None else not progress
    with torch.inference_mode(), tqdm(desc="images", unit="img", disable=shown) as bar:
        for group in _groups(resized, batch if mode == "crop" else 1):
            pixels = torch.from_numpy(np.stack([image for image, _ in group])).to(device).float()
            scores = built.run(data=(pixels - offset) * scale)[0][blob]
            scores = scores.flatten(2).mean(2) if scores.dim() > 2 else scores
            errors.add(scores, torch.tensor([label for _, label in group]))
            bar.update(len(group))
            bar.set_postfix_str(f"top-1 {errors.top1:.2f}%, top-5 {errors.top5:.2f}%", refresh=False)
    return errors


def _check(mode: str, **numbers: int | None) -> None:
    if mode not in MODES:
        raise DataError(f'mode "{mode}" is neither of {", ".join(MODES)}')
    for name, value in numbers.items():
        if value is not None and value < 1:
            raise DataError(f"{name}: {value} must be at least 1")


def _normalisation(
    param: Any, channels: int, mean: Sequence[float], scale: float | None
) -> tuple[Sequence[float], float]:
    """The mean, a number for all channels or one each, and the scale: those given, else those of the net's data layers.

    Raises:
        DataError: there are neither 1 nor ``channels`` numbers.
    """
    transform = next((each.transform_param for each in param.layer if each.HasField("transform_param")), None)
    mean = mean or _mean(transform)
    if len(mean) not in (1, channels):
        raise DataError(
            f"a mean of {len(mean)} numbers for images of {channels} channels: does the net have data layers?"
        )
    if scale is None:
        scale = 1 if transform is None else transform.scale
    return mean, scale


def _mean(transform: Any) -> Sequence[float]:
    """What a data layer subtracts, a number for all channels or one each; VGG's where there is no such layer."""
    if transform is None:
        return MEAN_VALUE
    if transform.HasField("mean_file"):
        return tuple(read_mean(transform.mean_file).mean((1, 2)).tolist())
    return tuple(transform.mean_value) or (0,)


def _groups(items: Iterable[Image], size: int) -> Iterator[list[Image]]:
    iterator = iter(items)
    while group := list(itertools.islice(iterator, size)):
        yield group
