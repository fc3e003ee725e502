"""Write the nets and solver files of the paper, or add a decoder to your own net."""

from __future__ import annotations

import os

from ..files import atomic_path, refuse_overwriting
from ..proto import read_net
from ..swwae import Decoder, augment, reconstruction_net
from ..swwae.generate import VARIANTS, all_files, write_all
from ..swwae.prototxt import COMMAND, net_text
from ..swwae.release import write_paper_tree
from .options import Parser, command

EPILOG = """
examples:
  %(prog)s                                   write prototxt/ into the current folder
  %(prog)s --check                           name the files of prototxt/ that differ from what would be written
  %(prog)s --net my_vgg.prototxt --variant swwae_all --out my_swwae.prototxt
                                             the net with a decoder, to train with both losses
  %(prog)s --net my_vgg.prototxt --variant sae_first --source conv3_3 --reconstruct --out recon3.prototxt
                                             the encoder up to conv3_3, fixed, with a decoder from there
  %(prog)s --paper-tree DIR                  write every deploy and dump net of the authors' release, in its layout
"""
OF_A_NET = ("variant", "source", "reconstruct", "image_shape", "image", "out")


def run(argv: list[str]) -> int:
    """Run the command with these arguments; return the exit status."""
    parser = Parser(__doc__, EPILOG)
    parser.add_argument("--root", default=".", help="write prototxt/ under this folder (default: here)")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with status 1 if a file differs")
    parser.add_argument("--paper-tree", metavar="DIR", help="write the authors' deploy and dump nets under DIR instead")
    parser.add_argument("--net", metavar="FILE", help="your own classification net, to which a decoder is added")
    variants = [each.name for each in VARIANTS]
    parser.add_argument(
        "--variant",
        default="swwae_all",
        choices=variants,
        metavar="NAME",
        help=f"{', '.join(variants)} (default: %(default)s)",
    )
    parser.add_argument(
        "--source", default="", metavar="LAYER", help="decode from this layer (default: the last pooled layer)"
    )
    parser.add_argument("--reconstruct", action="store_true", help="omit the classifier and fix the encoder")
    parser.add_argument(
        "--image-shape",
        type=int,
        nargs=3,
        metavar=("C", "H", "W"),
        help="shape of one image, if the net does not give it",
    )
    parser.add_argument("--image", default="data", metavar="BLOB", help="the blob of the images (default: %(default)s)")
    parser.add_argument("--out", metavar="FILE", help="the file to write with --net (default: standard output)")
    args = parser.parse_args(argv)
    given = [name for name in OF_A_NET if getattr(args, name) != parser.get_default(name)]
    if given and not args.net:
        parser.error(f"--{given[0].replace('_', '-')} goes with --net FILE")
    if args.net:
        if args.out:
            refuse_overwriting(args.out, args.net)
        kind, objective = args.variant.split("_")
        shape = tuple(args.image_shape) if args.image_shape else None
        decoder = Decoder(kind, objective, image=args.image, image_shape=shape)
        induce = reconstruction_net if args.reconstruct else augment
        net = induce(read_net(args.net), decoder, source=args.source)
        text = net_text(net, f"{args.net} with a mirrored decoder, {args.variant}.", " ".join([COMMAND, *argv]))
        if args.out:
            with atomic_path(args.out) as temporary, open(temporary, "w") as file:
                file.write(text)
        else:
            print(text, end="")
        return 0
    if args.check:
        stale = [name for name, text in all_files().items() if not _holds(os.path.join(args.root, name), text)]
        print("\n".join(f"{name} is not what {parser.prog} writes" for name in stale) or "prototxt/ is up to date")
        return 1 if stale else 0
    paths = write_paper_tree(args.paper_tree) if args.paper_tree else write_all(args.root)
    print(f"{len(paths)} files written under {args.paper_tree or os.path.join(args.root, 'prototxt')}")
    return 0


def _holds(path: str, text: str) -> bool:
    try:
        with open(path) as file:
            return file.read() == text
    except FileNotFoundError:
        return False


main = command("make_prototxt", run)
