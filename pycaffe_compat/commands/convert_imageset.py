"""Convert a set of images to the LMDB that Data layers read.

LISTFILE names the images and their labels, a line for each:

    n01440764/n01440764_10026.JPEG 0
    n01443537/n01443537_10007.JPEG 1
"""

from __future__ import annotations

import argparse
import sys

from ..data.imageset import ConvertOptions, convert_imageset
from ..solver.log import init_log
from .options import Parser, command

EPILOG = """
examples:
  # The paper's ImageNet: shorter edge 256, encoded as JPEG (crop_size cuts the images to one size when they are read).
  %(prog)s --shuffle --shorter_edge 256 --encode_type jpg train/ train.txt data/ilsvrc12/train_lmdb
  # Caffe's ImageNet: all images squeezed to 256 x 256, raw bytes (about 200 KB each).
  %(prog)s --shuffle --resize_height=256 --resize_width=256 val/ val.txt data/ilsvrc12/val_lmdb
  # Grey images as they are.
  %(prog)s --gray digits/ digits.txt digits_lmdb

Then, for a mean image: python tools/compute_image_mean.py DB_NAME mean.binaryproto
Flags may be written as Caffe's: -gray, --gray=true, --nogray. An interrupted run leaves nothing behind.
"""
SWITCHES = {
    "gray": "treat images as grey ones",
    "shuffle": "randomly shuffle the order of images and their labels",
    "check_size": "check that all images have the same size",
    "encoded": "store encoded images, each in the type of its file",
    "skip_unreadable": "leave out images that are missing or do not decode, as Caffe does, instead of stopping",
}


def run(argv: list[str]) -> None:
    """Do what the arguments say."""
    parser = Parser(__doc__, EPILOG)
    parser.add_argument("root", metavar="ROOTFOLDER/", help="the folder that the paths of the list are in")
    parser.add_argument("list_file", metavar="LISTFILE", help="lines of the form PATH LABEL")
    parser.add_argument("database", metavar="DB_NAME", help="the folder to make; it must not exist")
    for name, text in SWITCHES.items():
        parser.add_argument(f"--{name}", action=argparse.BooleanOptionalAction, default=False, help=text)
    parser.add_argument("--backend", default="lmdb", metavar="lmdb", help="the database to write; only lmdb")
    parser.add_argument(
        "--resize_width", type=int, default=0, metavar="N", help="width in pixels that images are resized to"
    )
    parser.add_argument(
        "--resize_height", type=int, default=0, metavar="N", help="height in pixels that images are resized to"
    )
    parser.add_argument(
        "--shorter_edge",
        type=int,
        default=0,
        metavar="N",
        help="resize the shorter edge to N pixels, keeping proportions",
    )
    parser.add_argument(
        "--encode_type", default="", metavar="TYPE", help="store images encoded as png, jpg, … (default: raw bytes)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="which order --shuffle gives (default: %(default)s)"
    )
    args = vars(parser.parse_args(argv))
    init_log()
    root, list_file, database = (args.pop(name) for name in ("root", "list_file", "database"))
    convert_imageset(root, list_file, database, ConvertOptions(**args), progress=sys.stderr.isatty())


main = command("convert_imageset", run, "the database was not made")
