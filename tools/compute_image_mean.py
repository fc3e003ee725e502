#!/usr/bin/env python
"""Compute the mean image of an LMDB: what transform_param's mean_file subtracts."""

from __future__ import annotations

import argparse
import sys

from pycaffe_compat.data.convert import compute_image_mean
from pycaffe_compat.errors import CaffeError
from pycaffe_compat.solver.log import init_log

EPILOG = """
examples:
  %(prog)s data/ilsvrc12/train_lmdb data/ilsvrc12/imagenet_mean.binaryproto
  %(prog)s data/ilsvrc12/train_lmdb        # only show the mean of each channel, for mean_value

All images must have one size: convert_imageset with --resize_height and --resize_width. Channels are in the order of
the records: blue, green, red.
"""


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("database", metavar="INPUT_DB", help="the folder of the LMDB")
    parser.add_argument("output", metavar="OUTPUT_FILE", nargs="?", help="the mean file to write (.binaryproto)")
    parser.add_argument("--backend", "-backend", default="lmdb", metavar="lmdb", help="the database to read; only lmdb")
    args = parser.parse_args(argv)
    init_log()
    try:
        compute_image_mean(args.database, args.output, args.backend, progress=sys.stderr.isatty())
    except CaffeError as error:
        print(f"compute_image_mean: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("compute_image_mean: interrupted; nothing was written", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
