"""Making databases from images, and mean images from databases: ``convert_imageset`` and ``compute_image_mean``."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import cv2
import numpy as np
from tqdm import tqdm

from ..errors import DataError, MissingFileError
from ..files import require_writable
from ..proto import caffe_pb2
from . import draws
from .database import LEVELDB, Database, DatabaseWriter
from .datum import array_to_datum, datum_to_array, decode_image, parse_datum
from .image_list import Entry, read_file, read_list, resize
from .loader import default_threads
from .mean import write_mean

logger = logging.getLogger(__name__)
Item = TypeVar("Item")
Result = TypeVar("Result")


def _log(source: str, message: str, *values: object, level: int = logging.INFO) -> None:
    logger.log(level, message, *values, extra={"source": source})


@dataclass(frozen=True)
class ConvertOptions:
    """Options of :func:`convert_imageset`, named like Caffe's flags.

    Attributes:
        gray: store one channel.
        shuffle: store the images in the random order that ``seed`` gives.
        backend: ``"lmdb"``; any other is an error.
        resize_width, resize_height: resize all images to this size, regardless of proportions; 0 keeps their sizes.
        shorter_edge: resize so that the shorter edge has this length, keeping proportions; 0 keeps the sizes. Not in
            Caffe.
        check_size: raise an error if records differ in size.
        encoded: store encoded images; a file that needs no change is stored as it is.
        encode_type: ``"jpg"``, ``"png"``, …; implies ``encoded``. Empty means the format of each file.
        skip_unreadable: log and skip images that are missing or do not decode, as Caffe does, instead of stopping.
    """

    gray: bool = False
    shuffle: bool = False
    backend: str = "lmdb"
    resize_width: int = 0
    resize_height: int = 0
    shorter_edge: int = 0
    check_size: bool = False
    encoded: bool = False
    encode_type: str = ""
    seed: int = 0
    skip_unreadable: bool = False

    def __post_init__(self) -> None:
        if min(self.resize_width, self.resize_height, self.shorter_edge) < 0:
            raise DataError(
                f"resize_width {self.resize_width}, resize_height {self.resize_height} and shorter_edge {self.shorter_edge} "
                "cannot be negative"
            )
        if bool(self.resize_width) != bool(self.resize_height):
            raise DataError("set resize_width and resize_height, or neither (shorter_edge keeps proportions)")
        if self.shorter_edge and self.resize_width:
            raise DataError("set shorter_edge, or resize_width and resize_height, not both")
        if self.encode_type and not cv2.haveImageWriter(f".{self.encode_type}"):
            raise DataError(f'encode_type "{self.encode_type}": OpenCV writes no such images; jpg and png work')


def convert_imageset(
    root: str, list_file: str, database: str, options: ConvertOptions | None = None, progress: bool = False
) -> int:
    """Write the images of a list file into a new LMDB; return their number.

    As in Caffe, keys are ``%08d_PATH``, numbered in list order, and values are Datums. The database gets its name when it is
    complete.

    Args:
        root: the folder that the listed paths start from.
        list_file: lines of the form ``PATH LABEL``.
        database: the folder to make.
        options: Caffe's defaults if None.
        progress: show a progress bar.

    Raises:
        MissingFileError, DataError: the list or a listed image cannot be used; ``database`` exists; sizes differ.
        CaffeError: ``database`` cannot be written.
    """
    options = options or ConvertOptions()
    if options.backend != "lmdb":
        raise DataError(f'backend "{options.backend}" is not supported: {LEVELDB.format(path=database)}')
    if root and not root.endswith("/") and os.path.isdir(root):
        root += "/"
    entries = read_list(list_file)
    if options.shuffle:
        _log("convert_imageset.cpp:83", "Shuffling data")
        entries = [entries[i] for i in draws.permutation(options.seed, 0, len(entries))]
    _log("convert_imageset.cpp:86", "A total of %d images.", len(entries))
    if not options.skip_unreadable:
        _check_files(root, entries, list_file)

    def make(numbered: tuple[int, Entry]) -> tuple[bytes, Any, tuple[int, ...]]:
        number, entry = numbered
        try:
            datum, size = _datum(root + entry.path, entry, options)
        except (DataError, MissingFileError) as error:
            if not options.skip_unreadable:
                raise
            _log("io.cpp:80", "%s; skipped", error, level=logging.ERROR)
            return b"", None, ()
        return f"{number:08d}_{entry.path}".encode(errors="surrogateescape"), datum, size

    count = 0
    size: tuple[int, ...] = ()
    with DatabaseWriter(database) as writer:
        _log("db_lmdb.cpp:35", "Opened lmdb %s", database)
        results = _in_threads(make, enumerate(entries))
        for key, datum, this in tqdm(results, total=len(entries), unit="images", disable=not progress, mininterval=0.5):
            if datum is None:
                continue
            size = size or this
            if options.check_size and this != size:
                raise DataError(
                    f"{key.decode(errors='backslashreplace')} has size {this}, but the images before it {size} "
                    "(channels, height, width): resize them, or leave check_size out"
                )
            writer.put(key, datum.SerializeToString())
            count += 1
            if count % 1000 == 0:
                _log("convert_imageset.cpp:144", "Processed %d files.", count)
        if not count:
            raise DataError(f"none of the {len(entries)} images of {list_file} can be read; is the root folder right?")
    if count % 1000:
        _log("convert_imageset.cpp:150", "Processed %d files.", count)
    return count


def _check_files(root: str, entries: list[Entry], list_file: str) -> None:
    """Look for all images first, before hours are spent on converting some of them."""
    missing = [entry.path for entry in entries if not os.path.isfile(root + entry.path)]
    if missing:
        shown = ", ".join(root + path for path in missing[:3]) + (", …" if len(missing) > 3 else "")
        raise MissingFileError(
            f"{len(missing)} of the {len(entries)} images of {list_file} are not there: {shown}; is the root folder "
            f'right? It is "{root}". (--skip_unreadable leaves them out.)'
        )


def _datum(path: str, entry: Entry, options: ConvertOptions) -> tuple[Any, tuple[int, ...]]:
    """Read, resize and encode one image; return its Datum and its (channels, height, width)."""
    data = read_file(path)
    try:
        image = decode_image(data, not options.gray)
        resized = _resize(image, options)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    encoding = options.encode_type.lower()
    extension = os.path.splitext(entry.path)[1][1:].lower()
    if options.encoded and not encoding:
        encoding = extension
        if not encoding or not cv2.haveImageWriter(f".{encoding}"):
            raise DataError(f"{path}: cannot tell from the name how to encode it; give encode_type")
    planes = resized[None] if resized.ndim == 2 else resized.transpose(2, 0, 1)
    if not encoding:
        return array_to_datum(planes, entry.label), planes.shape
    if resized is not image or {"jpeg": "jpg"}.get(extension, extension) != {"jpeg": "jpg"}.get(encoding, encoding):
        data = _encode(resized, encoding, path)
    return caffe_pb2.Datum(data=data, label=entry.label, encoded=True), planes.shape


def _encode(image: np.ndarray, encoding: str, path: str) -> bytes:
    """Return ``image`` encoded as a file of that format; ``path`` names it in errors."""
    try:
        done, data = cv2.imencode(f".{encoding}", image)
        reason = "OpenCV does not say why" if not done else ""
    except cv2.error as error:
        reason = error.err or str(error)
    if reason:
        raise DataError(f"{path}: cannot be encoded as {encoding}: {reason}; jpg and png take every image")
    return data.tobytes()


def _resize(image: np.ndarray, options: ConvertOptions) -> np.ndarray:
    height, width = image.shape[:2]
    size = (options.resize_height, options.resize_width)
    if options.shorter_edge:
        scale = options.shorter_edge / min(height, width)
        size = (round(height * scale), round(width * scale))
    if size == (0, 0) or (options.shorter_edge and size == (height, width)):
        return image
    return resize(image, size)


def compute_image_mean(
    database: str, output: str | None = None, backend: str = "lmdb", progress: bool = False
) -> np.ndarray:
    """Return the mean image of a database (``float32``, C×H×W), and write it to ``output`` if that is given.

    Raises:
        MissingFileError, DataError: the database or a record cannot be used, or images differ in size.
        CaffeError: ``output`` cannot be written.
    """
    if backend != "lmdb":
        raise DataError(f'backend "{backend}" is not supported: {LEVELDB.format(path=database)}')
    if output is not None:
        require_writable(output)
    records = Database(database)
    _log("db_lmdb.cpp:35", "Opened lmdb %s", database)

    def read(item: tuple[bytes, bytes]) -> tuple[str, np.ndarray]:
        name = f'record "{item[0].decode(errors="backslashreplace")}" of {database}'
        try:
            return name, datum_to_array(parse_datum(item[1]))
        except DataError as error:
            raise DataError(f"{name}: {error}") from error

    total: np.ndarray | None = None
    _log("compute_image_mean.cpp:70", "Starting iteration")
    results = tqdm(_in_threads(read, records), total=len(records), unit="images", disable=not progress, mininterval=0.5)
    for count, (name, image) in enumerate(results, 1):
        if total is None:
            total = np.zeros(image.shape, np.float64)
        if image.shape != total.shape:
            raise DataError(
                f"{name}: is {image.shape}, but the records before it {total.shape} (channels, height, width); a mean "
                "image needs all of one size: convert_imageset with --resize_height and --resize_width"
            )
        np.add(total, image, out=total)
        if count % 10000 == 0:
            _log("compute_image_mean.cpp:95", "Processed %d files.", count)
    if len(records) % 10000:
        _log("compute_image_mean.cpp:101", "Processed %d files.", len(records))
    assert total is not None  # a Database is never empty
    mean = (total / len(records)).astype(np.float32)
    if output is not None:
        _log("compute_image_mean.cpp:108", "Write to %s", output)
        write_mean(output, mean)
    _log("compute_image_mean.cpp:114", "Number of channels: %d", len(mean))
    for channel, value in enumerate(mean.mean((1, 2), dtype=np.float64)):
        _log("compute_image_mean.cpp:119", "mean_value channel [%d]: %.6g", channel, value)
    return mean


def _in_threads(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Apply ``function`` in threads. Results come in order, and few are computed ahead, which bounds memory."""
    threads = default_threads()
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > 4 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
