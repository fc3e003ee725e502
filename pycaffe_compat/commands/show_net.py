"""Show a net: a table of its layers with blobs, shapes, parameters, memory and FLOPs, and the totals."""

from __future__ import annotations

import argparse

from ..proto import read_net
from ..summary import describe, summarize
from .options import Parser, add_reading, command, reading

EPILOG = """
examples:
  %(prog)s prototxt/vgg16_deploy.prototxt
  %(prog)s prototxt/swwae_all_train_val.prototxt --phase both
  %(prog)s deploy.prototxt --shape data=10,3,227,227

A layer's memory is that of its tops, in float32; in-place layers need none. FLOPs count 2 for each multiply-add of
Convolution, Deconvolution, InnerProduct, RNN and LSTM; other layers are not counted. A data layer's source is opened only if
its options do not give the shapes; if the database is not on this machine, give the shapes with --shape.
"""
ADVICE = "--shape NAME=N,C,H,W gives the shape of a blob that a data layer makes"


def shape(text: str) -> tuple[str, tuple[int, ...]]:
    name, _, numbers = text.rpartition("=")
    try:
        sizes = tuple(int(n) for n in numbers.split(","))
    except ValueError:
        sizes = ()
    if not name or not sizes or min(sizes) < 0:
        raise argparse.ArgumentTypeError(f'"{text}" is not NAME=N,N,…, as in data=1,3,224,224')
    return name, sizes


def run(argv: list[str]) -> None:
    """Run the command with these arguments."""
    parser = Parser(__doc__, EPILOG)
    parser.add_argument("net", help="the net's prototxt")
    parser.add_argument(
        "--phase", default="TEST", type=str.upper, choices=["TRAIN", "TEST", "BOTH"], help="default: TEST"
    )
    parser.add_argument(
        "--shape",
        action="append",
        default=[],
        type=shape,
        metavar="NAME=N,N,…",
        help="shape of an input blob or of a data layer's top, where the net does not say or another is wanted",
    )
    add_reading(parser)
    args = parser.parse_args(argv)
    reading(vars(args))
    net = read_net(args.net)
    for phase in ("TRAIN", "TEST") if args.phase == "BOTH" else (args.phase,):
        print(f"{args.net}" + (f' "{net.name}"' if net.name else "") + f", phase {phase}\n")
        print(summarize(describe(net, phase, dict(args.shape), args.net, ADVICE)), end="\n\n")


main = command("show_net", run)
