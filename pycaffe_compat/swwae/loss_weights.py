"""The weights of reconstruction losses for any net: a rule from the size and the magnitude of what is reconstructed.

The paper's weights are for VGG-16. A Euclidean loss grows with the number of values of its blob and with their square,
so no numbers fit two nets. The rule, which is this project's own choice, asks instead what it costs to reconstruct
nothing: a decoder that makes zeros has the loss ``size * rms ** 2 / 2`` an image. Its weight makes that cost
``strength`` for the image and a fifth of it for each pooled activation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..errors import NetError
from .blocks import Shape
from .encoder import Unit, read_encoder
from .nets import vgg

STRENGTH = 0.5
POOLED_SHARE = 0.2
IMAGES = 256


@dataclass(frozen=True)
class Magnitude:
    """A blob as measured: how many values an image has in it, and the root of the mean of their squares."""

    size: int
    rms: float

    @property
    def loss_of_zeros(self) -> float:
        """The Euclidean loss, an image, of a reconstruction that is zero everywhere."""
        return self.size * self.rms**2 / 2


def measure_blobs(
    net: Any, units: Sequence[Unit], image: str = "data", image_scale: float = 1 / 255, images: int = IMAGES
) -> dict[str, Magnitude]:
    """Return the magnitude of each reconstructed blob, by the name that loss weights have, over some training images.

    Args:
        net: the classification net, built for TRAIN with its weights; it draws its own batches.
        units: its encoder up to where the decoder starts.
        image: the blob that holds the images.
        image_scale: what the image is multiplied by before it is compared with its reconstruction.
        images: how many are looked at, at least.

    Raises:
        NetError: a blob holds nothing but zeros, or numbers that are not finite.
    """
    blobs = {image: image, **{unit.name: unit.top for unit in units[:-1] if unit.pool is not None}}
    squares = dict.fromkeys(blobs, 0.0)
    sizes: dict[str, int] = {}
    seen = 0
    while seen < images:
        with torch.no_grad():
            values, _ = net.run()
        for name, blob in blobs.items():
            value = values[blob].double()
            squares[name] += float(value.square().sum())
            sizes[name] = value[0].numel()
        seen += len(values[image])
    measured = {name: Magnitude(sizes[name], (squares[name] / seen / sizes[name]) ** 0.5) for name in blobs}
    measured[image] = Magnitude(sizes[image], measured[image].rms * image_scale)
    for name, each in measured.items():
        if not 0 < each.rms < float("inf"):
            raise NetError(
                f'no loss weight for "{name}": the root mean square of the blob "{blobs[name]}" over {seen} images is '
                f"{each.rms}; are these the net's weights and its images?"
            )
    return measured


def rule_loss_weights(
    measured: Mapping[str, Magnitude], image: str = "data", strength: float = STRENGTH
) -> dict[str, float]:
    """Return the weight of each loss by the rule, to two digits.

    Args:
        measured: of each reconstructed blob.
        image: the blob that holds the images.
        strength: the weighted loss, an image, of a reconstruction of zeros; of pooled activations a fifth of it.
    """
    return {
        name: float(f"{strength * (1 if name == image else POOLED_SHARE) / each.loss_of_zeros:.1e}")
        for name, each in measured.items()
    }


def is_vgg16(units: Sequence[Unit]) -> bool:
    """Whether an encoder is VGG-16's, for which the paper gives weights: the same layers at the same sizes."""

    def outline(chain: Sequence[Unit]) -> list[tuple[str, Shape, Shape]]:
        return [(unit.name, unit.output_shape, unit.top_shape) for unit in chain]

    return outline([unit for unit in units if unit.layer.type == "Convolution"]) == outline(
        [unit for unit in read_encoder(vgg()) if unit.layer.type == "Convolution"]
    )
