"""Batches for ``WindowData``: labelled windows of images, the training data of R-CNN (Girshick et al., CVPR 2014)."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np

from ..errors import DataError, prefixed, require_file
from ..files import open_text
from ..proto.kinds import LISTS, told_apart
from . import draws
from .batches import Shape, Shard
from .datum import decode_image
from .image_list import read_file
from .loader import Buffers, Job
from .mean import read_mean, require_mean_values, require_one_mean


class ImageWindow(NamedTuple):
    """A region of an image, bounds included; label 0 is the background."""

    image: str
    label: int
    x1: int
    y1: int
    x2: int
    y2: int


class WindowFile(NamedTuple):
    """The content of a window file: windows of both kinds, and the channels of the images."""

    foreground: list[ImageWindow]
    background: list[ImageWindow]
    channels: int


@prefixed("window_data_param.source")
def read_windows(path: str | os.PathLike[str], foreground: float, background: float, root: str = "") -> WindowFile:
    """Read a window file and separate foreground and background by overlap.

    For each image, the file has ``# INDEX``, path, channels, height, width, the number of windows, and for each window
    ``LABEL OVERLAP X1 Y1 X2 Y2``.

    Args:
        path: the file.
        foreground: the least overlap of a foreground window.
        background: windows with less overlap are background, whatever their label.
        root: a prefix of every image path; text, not a folder.

    Raises:
        MissingFileError, DataError: the file is missing, malformed or of another kind; the message names file and line.
    """
    name = require_file(path, "window file")
    with told_apart(name, LISTS, "a window file: a text file of images and windows, as R-CNN makes it"):
        return _read_windows(name, foreground, background, root)


def _read_windows(name: str, foreground: float, background: float, root: str) -> WindowFile:
    with open_text(name) as file:
        tokens = Tokens.of(name, file)
        result = WindowFile([], [], 3)
        while (mark := tokens.next(None)) is not None:
            if mark != "#":
                raise tokens.error(f'"{mark}", where "#" and the index of an image should be')
            tokens.number("the index of an image", int)
            image = root + tokens.text("the path of an image")
            channels, *_ = (tokens.number(what, int) for what in ("channels", "height", "width"))
            result = result._replace(channels=channels)
            for _ in range(tokens.number("the number of windows", int)):
                label = tokens.number("a label", int)
                overlap = tokens.number("an overlap", float)
                window = ImageWindow(image, label, *(tokens.number(what, int) for what in ("x1", "y1", "x2", "y2")))
                if overlap >= foreground:
                    if label <= 0:
                        raise tokens.error(
                            f"label {label} of a foreground window (overlap {overlap}); it must be at least 1"
                        )
                    result.foreground.append(window)
                elif overlap < background:
                    result.background.append(window._replace(label=0))
    if not result.foreground and not result.background:
        raise DataError(f"window file {name} has no windows")
    return result


class Tokens:
    """The words of a file, with their line numbers.

    Args:
        name: the file, for messages.
        words: its words, and the line of each.
    """

    def __init__(self, name: str, words: Iterator[tuple[int, str]]) -> None:
        self._name, self._words, self._line = name, words, 0

    @classmethod
    def of(cls, name: str, lines: Iterable[str]) -> Tokens:
        """The words of the lines of the file ``name``."""
        return cls(name, ((number, word) for number, line in enumerate(lines, 1) for word in line.split()))

    def next(self, default: str | None) -> str | None:
        """Return the next word, or ``default`` at the end."""
        self._line, word = next(self._words, (self._line, default))
        return word

    def text(self, what: str) -> str:
        """Return the next word, which is ``what``.

        Raises:
            DataError: the file has ended.
        """
        word = self.next(None)
        if word is None:
            raise self.error(f"the file ends where {what} should be")
        return word

    def number(self, what: str, kind: type) -> Any:
        """Return the next word, which is ``what``, as an ``int`` of 32 bits or a ``float``.

        Raises:
            DataError: it is none, or the file has ended.
        """
        word = self.text(what)
        try:
            number = kind(word)
        except ValueError:
            raise self.error(f'"{word}", where {what} should be') from None
        if kind is int and not -(2**31) <= number < 2**31:
            raise self.error(f"{what} is {word}, which does not fit 32 bits")
        return number

    def error(self, message: str) -> DataError:
        """Return an error about the word that was read last."""
        return DataError(f"{self._name}:{self._line}: {message}")


@dataclass(frozen=True)
class WindowOptions:
    """How a window becomes an input: options of ``window_data_param`` and ``transform_param``."""

    crop: int
    mirror: bool = False
    scale: float = 1.0
    mean_file: str = ""
    mean_values: tuple[float, ...] = ()
    context_pad: int = 0
    square: bool = False
    foreground_fraction: float = 0.25
    cache: bool = False


class WindowReader:
    """Batches of windows, warped to ``crop`` × ``crop``: first background windows, then a share of foreground windows.

    Every window is drawn at random. Context that lies outside the image is 0.

    Raises:
        MissingFileError, DataError: options exclude each other; the file lacks windows of a kind that a batch needs; the
            mean is missing or does not fit.
    """

    WORDS = 2

    def __init__(self, path: str, windows: WindowFile, batch_size: int, options: WindowOptions) -> None:
        self.batch_size = batch_size
        self._options = options
        self._channels = windows.channels
        count = int(np.float32(batch_size) * np.float32(options.foreground_fraction))
        self._pools = [windows.background] * (batch_size - count) + [windows.foreground] * count
        for kind, pool in (("background", windows.background), ("foreground", windows.foreground)):
            if any(pool is asked for asked in self._pools) and not pool:
                raise DataError(
                    f"window_data_param.source: {path} has no {kind} windows; check fg_threshold, bg_threshold and fg_fraction"
                )
        if options.crop <= 2 * options.context_pad:
            raise DataError(
                f"transform_param.crop_size {options.crop} must be more than twice "
                f"window_data_param.context_pad {options.context_pad}"
            )
        self._mean = self._read_mean()
        self._buffers = Buffers()
        self._file = functools.cache(read_file) if options.cache else read_file

    def _read_mean(self) -> np.ndarray:
        """Return the mean at each place of a crop, an array that broadcasts to C × crop × crop."""
        options, crop = self._options, self._options.crop
        require_one_mean(bool(options.mean_file), len(options.mean_values))
        if not options.mean_file:
            values = np.array(options.mean_values or (0,), np.float32)
            require_mean_values(len(values), self._channels)
            return values[:, None, None]
        with prefixed("transform_param.mean_file"):
            mean = read_mean(options.mean_file)
        offset = (mean.shape[2] - crop) // 2
        window = mean[:, offset : offset + crop, offset : offset + crop] if offset >= 0 else mean[:, :0]
        if window.shape != (self._channels, crop, crop):
            raise DataError(
                f"transform_param.mean_file {options.mean_file} has shape {mean.shape}; it must hold a crop of "
                f"{self._channels} × {crop} × {crop}, {max(offset, 0)} from its top and left"
            )
        return window

    def shapes(self) -> list[Shape]:
        """Return the shapes of images and labels."""
        return [(self.batch_size, self._channels, self._options.crop, self._options.crop), (self.batch_size,)]

    def begin(self, shard: Shard, position: int) -> tuple[list[np.ndarray], list[Job]]:
        """Return the arrays of a batch, and a job for each window."""
        arrays = [self._buffers.take(*self.shapes()[0]), np.empty(self.batch_size, np.float32)]
        words = draws.words(shard.seed, shard.positions(position, self.batch_size), self.WORDS).tolist()

        def fill(i: int) -> None:
            window = self._pools[i][words[i][0] % len(self._pools[i])]
            self._place(window, bool(words[i][1] & 1) and self._options.mirror, arrays[0][i])
            arrays[1][i] = window.label

        return arrays, [functools.partial(fill, i) for i in range(self.batch_size)]

    def _place(self, window: ImageWindow, mirror: bool, out: np.ndarray) -> None:
        """Cut a window out of its image, warp it, and write it to ``out`` (C × crop × crop)."""
        try:
            image = decode_image(self._file(window.image), True)
        except DataError as error:
            raise DataError(f"{window.image}: {error}") from error
        region = _region(window, image.shape[0], image.shape[1], self._options, mirror)
        if not (0 <= region.x1 <= region.x2 < image.shape[1] and 0 <= region.y1 <= region.y2 < image.shape[0]):
            raise DataError(
                f"window {window[2:]} (x1, y1, x2, y2) is not within {window.image}, which is {image.shape[1]} wide and "
                f"{image.shape[0]} high"
            )
        try:
            part = cv2.resize(
                image[region.y1 : region.y2 + 1, region.x1 : region.x2 + 1], (region.width, region.height)
            )
        except cv2.error as error:
            raise DataError(f"window {window[2:]} of {window.image} cannot be warped: {error.err or error}") from error
        if len(out) != image.shape[2]:
            raise DataError(
                f"{window.image} has {image.shape[2]} channels, but {len(out)} according to the window file"
            )
        if mirror:
            part = part[:, ::-1]
        rows = slice(region.top, region.top + region.height)
        place = (slice(None), rows, slice(region.left, region.left + region.width))
        mean = np.broadcast_to(self._mean, out.shape)[place]
        out[:] = 0
        out[place] = (part.transpose(2, 0, 1) - mean) * np.float32(self._options.scale)


class _Region(NamedTuple):
    x1: int
    y1: int
    x2: int
    y2: int
    width: int
    height: int
    left: int
    top: int


def nearest_integer(value: float) -> int:
    """Round to the nearest integer, halves away from zero, as C does."""
    return int(math.copysign(math.floor(abs(float(value)) + 0.5), value))


def _region(window: ImageWindow, rows: int, columns: int, options: WindowOptions, mirror: bool) -> _Region:
    """Return the region to cut out of the image, the size to warp it to, and its place in the crop.

    ``context_pad`` widens the window so that the warped one has that many pixels of context on each side; ``square`` widens
    it to a square around its centre. The arithmetic is Caffe's, in float32.
    """
    crop, (x1, y1, x2, y2) = options.crop, window[2:]
    if not options.context_pad and not options.square:
        return _Region(x1, y1, x2, y2, crop, crop, 0, 0)
    one = np.float32
    context = one(crop) / one(crop - 2 * options.context_pad)
    half_height, half_width = one(y2 - y1 + 1) / one(2), one(x2 - x1 + 1) / one(2)
    center_x, center_y = one(x1) + half_width, one(y1) + half_height
    if options.square:
        half_height = half_width = max(half_height, half_width)
    x1, x2 = nearest_integer(center_x - half_width * context), nearest_integer(center_x + half_width * context)
    y1, y2 = nearest_integer(center_y - half_height * context), nearest_integer(center_y + half_height * context)
    scale_x, scale_y = one(crop) / one(x2 - x1 + 1), one(crop) / one(y2 - y1 + 1)
    left, top, right, bottom = max(0, -x1), max(0, -y1), max(0, x2 - columns + 1), max(0, y2 - rows + 1)
    x1, y1, x2, y2 = x1 + left, y1 + top, x2 - right, y2 - bottom
    width, height = nearest_integer(one(x2 - x1 + 1) * scale_x), nearest_integer(one(y2 - y1 + 1) * scale_y)
    left, top = nearest_integer(one(right if mirror else left) * scale_x), nearest_integer(one(top) * scale_y)
    return _Region(x1, y1, x2, y2, min(width, crop - left), min(height, crop - top), left, top)
