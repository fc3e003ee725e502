"""Options that classify and detect share: the net, and the preparation of its input."""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np

from ..data.mean import read_mean
from ..errors import CaffeError, DataError, NetError, require_file
from ..files import atomic_path
from ..proto import read_net
from ..proto.kinds import ARRAYS, told_apart
from ..pycaffe import Net, set_mode_cpu, set_mode_gpu
from .options import Parser, add_reading, reading


def add_net(parser: Parser) -> None:
    """Add the options for a deploy net and the preparation of its input."""
    parser.add_argument("--model_def", required=True, metavar="FILE", help="the net's prototxt, with an Input layer")
    parser.add_argument("--pretrained_model", required=True, metavar="FILE", help="its weights")
    parser.add_argument("--gpu", action="store_true", help="use a GPU")
    parser.add_argument(
        "--mean_file", default="", metavar="FILE", help="mean to subtract, .npy or .binaryproto (default: none)"
    )
    parser.add_argument(
        "--input_scale", type=float, metavar="X", help="factor for the input after the mean is subtracted (default: 1)"
    )
    parser.add_argument(
        "--raw_scale",
        type=float,
        default=255.0,
        metavar="X",
        help="factor for the image before the mean is subtracted (default: 255)",
    )
    parser.add_argument(
        "--channel_swap",
        default="2,1,0",
        metavar="A,B,C",
        help="order of the channels of an RGB image (default: 2,1,0, which is BGR; empty: unchanged)",
    )
    add_reading(parser)


def net_options(args: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a ``Classifier`` or ``Detector`` for parsed options, and choose CPU or GPU.

    Raises:
        MissingFileError, NetError, DataError: a file is missing, the net has no Input layer, or an option is wrong.
    """
    reading(args)
    net = read_net(args["model_def"])
    if not any(layer.type == "Input" for layer in net.layer):
        raise NetError(f"{args['model_def']}: the net has no Input layer to give images to; use a deploy net")
    if args["gpu"]:
        set_mode_gpu()
    else:
        set_mode_cpu()
    return {
        "model_file": args["model_def"],
        "pretrained_file": args["pretrained_model"],
        "mean": mean_of(args["mean_file"]) if args["mean_file"] else None,
        "input_scale": args["input_scale"],
        "raw_scale": args["raw_scale"],
        "channel_swap": numbers(args["channel_swap"], "--channel_swap") or None,
    }


def report_gaps(net: Net) -> None:
    """Say on standard error which layers of ``net`` got no weights."""
    if gaps := net.module.load_report.gaps():
        print(f"note: {gaps}", file=sys.stderr)


def mean_of(path: str) -> np.ndarray:
    """Return the mean in a ``.npy`` or ``.binaryproto`` file."""
    return read_array(path, "mean file") if path.endswith(".npy") else read_mean(path)


def read_array(path: str, what: str) -> np.ndarray:
    """Return the array in a ``.npy`` file. Arrays of objects are refused, because loading them would run code.

    Raises:
        MissingFileError, DataError: the file is missing, or does not hold an array of numbers.
    """
    with told_apart(path, ARRAYS, "a .npy file with an array of numbers"):
        return _read_array(path, what)


def _read_array(path: str, what: str) -> np.ndarray:
    try:  # mapped, so that a header that claims more than the file holds fails before memory is allocated
        array = np.load(require_file(path, what), mmap_mode="r", allow_pickle=False)
    except CaffeError:
        raise
    except Exception as error:
        raise DataError(f"{what} {path} is not a .npy file with an array of numbers: {error}") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub":
        raise DataError(f"{what} {path} is not a .npy file with an array of numbers")
    return np.array(array)


def numbers(text: str, option: str) -> list[int]:
    """Return the whole numbers of a list such as ``"2,1,0"``; ``""`` is an empty list."""
    try:
        return [int(part) for part in text.split(",")] if text else []
    except ValueError:
        raise DataError(f'{option}: "{text}" must be integers, separated by commas') from None


def array_path(path: str) -> str:
    """``path`` with ``.npy``, which is appended if it is missing, as in numpy."""
    return path if path.endswith(".npy") else f"{path}.npy"


def write_array(path: str, array: np.ndarray) -> str:
    """Write an array as ``.npy`` to :func:`array_path`; return that path."""
    path = array_path(path)
    with atomic_path(os.fspath(path)) as temporary:
        np.save(temporary, array)
    return path
