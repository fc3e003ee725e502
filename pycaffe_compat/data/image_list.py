"""List files (``path label`` a line) and the images they name."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

import cv2
import numpy as np

from ..errors import DataError, require_file
from .datum import decode_image

LABEL = re.compile(r"[+-]?[0-9]+")


class Entry(NamedTuple):
    """One line of a list file."""

    path: str
    label: int


def read_list(path: str | os.PathLike[str]) -> list[Entry]:
    """Read a list file: a path (spaces are part of it), white space, an integer label. Empty lines are passed over.

    Raises:
        MissingFileError: there is no such file.
        DataError: a line without a label or with one that no record can hold, or a file without lines; names file and
            line.
    """
    name = require_file(path, "list file")
    entries = []
    try:
        with open(name, encoding="utf-8-sig", errors="surrogateescape") as file:
            for number, line in enumerate(file, 1):
                words = line.strip().rsplit(None, 1)
                if not words:
                    continue
                if len(words) < 2 or not LABEL.fullmatch(words[1]):
                    raise DataError(
                        f'{name}:{number}: no integer label at the end of "{line.strip()}"; wanted "PATH LABEL"'
                    )
                if len(words[1]) > 11 or not -(2**31) <= int(words[1]) < 2**31:
                    raise DataError(f"{name}:{number}: label {words[1]} is out of range; labels have 32 bits")
                entries.append(Entry(words[0], int(words[1])))
    except OSError as error:
        raise DataError(f"cannot read list file {name}: {error.strerror}") from error
    if not entries:
        raise DataError(f'list file {name} is empty; wanted lines of the form "PATH LABEL"')
    return entries


def read_file(path: str | os.PathLike[str]) -> bytes:
    """Return the bytes of an image file.

    Raises:
        MissingFileError, DataError: it is not there or cannot be read.
    """
    name = require_file(path, "image")
    try:
        with open(name, "rb") as file:
            return file.read()
    except OSError as error:
        raise DataError(f"cannot read image {name}: {error.strerror}") from error


def read_image(path: str | os.PathLike[str], color: bool = True, size: tuple[int, int] | None = None) -> np.ndarray:
    """Read an image file: H×W×3 (BGR) or, where not ``color``, H×W; ``uint8``.

    ``size`` ``(height, width)`` resizes it.

    Raises:
        MissingFileError, DataError: it is not there, or does not decode; who asks for the image adds its name.
    """
    image = decode_image(read_file(path), color)
    return image if size is None else resize(image, size)


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return ``image`` at ``size`` ``(height, width)``, by OpenCV's bilinear interpolation, as Caffe does.

    Raises:
        DataError: a size that no image can have here.
    """
    try:
        return cv2.resize(image, (size[1], size[0]))
    except cv2.error as error:
        raise DataError(f"cannot be resized to {size[0]} × {size[1]} pixels (height × width)") from error
