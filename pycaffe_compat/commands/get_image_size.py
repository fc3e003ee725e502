"""Write a line NAME HEIGHT WIDTH for each image of a list, for the name_size_file of DetectionOutput (SSD).

LISTFILE has lines IMAGE ANNOTATION or IMAGE LABEL. NAME is the image's file name without folder and extension.
"""

from __future__ import annotations

import logging

from ..data.annoset import write_image_sizes
from ..files import refuse_overwriting
from ..solver.log import init_log
from .options import Parser, command

log = logging.getLogger(__name__)
EPILOG = """
example:
  %(prog)s VOCdevkit/ test.txt test_name_size.txt
"""


def run(argv: list[str]) -> None:
    """Run the command with these arguments."""
    parser = Parser(__doc__, EPILOG)
    parser.add_argument("root", metavar="ROOTFOLDER/", help="the folder that the listed paths are relative to")
    parser.add_argument("list_file", metavar="LISTFILE", help="a text file with lines IMAGE ANNOTATION or IMAGE LABEL")
    parser.add_argument("output", metavar="OUTFILE", help="the file to write")
    parser.add_argument("--name_id_file", default="", metavar="FILE", help="lines NAME ID: write ids instead of names")
    args = parser.parse_args(argv)
    refuse_overwriting(args.output, args.list_file, args.name_id_file)
    init_log()
    count = write_image_sizes(args.root, args.list_file, args.output, args.name_id_file)
    log.info("Processed %d files.", count)


main = command("get_image_size", run)
