"""Convert images to an LMDB for Data layers.

LISTFILE has one line for each image: its path and its label.

    n01440764/n01440764_10026.JPEG 0
    n01443537/n01443537_10007.JPEG 1
"""

from __future__ import annotations

import argparse

from ..data.imageset import ConvertOptions, convert_imageset
from ..solver.log import init_log, on_terminal
from .options import Parser, command

EPILOG = """
examples:
  # The paper's ImageNet: shorter edge 256, encoded as JPEG. The layer's crop_size makes all images the same size.
  %(prog)s --shuffle --shorter_edge 256 --encode_type jpg train/ train.txt data/ilsvrc12/train_lmdb
  # Caffe's ImageNet: all images resized to 256 x 256 regardless of proportions, raw bytes (about 200 KB each).
  %(prog)s --shuffle --resize_height=256 --resize_width=256 val/ val.txt data/ilsvrc12/val_lmdb
  # Grey images, not resized.
  %(prog)s --gray digits/ digits.txt digits_lmdb

Next, for a mean image: caffe-compute-image-mean DB_NAME mean.binaryproto
Flags can be written as in Caffe: -gray, --gray=true, --nogray. An interrupted run leaves no files behind.
"""
SWITCHES = {
    "gray": "convert images to grey",
    "shuffle": "store the images in a random order",
    "check_size": "stop if images have different sizes",
    "encoded": "store encoded images, in the format of each file",
    "skip_unreadable": "skip images that are missing or do not decode, as Caffe does, instead of stopping",
}


def run(argv: list[str]) -> None:
    """Run the command with these arguments."""
    parser = Parser(__doc__, EPILOG)
    parser.add_argument("root", metavar="ROOTFOLDER/", help="the folder that the listed paths are relative to")
    parser.add_argument("list_file", metavar="LISTFILE", help="a text file with lines PATH LABEL")
    parser.add_argument("database", metavar="DB_NAME", help="the LMDB to create (a folder); it must not exist")
    for name, text in SWITCHES.items():
        parser.add_argument(f"--{name}", action=argparse.BooleanOptionalAction, default=False, help=text)
    parser.add_argument("--backend", default="lmdb", metavar="lmdb", help="the database to write; only lmdb")
    parser.add_argument(
        "--resize_width", type=int, default=0, metavar="N", help="resize images to this width in pixels"
    )
    parser.add_argument(
        "--resize_height", type=int, default=0, metavar="N", help="resize images to this height in pixels"
    )
    parser.add_argument(
        "--shorter_edge",
        type=int,
        default=0,
        metavar="N",
        help="resize so that the shorter edge has N pixels, keeping proportions",
    )
    parser.add_argument(
        "--encode_type", default="", metavar="TYPE", help="store images encoded as png, jpg, … (default: raw pixels)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="seed of the order of --shuffle (default: %(default)s)"
    )
    args = vars(parser.parse_args(argv))
    init_log()
    root, list_file, database = (args.pop(name) for name in ("root", "list_file", "database"))
    convert_imageset(root, list_file, database, ConvertOptions(**args), progress=on_terminal())


main = command("convert_imageset", run, "the database was not made")
