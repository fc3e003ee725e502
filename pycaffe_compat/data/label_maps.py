"""Batches of images with label maps: lists of pairs, and the same crop, scale and mirroring for both of a pair.

A label map is a grey image of the size of its image, whose values are classes. Forks of Caffe for segmentation and for
edges read them; :mod:`..layers.label_map_data` says which.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch

from ..errors import DataError, prefixed, require_file
from ..proto.kinds import LISTS, told_apart
from . import draws
from .batches import Shape, Shard
from .image_list import LABEL, read_image, read_lines, resize
from .loader import Buffers, Job, default_threads
from .transformer import Transformer

Size = tuple[int, int]


Words = tuple[str, ...]
_PATHS = ("IMAGE", "LABELMAP", "ANNOTATION", "INSTANCES", "PATH")


class Sample(NamedTuple):
    """A record as it was read: an image, H×W×3 or H×W, its label map, H×W, both ``uint8``, and the size to report for it."""

    image: np.ndarray
    labels: np.ndarray
    size: Size


def read_pairs(path: str | os.PathLike[str], form: str, more: bool = False) -> list[Words]:
    """Read a list of images and what belongs to each: words with white space between them, a line for each image.

    Args:
        path: the list file.
        form: what the words of a line are, such as ``"IMAGE LABELMAP X1 Y1 X2 Y2"``: paths, and integers.
        more: whether words beyond those may follow; they are dropped.

    Raises:
        MissingFileError: there is no such file.
        DataError: a line has not the form, or the file is empty or of another kind. The message names file and line.
    """
    name = require_file(path, "list file")
    with told_apart(name, LISTS, f'a list: a text file with a line "{form}" for each image'):
        kinds = form.split()
        pairs = [_words(f"{name}:{number}", line.split(), kinds, more) for number, line in read_lines(name)]
        if not pairs:
            raise DataError(f'list file {name} is empty; expected a line "{form}" for each image')
    return pairs


def _words(where: str, words: list[str], form: list[str], more: bool) -> Words:
    if len(words) < len(form) or (len(words) > len(form) and not more):
        raise DataError(
            f'{where}: "{" ".join(words)}" has {len(words)} words; expected "{" ".join(form)}", paths without spaces'
        )
    for word, what in zip(words, form, strict=False):
        if what not in _PATHS and not (LABEL.fullmatch(word) and len(word) < 11):
            raise DataError(f'{where}: "{word}", where "{" ".join(form)}" has the integer {what}')
    return tuple(words[: len(form)])


@dataclass(frozen=True)
class Changes:
    """What is done to an image and its label map alike.

    Attributes:
        crop: height and width of what is cut from both; None for all of it.
        at_random: whether the place of the crop is random; else it is the centre.
        mirror: mirror half of the records.
        scales: resize by one of these factors, drawn for each record, before the crop.
        pad_label: pads what is smaller than the crop, at the bottom and right: the image with its mean, the label map with
            this value. None makes it an error.
        mean_of_crop: a mean image is as large as the crop, and is not mirrored with the image.
        between: resize by a factor drawn between these, the image by cubic interpolation where it grows and by the means of
            areas where it shrinks.
        widen: what is done to both after that.
        take: rows and columns of the label map that are taken in the end; the rest is dropped.
    """

    crop: Size | None = None
    at_random: bool = True
    mirror: bool = False
    scales: tuple[float, ...] = ()
    pad_label: int | None = None
    mean_of_crop: bool = False
    between: tuple[float, float] | None = None
    widen: Callable[[Sample], Sample] | None = None
    take: tuple[slice, slice] | None = None


class LabelMapReader:
    """Batches of images, label maps and sizes: N×C×H×W, N×1×h×w and N×1×1×2, ``float32``.

    The first record of a batch sets its shape. h × w is H × W, unless records come with label maps of another size,
    which are then not cropped.

    Args:
        load: reads the files that the words of a line name.
        pairs: the words of each record, its image first.
        batch_size: records per batch.
        order: the order in which they are read.
        changes: what is done to both of a pair.
        transform: a ``TransformationParameter``, for the mean and scale of the images; the rest of it is not read.
        phase: ``caffe_pb2.TRAIN`` or ``TEST``.
    """

    WORDS = 4

    def __init__(
        self,
        load: Callable[[Words], Sample],
        pairs: Sequence[Words],
        batch_size: int,
        order: draws.Order,
        changes: Changes,
        transform: Any,
        phase: int,
    ) -> None:
        self.batch_size = batch_size
        self._load, self._pairs, self._order, self._changes = load, pairs, order, changes
        plain = type(transform)(scale=transform.scale, mean_value=transform.mean_value)
        if transform.HasField("mean_file"):
            plain.mean_file = transform.mean_file
        self._transformer = Transformer(plain, phase)
        self._images, self._labels, self._sizes = Buffers(), Buffers(), Buffers()

    def shapes(self) -> list[Shape]:
        """Return the shapes of images, label maps and sizes, from the first record."""
        return self._shapes(self._checked(self._pairs[0], (0,) * self.WORDS))

    def _shapes(self, sample: Sample) -> list[Shape]:
        height, width = self._changes.crop or sample.image.shape[:2]
        labels = sample.labels.shape if self._apart(sample) else (height, width)
        if self._changes.take is not None:
            labels = tuple(len(range(*part.indices(n))) for part, n in zip(self._changes.take, labels, strict=True))
        channels = 1 if sample.image.ndim == 2 else sample.image.shape[2]
        return [
            (self.batch_size, channels, height, width),
            (self.batch_size, 1, *labels),
            (self.batch_size, 1, 1, 2),
        ]

    @staticmethod
    def _apart(sample: Sample) -> bool:
        return sample.labels.shape != sample.image.shape[:2]

    def _checked(self, pair: Words, words: Sequence[int]) -> Sample:
        """Read a pair and resize it; words are as in :meth:`begin`."""
        sample = self._load(pair)
        with prefixed(f"image {pair[0]}"):
            if self._changes.scales:
                sample = _scaled(sample, self._changes.scales[words[3] % len(self._changes.scales)])
            if self._changes.between is not None:
                least, most = self._changes.between
                sample = _rescaled(sample, least + (most - least) * words[3] / 2**64)
            if self._changes.widen is not None:
                sample = self._changes.widen(sample)
            crop, size = self._changes.crop, sample.image.shape[:2]
            if crop and self._changes.pad_label is None and (size[0] < crop[0] or size[1] < crop[1]):
                raise DataError(
                    f"a crop of {_by(crop)} (height × width) is larger than the image, which is {_by(size)}"
                )
            channels = 1 if sample.image.ndim == 2 else sample.image.shape[2]
            self._transformer.check((channels, *(crop if crop and self._changes.mean_of_crop else size)))
        return sample

    def begin(self, shard: Shard, position: int) -> tuple[list[np.ndarray], list[Job]]:
        """Return the arrays of the batch at ``position`` and the jobs that fill them."""
        positions = shard.positions(position, self.batch_size)
        pairs = [self._pairs[self._order.index(shard.seed, int(at))] for at in positions]
        words = draws.words(shard.seed, positions, self.WORDS).tolist()
        first = self._checked(pairs[0], words[0])
        shapes = self._shapes(first)
        buffers = (self._images, self._labels, self._sizes)
        arrays = [each.take(*shape) for each, shape in zip(buffers, shapes, strict=True)]

        def fill(start: int, stop: int) -> None:
            for i in range(start, stop):
                sample = self._checked(pairs[i], words[i]) if i else first
                made = self._shapes(sample)
                if made[:2] != shapes[:2]:
                    raise DataError(
                        f"image {pairs[i][0]}: has {_by(made[0][1:])} values and {_by(made[1][1:])} labels, but the first "
                        f"record of the batch {_by(shapes[0][1:])} and {_by(shapes[1][1:])}; records of different sizes "
                        "need a crop, or batch_size: 1"
                    )
                self._place(sample, words[i], arrays[0][i : i + 1], arrays[1][i, 0])
                arrays[2][i, 0, 0] = np.minimum(sample.size, shapes[0][2:])

        chunk = min(16, math.ceil(self.batch_size / default_threads()))
        starts = range(0, self.batch_size, chunk)
        return arrays, [functools.partial(fill, i, min(i + chunk, self.batch_size)) for i in starts]

    def _place(self, sample: Sample, words: Sequence[int], image_out: np.ndarray, labels_out: np.ndarray) -> None:
        """Cut, mirror and transform a record into its place in the batch, 1×C×H×W and h×w."""
        changes, (height, width) = self._changes, image_out.shape[2:]
        rows, columns = (
            max(have - want, 0) + 1 for have, want in zip(sample.image.shape, (height, width), strict=False)
        )
        top, left = (
            (words[0] % rows, words[1] % columns) if changes.at_random else ((rows - 1) // 2, (columns - 1) // 2)
        )
        mirrored = bool(changes.mirror and words[2] & 1)
        image = sample.image[..., None] if sample.image.ndim == 2 else sample.image
        window = (slice(top, top + height), slice(left, left + width))
        labels = sample.labels if self._apart(sample) else sample.labels[window]
        inside = image[window].shape[:2]
        at = (slice(0, inside[0]), slice(width - inside[1], width) if mirrored else slice(0, inside[1]))
        if changes.mean_of_crop:
            image = np.ascontiguousarray(image[window][:, ::-1] if mirrored else image[window])
            top, left, mirror = 0, 0, False
        else:
            mirror = mirrored
        planes = image.transpose(2, 0, 1)
        windows = np.array([(top, left, mirror)], np.int32)
        if inside == (height, width):
            self._transformer.transform([planes], windows, torch.from_numpy(image_out))
            labels = labels[:, ::-1] if mirrored else labels
            labels_out[:] = labels if changes.take is None else labels[changes.take]
            return
        assert changes.pad_label is not None
        part = torch.empty(1, len(planes), *inside)
        self._transformer.transform([planes], windows, part)
        image_out[:] = 0
        image_out[0][:, at[0], at[1]] = part[0].numpy()
        labels_out[:] = changes.pad_label
        labels_out[at] = labels[:, ::-1] if mirrored else labels


def _scaled(sample: Sample, factor: float) -> Sample:
    """Resize both of a pair by a factor, the label map to the nearest pixels. Sides are rounded down, in float32."""
    if factor == 1:
        return sample
    height, width = (int(np.float32(side) * np.float32(factor)) for side in sample.image.shape[:2])
    return sample._replace(
        image=resize(sample.image, (height, width)), labels=resize(sample.labels, (height, width), nearest=True)
    )


def _rescaled(sample: Sample, factor: float) -> Sample:
    """Resize both of a pair by a factor, sides rounded: the label map to the nearest pixels, the image smoothly."""
    smooth = cv2.INTER_CUBIC if factor > 1 else cv2.INTER_AREA
    try:
        labels = cv2.resize(sample.labels, None, fx=factor, fy=factor, interpolation=cv2.INTER_NEAREST)
        return sample._replace(
            image=cv2.resize(sample.image, None, fx=factor, fy=factor, interpolation=smooth), labels=labels
        )
    except cv2.error as error:
        raise DataError(f"cannot be resized by a factor of {factor:g}: {error.err or error}") from error


def _by(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape))


@dataclass(frozen=True)
class PairFiles:
    """Reads the two files of a pair.

    Attributes:
        root: a prefix of every path; text, not a folder.
        color: decode images to BGR; otherwise to grey.
        size: ``(height, width)`` to resize images to, or None.
        label_size: the same for label maps.
        nearest: resize label maps to the nearest pixels; otherwise bilinearly, like images.
    """

    root: str = ""
    color: bool = True
    size: Size | None = None
    label_size: Size | None = None
    nearest: bool = True

    def image(self, pair: Words) -> np.ndarray:
        """Return the image that the first word of a line names, H×W×3 or H×W.

        Raises:
            MissingFileError, DataError: the file is missing or does not decode.
        """
        with prefixed(f"image {self.root}{pair[0]}"):
            return read_image(self.root + pair[0], self.color, self.size)

    def labels(self, pair: Words, at: int = 1) -> np.ndarray:
        """Return the label map that the second word (or that ``at``) names, H×W; raises as :meth:`image`."""
        with prefixed(f"label map {self.root}{pair[at]}"):
            labels = read_image(self.root + pair[at], color=False)
            return labels if self.label_size is None else resize(labels, self.label_size, self.nearest)

    def both(self, pair: Words) -> Sample:
        """Return image and label map of a line, of one size unless ``label_size`` is another one.

        Raises:
            MissingFileError, DataError: a file is missing or does not decode; the two differ in size.
        """
        image, labels = self.image(pair), self.labels(pair)
        if self.size == self.label_size and labels.shape != image.shape[:2]:
            raise DataError(
                f"image {self.root}{pair[0]} is {_by(image.shape[:2])} (height × width), but its label map "
                f"{self.root}{pair[1]} is {_by(labels.shape)}; they must be equal"
            )
        return Sample(image, labels, (image.shape[0], image.shape[1]))

    def filled(self, pair: Words, label: int) -> Sample:
        """Return the image of a line and a label map that holds only ``label``, limited to 0 to 255 as in a byte."""
        image = self.image(pair)
        labels = np.full(image.shape[:2], as_byte(label), np.uint8)
        return Sample(image, labels, (image.shape[0], image.shape[1]))


def as_byte(label: int) -> int:
    """Return the nearest label that a label map can hold."""
    return min(max(label, 0), 255)


def cut_window(sample: Sample, corners: tuple[int, int, int, int], outside: int, size: Size | None) -> Sample:
    """Cut a window out of a pair and resize it, the label map to the nearest pixels.

    Args:
        sample: the pair; its ``size`` stays.
        corners: x1, y1, x2, y2, bounds included. What lies outside the image is black there.
        outside: the label of what lies outside.
        size: height and width to resize the window to, or None.

    Raises:
        DataError: the window is empty, or too large for memory.
    """
    x1, y1, x2, y2 = corners
    height, width = sample.labels.shape
    if x2 < x1 or y2 < y1:
        raise DataError(f"window {corners} (x1, y1, x2, y2) is empty")
    edges = (max(0, -y1), max(0, y2 - height + 1), max(0, -x1), max(0, x2 - width + 1))
    image, labels = sample.image, sample.labels
    try:
        if any(edges):
            image = cv2.copyMakeBorder(image, *edges, cv2.BORDER_CONSTANT, value=(0, 0, 0))
            labels = cv2.copyMakeBorder(labels, *edges, cv2.BORDER_CONSTANT, value=(outside,))
    except cv2.error as error:
        raise DataError(f"window {corners} (x1, y1, x2, y2) reaches too far outside: {error.err or error}") from error
    window = (slice(y1 + edges[0], y2 + edges[0] + 1), slice(x1 + edges[2], x2 + edges[2] + 1))
    image, labels = image[window], labels[window]
    if size is not None:
        image, labels = resize(image, size), resize(labels, size, nearest=True)
    return Sample(image, labels, sample.size)
