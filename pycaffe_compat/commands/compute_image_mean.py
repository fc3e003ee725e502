"""Compute the mean image of an LMDB, for the mean_file of transform_param."""

from __future__ import annotations

from ..data.imageset import compute_image_mean
from ..solver.log import init_log, on_terminal
from .options import Parser, command

EPILOG = """
examples:
  %(prog)s data/ilsvrc12/train_lmdb data/ilsvrc12/imagenet_mean.binaryproto
  %(prog)s data/ilsvrc12/train_lmdb        # only print the mean of each channel, for mean_value

All images must have the same size; caffe-convert-imageset --resize_height N --resize_width N makes such a database. Channels are
in the order of the records: blue, green, red.
"""


def run(argv: list[str]) -> None:
    """Run the command with these arguments."""
    parser = Parser(__doc__, EPILOG)
    parser.add_argument("database", metavar="INPUT_DB", help="the folder of the LMDB")
    parser.add_argument("output", metavar="OUTPUT_FILE", nargs="?", help="the mean file to write (.binaryproto)")
    parser.add_argument("--backend", default="lmdb", metavar="lmdb", help="the database to read; only lmdb")
    args = parser.parse_args(argv)
    init_log()
    compute_image_mean(args.database, args.output, args.backend, progress=on_terminal())


main = command("compute_image_mean", run, "nothing was written")
