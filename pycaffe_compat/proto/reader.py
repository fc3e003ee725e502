"""Opens files of trained weights: ``.caffemodel`` and ``.caffemodel.h5``."""

from __future__ import annotations

import os

from ..errors import ParseError, require_file
from .caffemodel import BinaryWeights
from .hdf5 import HDF5Weights
from .kinds import MODELS, mixed_up
from .weights import Weights

_HDF5 = b"\x89HDF\r\n\x1a\n"


def read_weights(path: str | os.PathLike[str]) -> Weights:
    """Open the weights in ``path``: a ``.caffemodel`` or ``.caffemodel.h5``, told apart by content.

    A caffemodel is mapped into memory, and the arrays handed out are views of the map: reading a 500 MB file costs
    nothing until its numbers are used. Such arrays are read-only, and not aligned to their dtype (numpy copes; copy
    before ``torch.from_numpy``). A file must not be shortened while it is open; replacing it by renaming is safe.

    Raises:
        MissingFileError: there is no such file.
        ParseError: it is truncated, corrupt or something else; with the byte offset and the layer there.
    """
    name = require_file(path, "weights")
    try:
        return _open(name)
    except ParseError as error:
        if words := mixed_up(name, MODELS, "weights: a .caffemodel or .caffemodel.h5", error):
            raise ParseError(words) from None
        raise


def _open(name: str) -> Weights:
    try:
        with open(name, "rb") as file:
            head = file.read(4096)
    except OSError as error:
        raise ParseError(f"{name}: cannot be read: {error.strerror}") from error
    if not head:
        raise ParseError(f"{name}: the file is empty; weights are expected")
    if head.startswith(_HDF5):
        return HDF5Weights(name)
    return BinaryWeights(name)
