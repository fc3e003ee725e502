"""What is done to a picture before a net sees it: order of channels, mean, scale."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from ..data.mean import read_mean
from ..errors import DataError, require_file
from .outline import Outline

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class Preprocessing:
    """``(picture - mean) * scale``, with the channels in the net's order.

    Attributes:
        mean: one number for all channels, or one each, in the net's order; none for 0.
        scale: multiplies what is left.
        order: the net's channels: ``"BGR"``, Caffe's, or ``"RGB"``.

    Raises:
        DataError: a mean or scale that is not finite, or a scale of 0.
    """

    mean: tuple[float, ...] = ()
    scale: float = 1.0
    order: str = "BGR"

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, self.mean)):
            raise DataError(f"mean: {', '.join(map(str, self.mean))}; each must be a finite number")
        if not math.isfinite(self.scale) or self.scale == 0:
            raise DataError(f"scale: {self.scale:g} must be a finite number that is not 0")

    @property
    def metadata(self) -> dict[str, str]:
        """What goes into a model's metadata."""
        return {
            "mean": ",".join(f"{m:.9g}" for m in self.mean) or "0",
            "scale": f"{self.scale:.9g}",
            "channel_order": self.order,
        }

    @classmethod
    def of_metadata(cls, metadata: Mapping[str, str], where: str) -> Preprocessing:
        """What a model with this metadata still wants to be done to an RGB or BGR picture; nothing, if it does all itself.

        Args:
            metadata: :attr:`metadata`, and ``preprocessed: model`` if the model does that itself.
            where: the model, for errors.

        Raises:
            DataError: a mean or a scale that is no number, an order of channels that is none.
        """
        if metadata.get("preprocessed") == "model":
            return cls(order="RGB")
        order = metadata.get("channel_order", "BGR")
        try:
            mean = tuple(float(m) for m in metadata.get("mean", "0").split(","))
            scale = float(metadata.get("scale", "1"))
        except ValueError as error:
            raise DataError(f"{where}: its metadata has a mean or scale that is not a number: {error}") from error
        if order not in ("BGR", "RGB"):
            raise DataError(f'{where}: its metadata has the channel_order "{order}"; valid: BGR, RGB')
        return cls(mean, scale, order)

    def check(self, found: Outline) -> None:
        """Find out whether the mean is one for the pictures that a net takes: its first input, if that holds any.

        Raises:
            DataError: it is one for another number of channels.
        """
        shape = next(iter(found.inputs.values())).shape
        if len(shape) == 4:
            self.means(shape[1])

    def means(self, channels: int) -> np.ndarray:
        """The mean of each channel, float32 (channels,).

        Raises:
            DataError: there is one for another number of channels.
        """
        if len(self.mean) not in (0, 1, channels):
            raise DataError(f"mean: {len(self.mean)} numbers for {channels} channels; give one, or one each")
        return np.asarray(self.mean or (0.0,), np.float32) * np.ones(channels, np.float32)


def read_means(text: str) -> tuple[float, ...]:
    """The mean of each channel: numbers with commas between, or a ``.binaryproto`` or ``.npy`` file of a mean image.

    Raises:
        DataError: neither.
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        pass
    if text.endswith(".npy"):
        try:
            mean = np.load(require_file(text, "mean file"), allow_pickle=False)
        except (OSError, ValueError) as error:
            raise DataError(f"mean file {text} is not an array that numpy reads: {error}") from error
        if mean.ndim not in (1, 3):
            raise DataError(
                f"mean file {text} holds an array of shape {mean.shape}; expected channels, or one image, C×H×W"
            )
    else:
        mean = read_mean(text)
    return tuple(float(m) for m in mean.reshape(mean.shape[0], -1).mean(1))


def picture_files(paths: Sequence[PathLike]) -> list[str]:
    """The files among ``paths``, and the pictures in the folders among them, in order.

    Raises:
        MissingFileError: one is not there.
        DataError: no picture at all.
    """
    found = []
    for path in [os.fspath(path) for path in paths]:
        require_file(path, "picture")
        if os.path.isdir(path):
            found += [
                os.path.join(path, n) for n in sorted(os.listdir(path)) if cv2.haveImageReader(os.path.join(path, n))
            ]
        else:
            found.append(path)
    if not found:
        raise DataError(f"no pictures in {', '.join(os.fspath(path) for path in paths)}")
    return found


def read_picture(path: PathLike, shape: Sequence[int], order: str) -> np.ndarray:
    """A picture file as float32 (channels, height, width) of 0 to 255, resized.

    Args:
        shape: channels (1 or 3), height, width.
        order: of the channels, ``"BGR"`` or ``"RGB"``.

    Raises:
        DataError: no picture, or a net whose input holds none.
    """
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise DataError(f"pictures have 1 or 3 channels, height and width; the net's input is {tuple(shape)}")
    pixels = cv2.imread(os.fspath(path), cv2.IMREAD_COLOR if shape[0] == 3 else cv2.IMREAD_GRAYSCALE)
    if pixels is None:
        raise DataError(f"{os.fspath(path)} is not an image that OpenCV can read")
    pixels = cv2.resize(pixels, (shape[2], shape[1]))
    planes = pixels[None] if shape[0] == 1 else pixels.transpose(2, 0, 1)
    return (planes[::-1] if shape[0] == 3 and order == "RGB" else planes).astype(np.float32)
