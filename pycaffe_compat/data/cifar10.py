"""CIFAR-10 (Krizhevsky, 2009): 60,000 pictures of 32×32 in ten classes, read from what it is published as, into LMDBs."""

from __future__ import annotations

import hashlib
import itertools
import os
import tarfile
import urllib.error
import urllib.request
import zipfile
from dataclasses import dataclass

import numpy as np

from ..errors import DataError, MissingFileError, require_file
from ..files import atomic_path
from .database import DatabaseWriter
from .datum import array_to_datum, decode_image

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
EDGE, CLASSES = 32, 10
RECORD = 1 + 3 * EDGE * EDGE
MEMBERS = {"train": [f"data_batch_{number}.bin" for number in range(1, 6)], "test": ["test_batch.bin"]}


@dataclass
class Pictures:
    """A part of the data set: ``images`` (n, 3, 32, 32) uint8 in BGR, ``labels`` (n,) from 0 to 9."""

    images: np.ndarray
    labels: np.ndarray


def download(path: str, url: str = URL) -> None:
    """Fetch the archive to ``path``, unless it is there; either way check its hashes.

    Raises:
        MissingFileError: it cannot be fetched. DataError: it is not the official archive.
    """
    if not os.path.exists(path):
        try:
            with (
                atomic_path(path) as temporary,
                urllib.request.urlopen(url, timeout=60) as source,
                open(temporary, "wb") as file,
            ):
                while block := source.read(1 << 20):
                    file.write(block)
        except (urllib.error.URLError, TimeoutError) as error:
            raise MissingFileError(
                f"cannot fetch {url}: {error}; fetch it elsewhere and give it with --archive"
            ) from error
    check_archive(path)


def check_archive(path: str) -> None:
    """Compare a file's MD5 and SHA-256 with those of the official archive.

    Raises:
        MissingFileError, DataError: the file is not there, or another one.
    """
    require_file(path, "CIFAR-10 archive")
    md5, sha256 = hashlib.md5(), hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            md5.update(block)
            sha256.update(block)
    if (md5.hexdigest(), sha256.hexdigest()) != (MD5, SHA256):
        raise DataError(
            f"{path} is not the official archive of CIFAR-10: its MD5 is {md5.hexdigest()}, not {MD5}, or its SHA-256 "
            f"{sha256.hexdigest()}, not {SHA256}; delete it and download it again from {URL}"
        )


def read_archive(path: str) -> dict[str, Pictures]:
    """Return ``train`` and ``test`` of the binary version's archive.

    Raises:
        DataError: it is no such archive.
    """
    try:
        with tarfile.open(path) as archive:
            names = {os.path.basename(name): name for name in archive.getnames()}
            parts = {}
            for part, members in MEMBERS.items():
                missing = [name for name in members if name not in names]
                if missing:
                    raise DataError(f"{path}: the archive has no {missing[0]}: is it the binary version of CIFAR-10?")
                files = [archive.extractfile(names[name]) for name in members]
                parts[part] = b"".join(file.read() for file in files if file is not None)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataError(f"{path}: not a readable archive: {error}") from error
    return {part: _records(data, f"{path}, {part}") for part, data in parts.items()}


def _records(data: bytes, where: str) -> Pictures:
    if not data or len(data) % RECORD:
        raise DataError(f"{where}: {len(data)} bytes are not records of {RECORD}")
    table = np.frombuffer(data, np.uint8).reshape(-1, RECORD)
    rgb = table[:, 1:].reshape(-1, 3, EDGE, EDGE)
    return _checked(Pictures(np.ascontiguousarray(rgb[:, ::-1]), table[:, 0].astype(np.int64)), where)


def read_npz(path: str) -> dict[str, Pictures]:
    """Return ``train`` and ``test`` of a file of JPEGs: ``PART_jpeg`` (bytes), ``PART_offset`` (n + 1), ``PART_label`` (n).

    Raises:
        MissingFileError, DataError: it is not there, or no such file.
    """
    require_file(path, "pictures")
    parts = {}
    try:
        with np.load(path, allow_pickle=False) as file:
            for part in MEMBERS:
                jpeg, offset, labels = (file[f"{part}_{name}"] for name in ("jpeg", "offset", "label"))
                images = [decode_image(jpeg[a:b].tobytes(), True) for a, b in itertools.pairwise(offset)]
                if len(images) != len(labels):
                    raise DataError(f"{path}: {len(images)} pictures but {len(labels)} labels in {part}")
                stacked = np.ascontiguousarray(np.stack(images).transpose(0, 3, 1, 2))
                parts[part] = _checked(Pictures(stacked, labels.astype(np.int64)), f"{path}, {part}")
    except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: not a file of JPEGs with offsets and labels: {error}") from error
    return parts


def _checked(pictures: Pictures, where: str) -> Pictures:
    if pictures.images.shape[1:] != (3, EDGE, EDGE) or pictures.labels.max() >= CLASSES:
        raise DataError(
            f"{where}: pictures of {pictures.images.shape[1:]} with labels up to {pictures.labels.max()} are not CIFAR-10"
        )
    return pictures


def write_database(pictures: Pictures, path: str, order: np.ndarray | None = None) -> None:
    """Write pictures into a new LMDB with the keys of ``convert_imageset``.

    Args:
        pictures: what to write.
        path: the folder to make.
        order: which pictures, in this order; None for all.

    Raises:
        DataError, CaffeError: ``path`` exists or cannot be written.
    """
    chosen = np.arange(len(pictures.labels)) if order is None else order
    with DatabaseWriter(path) as database:
        for position, number in enumerate(chosen):
            datum = array_to_datum(pictures.images[number], int(pictures.labels[number]))
            database.put(f"{position:08d}_{number:05d}.png".encode(), datum.SerializeToString())
