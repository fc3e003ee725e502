"""What classify and detect share: the options for a net that takes images, and how its input is prepared."""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np

from ..data.mean import read_mean
from ..errors import CaffeError, DataError, NetError, require_file
from ..files import atomic_path
from ..proto import read_net
from ..pycaffe import Net, set_mode_cpu, set_mode_gpu
from .options import Parser, add_python_layers, python_layers


def add_net(parser: Parser) -> None:
    """Add the options that name a deploy net and say what it wants for its input."""
    parser.add_argument("--model_def", required=True, metavar="FILE", help="the net's prototxt, with an Input layer")
    parser.add_argument("--pretrained_model", required=True, metavar="FILE", help="its weights")
    parser.add_argument("--gpu", action="store_true", help="use a GPU")
    parser.add_argument(
        "--mean_file", default="", metavar="FILE", help="to subtract: .npy, or .binaryproto (default: none)"
    )
    parser.add_argument("--input_scale", type=float, metavar="X", help="multiply by this after the mean is subtracted")
    parser.add_argument(
        "--raw_scale", type=float, default=255.0, metavar="X", help="multiply by this before (default: 255)"
    )
    parser.add_argument(
        "--channel_swap",
        default="2,1,0",
        metavar="A,B,C",
        help="order of the channels, from RGB (default: 2,1,0, which is BGR; empty: as they are)",
    )
    add_python_layers(parser)


def net_options(args: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a ``Classifier`` or ``Detector`` for parsed options, and set the mode.

    Raises:
        MissingFileError, NetError, DataError: a file is not there, the net takes no images, or an option is wrong.
    """
    python_layers(args)
    net = read_net(args["model_def"])
    if not any(layer.type == "Input" for layer in net.layer):
        raise NetError(f"{args['model_def']}: the net has no Input layer to give images to; this takes a deploy net")
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
    """Return the array in a ``.npy`` file; never objects, which would be code.

    Raises:
        MissingFileError, DataError: no such file, or not an array of numbers.
    """
    try:  # mapped, so that a size in the header which the file does not have is noticed before memory is taken
        array = np.load(require_file(path, what), mmap_mode="r", allow_pickle=False)
    except CaffeError:
        raise
    except Exception as error:
        raise DataError(f"{what} {path} is not a .npy file with an array of numbers: {error}") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub":
        raise DataError(f"{what} {path} is not a .npy file with an array of numbers")
    return np.array(array)


def numbers(text: str, option: str) -> list[int]:
    """Return the whole numbers in ``"2,1,0"``; none for ``""``."""
    try:
        return [int(part) for part in text.split(",")] if text else []
    except ValueError:
        raise DataError(f'{option}: "{text}" must be whole numbers with commas between') from None


def write_array(path: str, array: np.ndarray) -> str:
    """Write an array as ``.npy`` (added to the name if it is not there, as numpy does); return the path."""
    path = path if path.endswith(".npy") else f"{path}.npy"
    with atomic_path(os.fspath(path)) as temporary:
        np.save(temporary, array)
    return path
