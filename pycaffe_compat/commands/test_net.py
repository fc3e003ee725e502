"""Score a trained net on its own test data, as `caffe test` does: every batch, then the means; for detectors, their precision."""

from __future__ import annotations

from ..solver.run import test
from ..solver.scores import VERSIONS
from .options import Parser, add_amp, add_device, add_reading, add_state, command, reading

EPILOG = """
examples:
  %(prog)s --model train_val.prototxt --weights net_iter_10000.caffemodel --iterations 100
                           100 batches of the TEST phase: choose N so that N * batch_size is the number of records
  %(prog)s --model train_val.prototxt --weights net_iter_10000.caffemodel.h5 --gpu 1
  %(prog)s --model test.prototxt --weights VGG_VOC0712_SSD_300x300_iter_120000.caffemodel --iterations 619 --ap-version 11point
"""


def run(argv: list[str], prog: str | None = None) -> None:
    """Run the command with these arguments; ``prog`` is its name in the help."""
    parser = Parser(__doc__, EPILOG, prog)
    parser.add_argument("--model", required=True, metavar="FILE", help="the net's prototxt, with data layers")
    parser.add_argument(
        "--weights", required=True, metavar="A,B", help="weights files; a later file overrides an earlier one"
    )
    parser.add_argument("--iterations", type=int, default=50, metavar="N", help="number of batches (default: 50)")
    parser.add_argument(
        "--ap-version",
        choices=VERSIONS,
        default="Integral",
        help="how the precision of a net that ends in DetectionEvaluate is averaged (default: %(default)s)",
    )
    add_device(parser)
    add_state(parser)
    add_amp(parser)
    add_reading(parser)
    args = vars(parser.parse_args(argv))
    reading(args)
    test(args.pop("model"), args.pop("weights"), **args)


main = command("test_net", run)
