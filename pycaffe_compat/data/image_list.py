"""List files, with a line ``PATH LABEL`` for each image, and the images they name."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

import cv2
import numpy as np

from ..errors import DataError, require_file
from ..files import open_text
from ..proto.kinds import LISTS, told_apart
from .datum import decode_image

LABEL = re.compile(r"[+-]?[0-9]+")
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
MORE_NUMBERS = re.compile(rf"(\s+{NUMBER.pattern})+$")
OTHER_LABELS = (
    "An image of a list has one label, an integer, without image_data_param.label_dim. Put several labels, or fractions, into an "
    "HDF5 file (HDF5Data) or into a database of their own, as float_data in the order of the images (a second Data layer)"
)


class Entry(NamedTuple):
    """One line of a list file."""

    path: str
    label: int


class Several(NamedTuple):
    """One line of a list file with several labels."""

    path: str
    label: tuple[int, ...]


def read_list(path: str | os.PathLike[str]) -> list[Entry]:
    """Read a list file. A line is a path (which may contain spaces), white space and an integer label; empty lines are skipped.

    Raises:
        MissingFileError: there is no such file.
        DataError: a line has no label, or one that does not fit 32 bits; the file has no lines, or is of another kind. The
            message names file and line.
    """
    name = require_file(path, "list file")
    with told_apart(name, LISTS, 'an image list: a text file with a line "PATH LABEL" for each image'):
        return _read_list(name)


def read_labels_list(path: str | os.PathLike[str], number: int) -> list[Several]:
    """Read a list file whose lines are a path, which may contain spaces, and ``number`` integer labels: HashNet's Caffe.

    Raises:
        MissingFileError, DataError: as :func:`read_list`.
    """
    name = require_file(path, "list file")
    wanted = f'"PATH" and {number} labels'
    entries = []
    with told_apart(name, LISTS, f"an image list: a text file with a line {wanted} for each image"):
        for line_number, line in read_lines(name):
            words = line.rsplit(None, number)
            if len(words) <= number or not all(map(LABEL.fullmatch, words[1:])):
                raise DataError(
                    f'{name}:{line_number}: no {number} integer labels at the end of "{line}"; expected {wanted}'
                )
            labels = tuple(map(int, words[1:]))
            if not all(-(2**31) <= label < 2**31 for label in labels):
                raise DataError(f"{name}:{line_number}: a label is out of range; a label is a 32-bit integer")
            entries.append(Several(words[0], labels))
    if not entries:
        raise DataError(f"list file {name} is empty; expected {wanted} for each image")
    return entries


def read_lines(name: str) -> list[tuple[int, str]]:
    """Return the lines of a list file that are not empty, stripped, each with its number.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        with open_text(name) as file:
            return [(number, line.strip()) for number, line in enumerate(file, 1) if line.strip()]
    except OSError as error:
        raise DataError(f"cannot read list file {name}: {error.strerror}") from error


def _read_list(name: str) -> list[Entry]:
    entries = []
    for number, line in read_lines(name):
        words = line.rsplit(None, 1)
        if len(words) < 2 or not LABEL.fullmatch(words[1]):
            hint = f". {OTHER_LABELS}" if len(words) == 2 and NUMBER.fullmatch(words[1]) else ""
            raise DataError(f'{name}:{number}: no integer label at the end of "{line}"; expected "PATH LABEL"{hint}')
        if len(words[1]) > 11 or not -(2**31) <= int(words[1]) < 2**31:
            raise DataError(f"{name}:{number}: label {words[1]} is out of range; a label is a 32-bit integer")
        entries.append(Entry(words[0], int(words[1])))
    if not entries:
        raise DataError(f'list file {name} is empty; expected a line "PATH LABEL" for each image')
    return entries


def several_labels(root: str, entry: Entry) -> bool:
    """Whether the path of an entry ends in numbers that are no part of a file's name, as in ``a.jpg 3 5``."""
    path = root + entry.path
    name = MORE_NUMBERS.sub("", path)
    return name != path and not os.path.exists(path) and os.path.exists(name)


def read_file(path: str | os.PathLike[str]) -> bytes:
    """Return the bytes of an image file.

    Raises:
        MissingFileError, DataError: the file is missing or cannot be read.
    """
    name = require_file(path, "image")
    try:
        with open(name, "rb") as file:
            return file.read()
    except OSError as error:
        raise DataError(f"cannot read image {name}: {error.strerror}") from error


def read_image(path: str | os.PathLike[str], color: bool = True, size: tuple[int, int] | None = None) -> np.ndarray:
    """Read an image file as ``uint8``: H×W×3 (BGR) with ``color``, H×W (grey) without.

    ``size``, a ``(height, width)``, resizes it.

    Raises:
        MissingFileError, DataError: the file is missing or does not decode; the caller adds its name.
    """
    image = decode_image(read_file(path), color)
    return image if size is None else resize(image, size)


def resize(image: np.ndarray, size: tuple[int, int], nearest: bool = False) -> np.ndarray:
    """Return ``image`` resized to ``size``, a ``(height, width)``, by OpenCV's bilinear interpolation, as in Caffe.

    ``nearest`` takes the nearest pixel instead, which makes no new values.

    Raises:
        DataError: OpenCV cannot make an image of this size.
    """
    try:
        return cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR)
    except cv2.error as error:
        raise DataError(f"cannot be resized to {size[0]} × {size[1]} pixels (height × width)") from error
