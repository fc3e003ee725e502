"""The lists of ILSVRC 2012's pictures and classes that Caffe uses, from the challenge's own files.

Caffe numbers the 1,000 classes in the order of their WordNet IDs. The development kit numbers them otherwise, in its file
``meta.mat``, and gives the classes of the validation pictures by those numbers.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import CaffeError, DataError, MissingFileError, require_file
from ..files import atomic_path
from ..packages import require_package

META, TRUTH = "meta.mat", "ILSVRC2012_validation_ground_truth.txt"
PICTURES = (".jpeg", ".jpg", ".png")
LISTS = ("train.txt", "val.txt", "synsets.txt", "synset_words.txt")


@dataclass(frozen=True)
class Devkit:
    """What the development kit says.

    Attributes:
        words: of each class its words, by WordNet ID, in Caffe's order.
        truth: the class of each validation picture, by Caffe's number.
    """

    words: dict[str, str]
    truth: tuple[int, ...]


def read_devkit(path: str) -> Devkit:
    """Read ``ILSVRC2012_devkit_t12.tar.gz``, or the folder that was unpacked from it.

    Raises:
        MissingFileError: it is not there, or lacks a file.
        DataError: a file that cannot be read.
        CaffeError: scipy, which reads MATLAB's files, is not installed.
    """
    classes = _classes(_member(path, META), path)
    wnids = sorted(wnid for _, wnid, _ in classes)
    place = {number: wnids.index(wnid) for number, wnid, _ in classes}
    truth = []
    for line, text in enumerate(_member(path, TRUTH).decode("ascii", "replace").split(), 1):
        if not text.isdigit() or int(text) not in place:
            raise DataError(f'{path}: {TRUTH}:{line}: "{text}" is not one of the {len(place)} classes of {META}')
        truth.append(place[int(text)])
    names = {wnid: words for _, wnid, words in classes}
    return Devkit({wnid: names[wnid] for wnid in wnids}, tuple(truth))


def write_lists(root: str, devkit: Devkit, out: str) -> dict[str, int]:
    """Write Caffe's ``train.txt``, ``val.txt``, ``synsets.txt`` and ``synset_words.txt``; return the lines of each.

    Args:
        root: holds ``train/WNID/*.JPEG`` and ``val/*.JPEG``. A line of a list names a picture from ``train/`` or ``val/`` on.
        devkit: from :func:`read_devkit`.
        out: the folder for the lists; made if missing.

    Raises:
        MissingFileError: a folder is not there.
        DataError: a folder of a class that the kit does not know, a class without pictures, or another number of validation
            pictures than the kit has classes for.
    """
    lists = {
        "train.txt": list(_train(Path(root, "train"), devkit)),
        "val.txt": list(_val(Path(root, "val"), devkit)),
        "synsets.txt": list(devkit.words),
        "synset_words.txt": [f"{wnid} {words}" for wnid, words in devkit.words.items()],
    }
    try:
        os.makedirs(out, exist_ok=True)
    except OSError as error:
        raise CaffeError(f"cannot make the folder {out}: {error.strerror}") from error
    for name, lines in lists.items():
        with atomic_path(os.path.join(out, name)) as temporary:
            Path(temporary).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return {name: len(lines) for name, lines in lists.items()}


def _train(folder: Path, devkit: Devkit) -> Iterator[str]:
    present = [each for each in _entries(folder) if each.is_dir()]
    unknown = [each.name for each in present if each.name not in devkit.words]
    if unknown:
        raise DataError(f"{folder}: {unknown[0]} is not a class of the development kit{_more(unknown)}")
    if archives := [each.name for each in _entries(folder) if each.suffix == ".tar"]:
        raise DataError(
            f"{folder}: {archives[0]} is not unpacked{_more(archives)}; unpack each into a folder of its name"
        )
    if lacking := sorted(set(devkit.words) - {each.name for each in present}):
        raise DataError(f"{folder}: no folder for class {lacking[0]} ({devkit.words[lacking[0]]}){_more(lacking)}")
    for label, wnid in enumerate(devkit.words):
        pictures = _pictures(folder / wnid)
        if not pictures:
            raise DataError(f"{folder / wnid}: no pictures")
        yield from (f"{wnid}/{name} {label}" for name in pictures)


def _val(folder: Path, devkit: Devkit) -> Iterator[str]:
    pictures = _pictures(folder)
    if len(pictures) != len(devkit.truth):
        raise DataError(
            f"{folder} holds {len(pictures):,} pictures, and {TRUTH} has the classes of {len(devkit.truth):,}"
        )
    yield from (f"{name} {label}" for name, label in zip(pictures, devkit.truth, strict=True))


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise MissingFileError(f"{folder}: {error.strerror}; unpack the challenge's archives there") from error


def _pictures(folder: Path) -> list[str]:
    return [each.name for each in _entries(folder) if each.suffix.lower() in PICTURES]


def _more(names: Sequence[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""


def _member(path: str, name: str) -> bytes:
    """The content of a file of the kit, wherever in the archive or folder it lies."""
    try:
        if os.path.isdir(path):
            for found in sorted(Path(path).rglob(name)):
                return found.read_bytes()
        else:
            require_file(path, "development kit")
            with tarfile.open(path) as archive:
                for member in archive:
                    if member.isfile() and os.path.basename(member.name) == name:
                        content = archive.extractfile(member)
                        if content is not None:
                            return content.read()
    except (OSError, EOFError, tarfile.TarError) as error:
        if isinstance(error, CaffeError):
            raise
        raise DataError(f"{path}: not ILSVRC 2012's development kit: {error}") from error
    raise MissingFileError(f"{path} has no {name}; the development kit is ILSVRC2012_devkit_t12.tar.gz")


def _classes(content: bytes, path: str) -> list[tuple[int, str, str]]:
    """Of each class that is no group of others: the kit's number, the WordNet ID and the words."""
    matlab = require_package("scipy.io", f"{META} needs scipy", "pycaffe_compat[figures]")
    try:
        synsets: Any = matlab.loadmat(io.BytesIO(content), squeeze_me=True)["synsets"]
        found = [
            (int(each["ILSVRC2012_ID"]), str(each["WNID"]), str(each["words"]))
            for each in synsets
            if int(each["num_children"]) == 0
        ]
    except Exception as error:  # loadmat raises what its parsing happens on
        raise DataError(f"{path}: {META} cannot be read: {error}") from error
    if not found or len({number for number, _, _ in found}) < len(found) or len({w for _, w, _ in found}) < len(found):
        raise DataError(f"{path}: {META} does not name each class once")
    return found
