"""The exceptions of this package: every error in a user's file or data is a :class:`CaffeError`.

A message names the file (with line and column if known), the layer, the field and its value, and says what
would be valid. Errors in a program that calls this package, such as a wrong type, are Python's own.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping


class CaffeError(Exception):
    """Base class of every error that this package raises about a user's files, nets and data."""


class ParseError(CaffeError, ValueError):
    """A text file that is not valid prototxt, or bytes that are not the expected message.

    Attributes:
        layer_types: of a prototxt with unknown names, the types of its layers, each to the name of the first such layer.
    """

    layer_types: Mapping[str, str] = {}


class MissingFileError(CaffeError, FileNotFoundError, RuntimeError):
    """A file or database that does not exist (in pycaffe, a ``RuntimeError``)."""

    def __str__(self) -> str:
        return Exception.__str__(self)


class NetError(CaffeError, ValueError):
    """A net whose layers do not fit together: an unknown blob, a blob produced twice, a wrong stage."""


class LayerError(NetError):
    """A layer that cannot be built or run: its options, the number of its bottoms, their shapes."""


class UnknownNameError(CaffeError, KeyError):
    """A blob, layer, parameter or field name that does not exist."""

    def __str__(self) -> str:
        return Exception.__str__(self)


class WeightsError(CaffeError, ValueError):
    """Weights that do not fit the net: a shape or a number of blobs that differs."""


class DataError(CaffeError, ValueError):
    """A database, record, image or mean file that cannot be read."""


class SolverError(CaffeError, ValueError):
    """A solver file or solver state that cannot be used."""


class OutOfMemoryError(SolverError, MemoryError, RuntimeError):
    """A training that needs more memory than there is (PyTorch's own error is a ``RuntimeError``)."""


class DivergedError(SolverError):
    """The objective or a blob is no longer finite."""


@contextlib.contextmanager
def prefixed(where: str) -> Iterator[None]:
    """Put ``where``, such as the name of a field, in front of the message of any :class:`CaffeError` in the block."""
    try:
        yield
    except CaffeError as error:
        raise type(error)(f"{where}: {error}") from error


def nearest(name: str, choices: Iterable[str], most: int = 3) -> str:
    """Return ``" (did you mean a, b?)"`` with the choices that ``name`` may be a typo for, or ``""``.

    A choice is near if it differs only in case and separators, if it continues ``name`` with a separator or a digit
    (``conv4`` and ``conv4_3``), or if it is one edit away: a letter added, left out or replaced, or two swapped; two
    edits from ten letters on, where nothing is nearer. The first letter must be right, no digit may be added or left
    out, and no letter may be replaced in a name of fewer than four or in a part of one. So ``ReLU6``, ``pad_l`` or
    ``permute_param``, which other versions of Caffe have, are near to no name of this one's.
    """
    if len(name) > _NAME:
        return ""
    texts = {choice for choice in choices if isinstance(choice, str)}  # HDF5 also has names of bytes
    near = sorted((rank, choice) for choice in texts if (rank := _rank(name, choice)) is not None)
    if near and near[0][0] < 2:
        near = [(rank, choice) for rank, choice in near if rank != 2]
    return f" (did you mean {', '.join(choice for _, choice in near[:most])}?)" if near else ""


_SEPARATORS = re.compile(r"[\W_]+")
_CONTINUED = re.compile(r"[\W_\d]")
_PARAM = "_param"  # ends the names of many fields, so it says nothing about similarity
_NAME = 200  # letters beyond which a word is no name
_LONG = 10  # letters from which on two edits are a slip
_SHORT = 4  # letters below which another letter makes another name


def _rank(name: str, choice: str) -> int | None:
    """The distance of ``choice`` from ``name``, or None if it is a different name."""
    if name.endswith(_PARAM) and choice.endswith(_PARAM):
        name, choice = name.removesuffix(_PARAM), choice.removesuffix(_PARAM)
    parts, others = (_SEPARATORS.split(text.casefold()) for text in (name, choice))
    a, b = "".join(parts), "".join(others)
    if a == b:
        return 0
    if len(name) > 2 and choice.startswith(name) and _CONTINUED.match(choice, len(name)):
        return 3
    allowed = 2 if min(len(a), len(b)) >= _LONG else 1
    digits = [sum(map(str.isdigit, text)) for text in (a, b)]
    if a[:1] != b[:1] or b in a[1:] or a in b[1:] or abs(len(a) - len(b)) > allowed or digits[0] != digits[1]:
        return None
    if len(a) == len(b) < _SHORT and sorted(a) != sorted(b):
        return None
    if len(parts) != len(others) and min(len(a), len(b)) < _LONG:
        return None
    if any(len(x) == len(y) == 1 and x != y for x, y in zip(parts, others, strict=False)):
        return None
    edits = _edits(a, b)
    return edits if edits <= allowed else None


def _edits(a: str, b: str) -> int:
    """The number of letters to add, leave out, replace or swap with their neighbour to make ``b`` of ``a``."""
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, above, row = row, before, [i]
        for j, y in enumerate(b, 1):
            best = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and y == a[i - 2]:
                best = min(best, above[j - 2] + 1)
            row.append(best)
    return row[-1]


def require_file(path: str | os.PathLike[str], what: str, hint: str = "") -> str:
    """Return ``path`` as a string if it exists; otherwise raise an error that says what was looked for, and where.

    Raises:
        MissingFileError: nothing is at ``path``. ``hint`` is appended, for example how to make it.
    """
    text = os.fspath(path)
    if os.path.exists(text):
        return text
    if not text:
        raise MissingFileError(f"{what} not found: its path is empty")
    raise MissingFileError(f"{what} not found: {text}{_nearby(text)}{'. ' + hint if hint else ''}")


def _nearby(path: str) -> str:
    """Describe the surroundings of a missing file: similar names, or what is wrong with its folder."""
    if any(ord(letter) < 32 for letter in path):
        return " (a backslash in a prototxt begins an escape, as \\t is a tab: write paths with /)"
    if "\\" in path and os.path.exists(path.replace("\\", "/")):
        return f" (did you mean {path.replace(chr(92), '/')}?)"
    if os.path.islink(path):
        return f"; it is a link to {os.readlink(path)}, which does not exist"
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        wrong = "is a file" if os.path.exists(folder) else "does not exist"
        return f"; its folder {folder} {wrong}"
    try:
        names = os.listdir(folder)
    except OSError as error:
        return f"; its folder {folder} cannot be read: {error.strerror}"
    if not names:
        return f"; its folder {folder} is empty"
    base = os.path.basename(path)
    for name in names:  # Caffe puts a root folder and a name together as they are written
        if base.startswith(name) and os.path.exists(os.path.join(folder, name, base[len(name) :])):
            return f" (did you mean {os.path.join(os.path.dirname(path), name, base[len(name) :])}? A root folder ends in /)"
    return nearest(base, names) or ("" if os.path.isabs(path) else f"; looked in {folder}")


def in_file(error: CaffeError, file: str) -> CaffeError:
    """Return an error about a part of a file with the file in front, if it is not there yet."""
    return type(error)(f"{file}: {error}") if file and not str(error).startswith(f"{file}:") else error
