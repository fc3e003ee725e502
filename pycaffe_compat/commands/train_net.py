"""Train a net as Caffe does, from a solver file."""

from __future__ import annotations

import argparse

from ..solver.run import train
from ..solver.signals import EFFECTS
from .options import Parser, add_amp, add_device, add_python_layers, add_state, command, python_layers

EPILOG = """
examples:
  %(prog)s --solver prototxt/swwae_all_solver.prototxt
                           train from the fillers, on a GPU if there is one
  %(prog)s --solver solver.prototxt --weights VGG_ILSVRC_16_layers.caffemodel
                           fine-tune: layers of the same names take their weights from the file
  %(prog)s --solver solver.prototxt --weights encoder.caffemodel,decoder.caffemodel
                           the layers of several files; what comes later wins
  %(prog)s --solver solver.prototxt --snapshot snapshots/net_iter_5000.solverstate
                           go on where a snapshot was taken, bit for bit: data order and dropout included
  %(prog)s --solver solver.prototxt --gpu all
                           a process for each GPU; each takes its own batches, gradients are averaged
  torchrun --nproc-per-node 8 --nnodes 2 … %(prog)s --solver solver.prototxt
                           the same over several machines
  %(prog)s --solver solver.prototxt --iterations 20 --cpu
                           a short try without a GPU

Ctrl-C stops at the end of the iteration and writes a snapshot; a second Ctrl-C stops at once. `kill -HUP PID` writes a
snapshot and training goes on. The log on standard error is Caffe's, for the log parsers that you have.
"""


def run(argv: list[str], prog: str | None = None) -> None:
    """Do what the arguments say; ``prog`` is the command's name in its help."""
    parser = Parser(__doc__, EPILOG, prog)
    parser.add_argument("--solver", required=True, metavar="FILE", help="the solver's prototxt")
    parser.add_argument("--weights", default="", metavar="A,B", help="caffemodels to start from")
    parser.add_argument("--snapshot", default="", metavar="FILE", help="a .solverstate(.h5) to go on from")
    parser.add_argument("--sigint_effect", default="stop", choices=EFFECTS, help="what Ctrl-C does (default: stop)")
    add_training(parser)
    args = vars(parser.parse_args(argv))
    python_layers(args)
    train(args.pop("solver"), **args)


def add_training(parser: Parser) -> None:
    """Add how to train: what is the same for every solver of a run."""
    add_device(parser, several=True)
    parser.add_argument("--iterations", type=int, metavar="N", help="instead of the solver's max_iter")
    add_state(parser)
    parser.add_argument(
        "--sighup_effect", default="snapshot", choices=EFFECTS, help="what SIGHUP does (default: snapshot)"
    )
    parser.add_argument("--tensorboard", default="", metavar="DIR", help="write loss, rate and test scores there")
    parser.add_argument(
        "--progress",
        action=argparse.BooleanOptionalAction,
        help="a progress bar (default: if standard error is a terminal)",
    )
    add_amp(parser)
    parser.add_argument("--compile", action="store_true", help="compile the net with torch.compile first")
    parser.add_argument("--channels-last", action="store_true", help="the memory layout that tensor cores like")
    add_python_layers(parser)


main = command("train_net", run)
