"""Making databases from images, and mean images from databases: ``convert_imageset`` and ``compute_image_mean``."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

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


class _HasPath(Protocol):
    @property
    def path(self) -> str: ...


Item = TypeVar("Item")
Listed = TypeVar("Listed", bound=_HasPath)
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
        min_dim, max_dim: enlarge so that the shorter edge has at least ``min_dim`` pixels, then, if that makes the longer one
            longer than ``max_dim``, make that so long instead, keeping proportions; 0 for no bound. Of SSD's Caffe.
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
    min_dim: int = 0
    max_dim: int = 0
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
        if min(self.min_dim, self.max_dim) < 0:
            raise DataError(f"min_dim {self.min_dim} and max_dim {self.max_dim} cannot be negative")
        if (self.min_dim or self.max_dim) and (self.resize_width or self.shorter_edge):
            raise DataError("set min_dim and max_dim, or a size that images are resized to, not both")
        if self.encode_type and not cv2.haveImageWriter(f".{self.encode_type}"):
            raise DataError(f'encode_type "{self.encode_type}": OpenCV cannot write such images; jpg and png work')


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
    root, entries = folder(root), read_list(list_file)

    def record(entry: Entry) -> tuple[Any, tuple[int, ...]]:
        stored = store_image(root + entry.path, entry.label, options)
        return stored.datum, stored.shape

    return store(root, list_file, entries, record, database, options, progress)


def folder(root: str) -> str:
    """Return a root folder as a prefix of paths: with the slash that is missing."""
    return f"{root}/" if root and not root.endswith("/") and os.path.isdir(root) else root


def store(
    root: str,
    list_file: str,
    entries: list[Listed],
    record: Callable[[Listed], tuple[Any, tuple[int, ...]]],
    database: str,
    options: ConvertOptions,
    progress: bool = False,
    tool: str = "convert_imageset",
) -> int:
    """Write a record for each entry of a list into a new LMDB; return their number.

    Args:
        root: what the paths of images begin with.
        list_file: the list, for messages.
        entries: what is in it.
        record: returns the message to store for an entry, and its channels, height and width; called in threads.
        database, options, progress: those of :func:`convert_imageset`.
        tool: Caffe's program, for the log.

    Raises:
        As :func:`convert_imageset`.
    """
    if options.backend != "lmdb":
        raise DataError(f'backend "{options.backend}" is not supported: {LEVELDB.format(path=database)}')
    if options.shuffle:
        _log(f"{tool}.cpp:83", "Shuffling data")
        entries = [entries[i] for i in draws.permutation(options.seed, 0, len(entries))]
    _log(f"{tool}.cpp:86", "A total of %d images.", len(entries))
    if not options.skip_unreadable:
        _check_files(root, entries, list_file)
    count = 0
    with DatabaseWriter(database) as writer:
        _log("db_lmdb.cpp:35", "Opened lmdb %s", database)
        for key, value in _records(entries, record, options, progress):
            writer.put(key, value)
            count += 1
            if count % 1000 == 0:
                _log(f"{tool}.cpp:144", "Processed %d files.", count)
        if not count:
            raise DataError(f"none of the {len(entries)} images of {list_file} can be read; is the root folder right?")
    if count % 1000:
        _log(f"{tool}.cpp:150", "Processed %d files.", count)
    return count


def _records(
    entries: list[Listed],
    record: Callable[[Listed], tuple[Any, tuple[int, ...]]],
    options: ConvertOptions,
    progress: bool,
) -> Iterator[tuple[bytes, bytes]]:
    """The key and the bytes of each entry that can be read, made in threads.

    Raises:
        MissingFileError, DataError: one cannot be read, without ``skip_unreadable``; sizes differ, with ``check_size``.
    """

    def make(numbered: tuple[int, Listed]) -> tuple[bytes, Any, tuple[int, ...]]:
        number, entry = numbered
        try:
            datum, size = record(entry)
        except (DataError, MissingFileError) as error:
            if not options.skip_unreadable:
                raise
            _log("io.cpp:80", "%s; skipped", error, level=logging.ERROR)
            return b"", None, ()
        return f"{number:08d}_{entry.path}".encode(errors="surrogateescape"), datum, size

    first: tuple[int, ...] = ()
    made = in_threads(make, enumerate(entries))
    for key, datum, size in tqdm(made, total=len(entries), unit="images", disable=not progress, mininterval=0.5):
        if datum is None:
            continue
        first = first or size
        if options.check_size and size != first:
            raise DataError(
                f"{key.decode(errors='backslashreplace')} has size {size}, but the images before it {first} "
                "(channels, height, width): resize them, or leave check_size out"
            )
        yield key, datum.SerializeToString()


def _check_files(root: str, entries: Sequence[_HasPath], list_file: str) -> None:
    """Look for all images first, before hours are spent on converting some of them."""
    missing = [entry.path for entry in entries if not os.path.isfile(root + entry.path)]
    if missing:
        shown = ", ".join(root + path for path in missing[:3]) + (", …" if len(missing) > 3 else "")
        raise MissingFileError(
            f"{len(missing)} of the {len(entries)} images of {list_file} are not there: {shown}; is the root folder "
            f'right? It is "{root}". (--skip_unreadable skips them.)'
        )


class Stored(NamedTuple):
    """An image as a database holds it.

    Attributes:
        datum: its Datum.
        shape: its channels, height and width.
        original: height and width of its file.
    """

    datum: Any
    shape: tuple[int, ...]
    original: tuple[int, int]


def store_image(path: str, label: int, options: ConvertOptions) -> Stored:
    """Read, resize and encode one image.

    Raises:
        MissingFileError, DataError: it is missing, does not decode, or cannot be resized or encoded.
    """
    data = read_file(path)
    try:
        image = decode_image(data, not options.gray)
        resized = _resize(image, options)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    encoding = options.encode_type.lower()
    extension = os.path.splitext(path)[1][1:].lower()
    if options.encoded and not encoding:
        encoding = extension
        if not encoding or not cv2.haveImageWriter(f".{encoding}"):
            raise DataError(f"{path}: cannot tell from the name how to encode it; give encode_type")
    planes = resized[None] if resized.ndim == 2 else resized.transpose(2, 0, 1)
    if not encoding:
        return Stored(array_to_datum(planes, label), planes.shape, image.shape[:2])
    if resized is not image or {"jpeg": "jpg"}.get(extension, extension) != {"jpeg": "jpg"}.get(encoding, encoding):
        data = _encode(resized, encoding, path)
    return Stored(caffe_pb2.Datum(data=data, label=label, encoded=True), planes.shape, image.shape[:2])


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
    if options.min_dim or options.max_dim:
        size = _bounded(height, width, options)
    if options.shorter_edge:
        scale = options.shorter_edge / min(height, width)
        size = (round(height * scale), round(width * scale))
    keeps = options.shorter_edge or options.min_dim or options.max_dim
    if size == (0, 0) or (keeps and size == (height, width)):
        return image
    return resize(image, size)


def _bounded(height: int, width: int, options: ConvertOptions) -> tuple[int, int]:
    """Return height and width within ``min_dim`` and ``max_dim``, by SSD's float arithmetic."""
    shorter, longer, scale = min(height, width), max(height, width), np.float32(1)
    if options.min_dim and shorter < options.min_dim:
        scale = np.float32(options.min_dim) / np.float32(shorter)
    if options.max_dim and int(scale * np.float32(longer)) > options.max_dim:
        scale = np.float32(options.max_dim) / np.float32(longer)
    return round(height * float(scale)), round(width * float(scale))


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
    mean = (_sum_images(records, database, progress) / len(records)).astype(np.float32)
    if output is not None:
        _log("compute_image_mean.cpp:108", "Write to %s", output)
        write_mean(output, mean)
    _log("compute_image_mean.cpp:114", "Number of channels: %d", len(mean))
    for channel, value in enumerate(mean.mean((1, 2), dtype=np.float64)):
        _log("compute_image_mean.cpp:119", "mean_value channel [%d]: %.6g", channel, value)
    return mean


def _sum_images(records: Database, path: str, progress: bool) -> np.ndarray:
    """The sum of all images of a database, in double precision.

    Raises:
        DataError: a record cannot be used, or images differ in size.
    """

    def read(item: tuple[bytes, bytes]) -> tuple[str, np.ndarray]:
        name = f'record "{item[0].decode(errors="backslashreplace")}" of {path}'
        try:
            return name, datum_to_array(parse_datum(item[1]))
        except DataError as error:
            raise DataError(f"{name}: {error}") from error

    total: np.ndarray | None = None
    _log("compute_image_mean.cpp:70", "Starting iteration")
    results = tqdm(in_threads(read, records), total=len(records), unit="images", disable=not progress, mininterval=0.5)
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
    return total


def in_threads(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
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
