"""Convert images and their boxes to an LMDB for AnnotatedData layers (SSD).

LISTFILE has one line for each image, with its annotation (--anno-type detection) or its label (classification):

    VOC2007/JPEGImages/000005.jpg VOC2007/Annotations/000005.xml
    VOC2007/JPEGImages/000007.jpg VOC2007/Annotations/000007.xml
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator

from ..data.annoset import AnnosetOptions, convert_annoset
from ..errors import CaffeError
from ..solver.log import init_log, on_terminal
from .options import Parser, command

EPILOG = """
examples:
  # VOC as SSD trains on it, with the lists and the label map of SSD's data/VOC0712.
  %(prog)s --anno-type detection --label-map-file labelmap_voc.prototxt --check-label --encode-type jpg --encoded \\
    VOCdevkit/ trainval.txt VOCdevkit/VOC0712/lmdb/VOC0712_trainval_lmdb examples/VOC0712
  # Annotations in plain text: lines LABEL LEFT TOP RIGHT BOTTOM, in pixels.
  %(prog)s --anno-type detection --label-type txt --encode-type jpg pictures/ list.txt pictures_lmdb

The arguments are those of SSD's create_annoset.py; its convert_annoset has the same flags (--anno_type=detection).
Next, for DetectionOutput: caffe-get-image-size ROOT LISTFILE test_name_size.txt
"""
SWITCHES = {
    "gray": "convert pictures to grey",
    "shuffle": "store the pictures in a random order",
    "check-size": "stop if pictures have different sizes",
    "check-label": "stop if the label map has a name twice",
    "encoded": "store encoded pictures, in the format of each file",
    "skip-unreadable": "skip pictures that are missing or do not decode, as SSD does, instead of stopping",
}
NUMBERS = {
    "min-dim": "enlarge pictures so that the shorter edge has at least N pixels, keeping proportions",
    "max-dim": "make the longer edge of pictures N pixels long if it is longer, keeping proportions",
    "resize-height": "resize pictures to this height in pixels",
    "resize-width": "resize pictures to this width in pixels",
    "seed": "seed of the order of --shuffle",
}


def run(argv: list[str]) -> None:
    """Run the command with these arguments."""
    parser = Parser(__doc__, EPILOG)
    parser.add_argument("root", metavar="ROOT", help="the folder that the listed paths are relative to")
    parser.add_argument("list_file", metavar="LISTFILE", help="a text file with lines IMAGE ANNOTATION or IMAGE LABEL")
    parser.add_argument("database", metavar="DB_NAME", help="the LMDB to create (a folder)")
    parser.add_argument("links", metavar="LINKS", nargs="?", help="a folder for a link to DB_NAME")
    add = parser.add_argument
    add("--anno-type", default="classification", metavar="TYPE", help="classification or detection")
    add("--label-type", default="xml", metavar="TYPE", help="xml (VOC), json (COCO) or txt")
    add("--label-map-file", default="", metavar="FILE", help="a LabelMap in prototxt: the number of each class")
    for name, text in SWITCHES.items():
        add(f"--{name}", action=argparse.BooleanOptionalAction, default=False, help=text)
    add("--backend", default="lmdb", metavar="lmdb", help="the database to write; only lmdb")
    for name, text in NUMBERS.items():
        add(f"--{name}", type=int, default=0, metavar="N", help=text)
    add("--encode-type", default="", metavar="TYPE", help="store pictures encoded as png, jpg, …")
    add("--redo", action="store_true", help="replace DB_NAME if it exists")
    args = vars(parser.parse_args([_hyphened(each) for each in argv]))
    init_log()
    root, list_file, database, links, redo = (
        args.pop(name) for name in ("root", "list_file", "database", "links", "redo")
    )
    options = AnnosetOptions(**args)
    place = os.path.dirname(os.path.abspath(database))
    with _making(place):
        os.makedirs(place, exist_ok=True)
    if redo and os.path.lexists(database):
        _redo(root, list_file, os.path.abspath(database), options)
    else:
        convert_annoset(root, list_file, database, options, progress=on_terminal())
    if links:
        _link(os.path.abspath(database), links)


def _hyphened(argument: str) -> str:
    """Return a flag of convert_annoset, ``--anno_type=…``, in the form of create_annoset.py; anything else as it is."""
    name, equals, value = argument.partition("=")
    return f"{name.replace('_', '-')}{equals}{value}" if argument.startswith("-") else argument


@contextlib.contextmanager
def _making(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CaffeError(f"cannot make {path}: {error.strerror}") from error


def _redo(root: str, list_file: str, database: str, options: AnnosetOptions) -> None:
    """Make a database beside the old one, and only then put it in its place."""
    if not os.path.isfile(os.path.join(database, "data.mdb")):
        raise CaffeError(f"--redo: {database} is not an LMDB, so it is not replaced")
    place, name = os.path.split(database)
    with _making(database), tempfile.TemporaryDirectory(prefix=f".{name}.", dir=place) as folder:
        convert_annoset(root, list_file, os.path.join(folder, name), options, progress=on_terminal())
        shutil.rmtree(database)
        os.rename(os.path.join(folder, name), database)


def _link(database: str, folder: str) -> None:
    """Make a link to the database in a folder, which is made if it is not there."""
    link = os.path.join(folder, os.path.basename(database))
    with _making(link):
        os.makedirs(folder, exist_ok=True)
        if os.path.islink(link):
            os.unlink(link)
        if os.path.exists(link):
            raise CaffeError(f"cannot make a link to {database}: {link} exists already and is not a link")
        os.symlink(database, link)


main = command("create_annoset", run, "the database was not made")
