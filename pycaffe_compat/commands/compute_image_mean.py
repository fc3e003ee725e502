"""Compute the mean image of an LMDB: what transform_param's mean_file subtracts."""

from __future__ import annotations

import sys

from ..data.imageset import compute_image_mean
from ..solver.log import init_log
from .options import Parser, command

EPILOG = """
examples:
  %(prog)s data/ilsvrc12/train_lmdb data/ilsvrc12/imagenet_mean.binaryproto
  %(prog)s data/ilsvrc12/train_lmdb        # only show the mean of each channel, for mean_value

All images must have one size: convert_imageset with --resize_height and --resize_width. Channels are in the order of
the records: blue, green, red.
"""


def run(argv: list[str]) -> None:
    """Do what the arguments say."""
    parser = Parser(__doc__, EPILOG)
    parser.add_argument("database", metavar="INPUT_DB", help="the folder of the LMDB")
    parser.add_argument("output", metavar="OUTPUT_FILE", nargs="?", help="the mean file to write (.binaryproto)")
    parser.add_argument("--backend", default="lmdb", metavar="lmdb", help="the database to read; only lmdb")
    args = parser.parse_args(argv)
    init_log()
    compute_image_mean(args.database, args.output, args.backend, progress=sys.stderr.isatty())


main = command("compute_image_mean", run, "nothing was written")
