"""Score a trained net on its own test data, as `caffe test` does: every batch, then the means."""

from __future__ import annotations

from ..solver.run import test
from .options import Parser, add_amp, add_device, add_python_layers, add_state, command, python_layers

EPILOG = """
examples:
  %(prog)s --model train_val.prototxt --weights net_iter_10000.caffemodel --iterations 100
                           100 batches of the net's TEST phase; batch_size times 100 should be the size of the data
  %(prog)s --model train_val.prototxt --weights net_iter_10000.caffemodel.h5 --gpu 1
"""


def run(argv: list[str], prog: str | None = None) -> None:
    """Do what the arguments say; ``prog`` is the command's name in its help."""
    parser = Parser(__doc__, EPILOG, prog)
    parser.add_argument("--model", required=True, metavar="FILE", help="the net's prototxt, with data layers")
    parser.add_argument("--weights", required=True, metavar="A,B", help="its weights")
    parser.add_argument("--iterations", type=int, default=50, metavar="N", help="batches (default: 50)")
    add_device(parser)
    add_state(parser)
    add_amp(parser)
    add_python_layers(parser)
    args = vars(parser.parse_args(argv))
    python_layers(args)
    test(args.pop("model"), args.pop("weights"), **args)


main = command("test_net", run)
