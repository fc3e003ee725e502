"""Train a net from a solver file, as Caffe does."""

from __future__ import annotations

import argparse

from ..solver.run import train
from ..solver.signals import EFFECTS
from .options import Parser, add_amp, add_device, add_reading, add_state, command, reading

EPILOG = """
examples:
  %(prog)s --solver prototxt/swwae_all_solver.prototxt
                           train from the fillers, on a GPU if there is one
  %(prog)s --solver solver.prototxt --weights VGG_ILSVRC_16_layers.caffemodel
                           fine-tune: layers take the weights of the layers with the same names
  %(prog)s --solver solver.prototxt --weights encoder.caffemodel,decoder.caffemodel
                           weights from several files; a later file overrides an earlier one
  %(prog)s --solver solver.prototxt --snapshot snapshots/net_iter_5000.solverstate
                           resume from a snapshot, bit for bit, with the same data order and dropout
  %(prog)s --solver solver.prototxt --weights VGG_ILSVRC_16_layers.caffemodel --resume
                           resume from the newest intact snapshot; start from the weights if there is none yet
  %(prog)s --solver solver.prototxt --gpu all
                           one process per GPU, each with its own batches; gradients are averaged
  torchrun --nproc-per-node 8 --nnodes 2 … %(prog)s --solver solver.prototxt
                           the same on several machines
  %(prog)s --solver solver.prototxt --iterations 20 --cpu
                           a short try without a GPU

Ctrl-C finishes the iteration, writes a snapshot and stops; a second Ctrl-C stops at once. `kill -HUP PID` writes a snapshot and
training continues. The log goes to standard error in Caffe's format, so existing log parsers can read it.
"""


def run(argv: list[str], prog: str | None = None) -> None:
    """Run the command with these arguments; ``prog`` is its name in the help."""
    parser = Parser(__doc__, EPILOG, prog)
    parser.add_argument("--solver", required=True, metavar="FILE", help="the solver's prototxt")
    parser.add_argument("--weights", default="", metavar="A,B", help="weights to start from")
    parser.add_argument(
        "--snapshot", default="", metavar="FILE", help="a .solverstate or .solverstate.h5 to resume from"
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="resume from the newest intact snapshot of the solver's snapshot_prefix, or start normally if there is none",
    )
    parser.add_argument("--sigint_effect", default="stop", choices=EFFECTS, help="what Ctrl-C does (default: stop)")
    add_training(parser)
    args = vars(parser.parse_args(argv))
    reading(args)
    train(args.pop("solver"), **args)


def add_training(parser: Parser) -> None:
    """Add the options that apply to every solver of a run."""
    add_device(parser, several=True)
    parser.add_argument(
        "--iterations", type=int, metavar="N", help="stop after N iterations instead of the solver's max_iter"
    )
    add_state(parser)
    parser.add_argument(
        "--sighup_effect", default="snapshot", choices=EFFECTS, help="what SIGHUP does (default: snapshot)"
    )
    parser.add_argument(
        "--tensorboard",
        default="",
        metavar="DIR",
        help="write loss, learning rate and test scores for TensorBoard to this folder",
    )
    parser.add_argument(
        "--progress",
        action=argparse.BooleanOptionalAction,
        help="show a progress bar (default: if standard error is a terminal)",
    )
    add_amp(parser)
    parser.add_argument(
        "--compile",
        action="store_true",
        help="compile the net with torch.compile; what cannot be compiled runs as it is",
    )
    parser.add_argument(
        "--channels-last",
        action=argparse.BooleanOptionalAction,
        help="memory layout torch.channels_last (default: where it is faster: with --amp, and for small images on the CPU)",
    )
    parser.add_argument(
        "--cuda-graph",
        action="store_true",
        help="replay forward and backward as CUDA graphs, for nets whose shapes never change",
    )
    parser.add_argument(
        "--threads",
        type=int,
        metavar="N",
        help="threads of an operator on the CPU (default: one a core, or OMP_NUM_THREADS)",
    )
    parser.add_argument(
        "--device-transform",
        action="store_true",
        help="send Data and ImageData batches to the GPU as cropped bytes, a quarter of the size, and mirror them, subtract "
        "the mean and scale there; the numbers are the same",
    )
    add_reading(parser)


main = command("train_net", run)
