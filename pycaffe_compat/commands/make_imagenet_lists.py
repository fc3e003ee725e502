"""Make Caffe's lists of ILSVRC 2012 images and classes: train.txt, val.txt, synsets.txt, synset_words.txt."""

from __future__ import annotations

from ..data.ilsvrc import read_devkit, write_lists
from .options import Parser, command

EPILOG = """
examples:
  %(prog)s ILSVRC2012 --devkit ILSVRC2012_devkit_t12.tar.gz
      reads the names in ILSVRC2012/train/WNID/ and ILSVRC2012/val/, writes ILSVRC2012/train.txt and the other lists
  %(prog)s ILSVRC2012 --devkit ILSVRC2012_devkit_t12 --out lists
      the same from an unpacked kit, into the folder lists

Labels are Caffe's: 0 to 999 in the order of the WordNet IDs. docs/imagenet.md has all steps, starting from the archives.
"""


def run(argv: list[str]) -> None:
    """Run the command with these arguments."""
    parser = Parser(__doc__, EPILOG)
    parser.add_argument("root", metavar="FOLDER", help="holds train/ and val/, unpacked from the challenge's archives")
    parser.add_argument("--devkit", required=True, metavar="FILE", help="the development kit, an archive or a folder")
    parser.add_argument("--out", default="", metavar="DIR", help="the folder for the lists (default: FOLDER)")
    args = parser.parse_args(argv)
    out = args.out or args.root
    for name, lines in write_lists(args.root, read_devkit(args.devkit), out).items():
        print(f"{out}/{name}: {lines:,} lines")


main = command("make_imagenet_lists", run)
