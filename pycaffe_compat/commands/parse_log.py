"""Turn a training log into two tables, LOGFILE.train and LOGFILE.test, as Caffe's parse_log.py does."""

from __future__ import annotations

import contextlib
import csv
import os

from ..errors import DataError
from ..files import atomic_path
from .logs import Row, read_log
from .options import Parser, command

EPILOG = """
example:
  caffe-compat train --solver=solver.prototxt 2>&1 | tee train.log
  %(prog)s train.log tables/        # writes tables/train.log.train and tables/train.log.test

Columns: NumIters, Seconds, LearningRate, then the net's outputs by name (NAME[1], … for further values of an output). With
several test nets, TestNet is the number of the net.
"""


def parse_log(log: str, folder: str, delimiter: str = ",") -> list[str]:
    """Write the tables of a log to a folder; return their paths. A table without rows is not written.

    Raises:
        MissingFileError, DataError: the log is missing, is not one or has no outputs; or ``delimiter`` is not one character.
        CaffeError: a table cannot be written.
    """
    if len(delimiter) != 1:
        raise DataError(f'--delimiter: "{delimiter}" must be one character')
    read = read_log(log)
    train = read.train or read.losses  # the first Caffes logged nothing else of the train net
    if not (train or read.test):
        raise DataError(
            f"{log} has no outputs of a train or test net; the solver logs them if display or test_interval is set"
        )
    with contextlib.suppress(OSError):  # what cannot be written there says why
        os.makedirs(folder or ".", exist_ok=True)
    written = []
    for ending, rows in (("train", train), ("test", read.test)):
        if rows:
            written.append(os.path.join(folder, f"{os.path.basename(log)}.{ending}"))
            _write(written[-1], rows, delimiter)
    return written


def _write(path: str, rows: list[Row], delimiter: str) -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with atomic_path(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.DictWriter(file, columns, delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


def run(argv: list[str]) -> None:
    """Run the command with these arguments."""
    parser = Parser(__doc__, EPILOG)
    parser.add_argument("log", metavar="LOGFILE", help="what `caffe train` wrote to standard error")
    parser.add_argument("folder", metavar="OUTPUTDIR", help="the folder to write the tables to; created if missing")
    parser.add_argument("--verbose", action="store_true", help="print the names of the files written")
    parser.add_argument(
        "--delimiter", default=",", metavar="CHARACTER", help="separator of the columns (default: a comma)"
    )
    args = parser.parse_args(argv)
    written = parse_log(args.log, args.folder, args.delimiter)
    if args.verbose:
        for path in written:
            print(f"Wrote {path}")


main = command("parse_log", run)
