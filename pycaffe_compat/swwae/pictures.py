"""Pictures that a net is shown: from image files, folders and LMDBs, resized and cropped to one size."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from ..data.database import Database
from ..data.datum import datum_to_array, decode_image, parse_datum
from ..data.image_list import read_file
from ..errors import DataError, prefixed, require_file

EDGE = 256
ENDINGS = (".bmp", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")

Image = tuple[np.ndarray, int]


def read_images(database: str | os.PathLike[str], color: bool = True) -> Iterator[Image]:
    """Yield the images of an LMDB as (channels, height, width) uint8, BGR or grey, with their labels.

    Raises:
        DataError: a record is no image.
    """
    records = Database(database)
    for position in range(len(records)):
        key, value = records.read(position)
        with prefixed(f"{os.fspath(database)}, record {key.decode(errors='replace')}"):
            record = parse_datum(value)
            image = datum_to_array(record, color).copy()  # not a view of the database, which may be closed
        yield image, record.label


def resize_shorter(image: np.ndarray, edge: int = EDGE, interpolation: int = cv2.INTER_LINEAR) -> np.ndarray:
    """Return (channels, height, width) with the shorter edge ``edge`` long, in proportion."""
    height, width = image.shape[1:]
    if min(height, width) == edge:
        return image
    scale = edge / min(height, width)
    size = (max(edge, round(width * scale)), max(edge, round(height * scale)))
    resized = cv2.resize(np.ascontiguousarray(image.transpose(1, 2, 0)), size, interpolation=interpolation)
    return (resized[:, :, None] if resized.ndim == 2 else resized).transpose(2, 0, 1)


def centre(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return the window of that size in the middle, as Caffe's TEST phase crops.

    Raises:
        DataError: the image is smaller.
    """
    h, w = image.shape[1:]
    if h < height or w < width:
        raise DataError(f"an image of {h}x{w} is smaller than the crop of {height}x{width}")
    top, left = (h - height) // 2, (w - width) // 2
    return image[:, top : top + height, left : left + width]


@dataclass(frozen=True)
class Picture:
    """A picture as it is stored.

    Attributes:
        name: the path of its file, or of its LMDB with the key.
        pixels: (channels, height, width) uint8; 1 channel is grey, 3 are BGR.
        converted: ``"grey"`` or ``"colour"``, what its file holds, where that was turned into the other; else ``""``.
        from_file: whether it is an image file, not a record of an LMDB.
    """

    name: str
    pixels: np.ndarray
    converted: str
    from_file: bool


class Pictures:
    """The pictures of files, folders and LMDBs, in the order given; those of a folder and its subfolders by name.

    Args:
        paths: image files, folders of them, and LMDBs.
        limit: only the first so many pictures; None for all.

    Attributes:
        left_out: files of folders that do not end as image files do.

    Raises:
        MissingFileError: a path is not there.
        DataError: no pictures, or a limit below 1.
    """

    def __init__(self, paths: Sequence[str | os.PathLike[str]], limit: int | None = None) -> None:
        if limit is not None and limit < 1:
            raise DataError(f"limit: {limit} must be at least 1")
        self.left_out: list[str] = []
        self._parts: list[str | Database] = []
        for given in paths:
            path = os.fspath(given)
            require_file(path, "picture, folder or LMDB")
            if not os.path.isdir(path):
                self._parts.append(path)
            elif any(os.path.exists(os.path.join(path, name)) for name in ("data.mdb", "CURRENT")):
                self._parts.append(Database(path))
            else:
                self._parts += self._in_folder(path)
        if not self._parts:
            raise DataError("no pictures are given; name image files, a folder of them, or an LMDB")
        there = sum(len(part) if isinstance(part, Database) else 1 for part in self._parts)
        self._count = there if limit is None else min(limit, there)

    def _in_folder(self, folder: str) -> list[str]:
        names = [os.path.join(where, name) for where, _, files in os.walk(folder, followlinks=True) for name in files]
        found = sorted(name for name in names if name.lower().endswith(ENDINGS))
        if not found:
            has = f"{len(names)} other files" if names else "no files"
            raise DataError(f"{folder}: no pictures: the folder has {has}; pictures end in {', '.join(ENDINGS)}")
        self.left_out += sorted(set(names) - set(found))
        return found

    def __len__(self) -> int:
        return self._count

    def read(self, channels: int) -> Iterator[Picture]:
        """Yield the pictures for a net that takes images of 1 channel or 3.

        As in Caffe's image layers, what is encoded (a file, an encoded record) is decoded as grey or colour, whichever
        the net takes: a grey picture becomes three equal channels. Raw pixels are taken as they are.

        Raises:
            DataError: a picture does not decode, or holds raw pixels of another number of channels.
        """
        made = 0
        for part in self._parts:
            pictures = _records(part, channels) if isinstance(part, Database) else iter([_file(part, channels)])
            for picture in pictures:
                if made == self._count:
                    return
                made += 1
                yield picture


