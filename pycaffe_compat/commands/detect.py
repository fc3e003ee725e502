"""Score windows of images (R-CNN): write the class scores of the windows that a table lists."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Sequence
from typing import Any

import h5py
import numpy as np

from ..errors import CaffeError, DataError, require_file
from ..files import atomic_path, open_text, refuse_overwriting
from ..proto.hdf5 import create_hdf5
from ..pycaffe import Detector
from .images import add_net, net_options, report_gaps
from .options import Parser, command

COORDINATES = ("ymin", "xmin", "ymax", "xmax")
MODES = ("list", "selective_search")
EPILOG = """
example:
  %(prog)s windows.csv scores.h5 --model_def deploy.prototxt --pretrained_model rcnn.caffemodel --context_pad 16

The table has one line for each window:
  filename,ymin,xmin,ymax,xmax
  images/cat.jpg,10,20,200,180

OUTPUT is either a table (.csv: filename, ymin, xmin, ymax, xmax, class0, class1, …) or an HDF5 file (.h5) with the datasets
filename, window (N×4) and prediction (N×classes).
"""


def read_windows(path: str) -> list[tuple[str, np.ndarray]]:
    """Return the images of a table, each with an array of its windows, rows of (ymin, xmin, ymax, xmax).

    Raises:
        MissingFileError, DataError: the file is missing, or a line is not a window.
    """
    found: dict[str, list[list[float]]] = {}
    with open_text(require_file(path, "table of windows"), newline="") as file:
        table = csv.DictReader(file, skipinitialspace=True)
        try:
            _check_columns(path, table.fieldnames)
            for line in table:
                found.setdefault(line["filename"], []).append(_window(f"{path}:{table.line_num}", line))
        except csv.Error as error:
            raise DataError(f"{path}:{table.line_num}: {error}") from error
    if not found:
        raise DataError(f"{path} lists no windows")
    return [(name, np.array(windows)) for name, windows in found.items()]


def _check_columns(path: str, columns: Sequence[str] | None) -> None:
    missing = [name for name in ("filename", *COORDINATES) if name not in (columns or ())]
    if missing:
        raise DataError(
            f"{path}: the first line must name the columns filename,ymin,xmin,ymax,xmax; {', '.join(missing)} missing"
        )


def _window(where: str, line: dict[str, str]) -> list[float]:
    try:
        ymin, xmin, ymax, xmax = window = [float(line[name]) for name in COORDINATES]
    except (TypeError, ValueError):
        raise DataError(
            f"{where}: wanted a file name and four numbers: {','.join(('filename', *COORDINATES))}"
        ) from None
    if not (0 <= ymin < ymax < math.inf and 0 <= xmin < xmax < math.inf):
        raise DataError(f"{where}: the window {window} is empty or starts outside of the image")
    return window


def write_detections(path: str, detections: Sequence[dict[str, Any]]) -> None:
    """Write the result of ``Detector.detect_windows``: a table if ``path`` ends in ``.csv``, else HDF5."""
    windows = np.array([each["window"] for each in detections])
    predictions = np.array([each["prediction"] for each in detections])
    names = [str(each["filename"]) for each in detections]
    with atomic_path(path) as temporary:
        if path.lower().endswith(".csv"):
            with open(temporary, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
                writer = csv.writer(file)
                classes = [f"class{i}" for i in range(predictions[0].size)]
                writer.writerow(["filename", *COORDINATES, *classes])
                for name, window, prediction in zip(names, windows, predictions, strict=True):
                    writer.writerow([name, *window.tolist(), *prediction.reshape(-1).tolist()])
            return
        with create_hdf5(temporary) as store:
            store["filename"] = np.array(names, dtype=h5py.string_dtype())
            store["window"] = windows
            store["prediction"] = predictions


def run(argv: list[str]) -> None:
    """Run the command with these arguments."""
    parser = Parser(__doc__, EPILOG)
    parser.add_argument("input_file", metavar="INPUT", help="the table of windows (.csv)")
    parser.add_argument("output_file", metavar="OUTPUT", help="the file to write: .csv or .h5")
    add_net(parser)
    parser.add_argument(
        "--crop_mode", default="list", choices=MODES, help="the source of the windows; only list (default: list)"
    )
    parser.add_argument(
        "--context_pad",
        type=int,
        default=16,
        metavar="N",
        help="pixels of context on each side of a window (default: 16)",
    )
    args = vars(parser.parse_args(argv))
    if not args["output_file"].lower().endswith((".csv", ".h5", ".hdf5")):
        raise DataError(f"{args['output_file']}: the file name must end in .csv or .h5")
    if args["crop_mode"] != "list":
        raise CaffeError(
            "--crop_mode selective_search is not available: the search is a MATLAB program that this package does not "
            "include. Find windows with another program and list them in a table"
        )
    refuse_overwriting(args["output_file"], args["input_file"])
    windows = read_windows(args["input_file"])
    detector = Detector(context_pad=args["context_pad"], **net_options(args))
    report_gaps(detector)
    start = time.perf_counter()
    detections = detector.detect_windows(windows)
    print(f"Processed {len(detections)} windows in {time.perf_counter() - start:.3f} s.")
    write_detections(args["output_file"], detections)
    print(f"Saved to {args['output_file']}")


main = command("detect", run)
