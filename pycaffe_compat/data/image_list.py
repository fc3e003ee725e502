"""List files (``path label`` a line) and the images they name."""

from __future__ import annotations

import os
from typing import NamedTuple

import cv2
import numpy as np

from ..errors import DataError, require_file
from .datum import decode_image


class Entry(NamedTuple):
    """One line of a list file."""

    path: str
    label: int


def read_list(path: str | os.PathLike[str]) -> list[Entry]:
    """Read a list file: a path (spaces are part of it), white space, an integer label. Empty lines are passed over.

    Raises:
        MissingFileError: there is no such file.
        DataError: a line without a label, or a file without lines; names file and line.
    """
    name = require_file(path, "list file")
    entries = []
    try:
        with open(name, encoding="utf-8", errors="surrogateescape") as file:
            for number, line in enumerate(file, 1):
                words = line.strip().rsplit(None, 1)
                if not words:
                    continue
                try:
                    entries.append(Entry(words[0], int(words[1])))
                except (IndexError, ValueError):
                    raise DataError(
                        f'{name}:{number}: no integer label at the end of "{line.strip()}"; wanted "PATH LABEL"'
                    ) from None
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

    ``size`` ``(height, width)`` resizes it with OpenCV's bilinear interpolation, as Caffe does.

    Raises:
        MissingFileError, DataError: it is not there, or does not decode.
    """
    try:
        image = decode_image(read_file(path), color)
    except DataError as error:
        raise DataError(f"{os.fspath(path)}: {error}") from error
    return image if size is None else cv2.resize(image, (size[1], size[0]))