def _file(path: str, channels: int) -> Picture:
    data = read_file(path)
    with prefixed(path):
        pixels, converted = _decode(data, channels)
    return Picture(path, pixels, converted, True)


def _records(database: Database, channels: int) -> Iterator[Picture]:
    for position in range(len(database)):
        key, value = database.read(position)
        name = f"{database.path}, record {key.decode(errors='replace')}"
        with prefixed(name):
            record = parse_datum(value)
            if record.encoded:
                pixels, converted = _decode(record.data, channels)
            else:
                pixels, converted = datum_to_array(record).copy(), ""
                if pixels.dtype != np.uint8:
                    raise DataError(f"holds {pixels.dtype} values; pictures are 8-bit pixels")
                if len(pixels) != channels:
                    raise DataError(
                        f"an image of raw pixels with {_channels(len(pixels))}, but the net takes {_channels(channels)}"
                    )
        yield Picture(name, pixels, converted, False)


def _channels(count: int) -> str:
    kind = {1: " (grey)", 3: " (colour)"}.get(count, "")
    return f"{count} channel{'s' if count > 1 else ''}{kind}"


def _decode(data: bytes | memoryview, channels: int) -> tuple[np.ndarray, str]:
    """The pixels for a net of so many channels, and ``"grey"`` or ``"colour"`` where the data holds the other kind."""
    image = decode_image(data, channels == 3)
    stored = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_ANYCOLOR)
    grey = stored is not None and stored.ndim == 2
    fits = grey == (channels == 1)
    pixels = image[None] if image.ndim == 2 else image.transpose(2, 0, 1)
    return pixels, "" if fits else "grey" if grey else "colour"


@dataclass(frozen=True)
class Frame:
    """How pictures of any size become images of one size.

    Attributes:
        size: height and width of what is cut from the middle.
        edge: the length that the shorter edge is resized to before. None: files that are larger are made smaller until
            the crop just fits, and records of an LMDB keep their size, as in Caffe's Data layer.
    """

    size: tuple[int, int]
    edge: int | None = None

    def cut(self, picture: Picture) -> np.ndarray:
        """Return the window of a picture: (channels, height, width) uint8.

        Raises:
            DataError: the picture is smaller than the window.
        """
        height, width = self.size
        h, w = picture.pixels.shape[1:]
        pixels = picture.pixels
        if self.edge is not None:
            edge = self.edge
        elif picture.from_file and h >= height and w >= width:
            edge = math.ceil(min(h, w) * max(height / h, width / w) - 1e-9)
        else:
            edge = min(h, w)
        shrinks = edge < min(h, w)
        pixels = resize_shorter(pixels, edge, cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        with prefixed(picture.name):
            try:
                return centre(pixels, height, width)
            except DataError as error:
                raise DataError(f"{error}; --crop chooses a smaller one, --edge resizes pictures") from error
