"""The one family of exceptions: whatever goes wrong with a user's file or data is a :class:`CaffeError`.

A message names the file (with line and column where there is one), the layer, the field and its value, and says what
would be valid. Errors in a program that calls this package (a wrong Python type, say) stay Python's own.
"""

from __future__ import annotations

import contextlib
import difflib
import os
from collections.abc import Iterable, Iterator


class CaffeError(Exception):
    """Base class of every error that this package raises about a user's files, nets and data."""


class ParseError(CaffeError, ValueError):
    """A text file that is not valid prototxt, or binary bytes that are not the message they should be."""


class MissingFileError(CaffeError, FileNotFoundError, RuntimeError):
    """A file or database that is not where it was said to be (pycaffe's is a ``RuntimeError``)."""

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
    """A database, record, image or mean file that cannot be read as what it should be."""


class SolverError(CaffeError, ValueError):
    """A solver file or solver state that cannot be used."""


class DivergedError(SolverError):
    """The objective, or a blob, stopped being a finite number."""


@contextlib.contextmanager
def prefixed(where: str) -> Iterator[None]:
    """Put ``where``, such as the name of a field, in front of the message of any :class:`CaffeError` in the block."""
    try:
        yield
    except CaffeError as error:
        raise type(error)(f"{where}: {error}") from error


def nearest(name: str, choices: Iterable[str], most: int = 3) -> str:
    """Return ``" (did you mean a, b?)"`` with the choices that are spelt most like ``name``, or ``""``."""
    pool = sorted(set(choices))
    lower = {choice.lower(): choice for choice in pool}
    near = difflib.get_close_matches(name, pool, n=most, cutoff=0.6)
    near += [lower[m] for m in difflib.get_close_matches(name.lower(), list(lower), n=most, cutoff=0.6)]
    unique = list(dict.fromkeys(near))[:most]
    return f" (did you mean {', '.join(unique)}?)" if unique else ""


def require_file(path: str | os.PathLike[str], what: str, hint: str = "") -> str:
    """Return ``path`` as a string if a file or folder is there; otherwise say what was looked for, and where.

    Raises:
        MissingFileError: nothing is at ``path``. ``hint`` is appended: how to make it, say.
    """
    text = os.fspath(path)
    if os.path.exists(text):
        return text
    if not text:
        raise MissingFileError(f"{what} not found: its path is empty")
    raise MissingFileError(f"{what} not found: {text}{_nearby(text)}{'. ' + hint if hint else ''}")


def _nearby(path: str) -> str:
    """Say what is in the place of a missing file: names spelt alike, or what is wrong with its folder."""
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
    return nearest(os.path.basename(path), names) or ("" if os.path.isabs(path) else f"; looked in {folder}")
