#!/usr/bin/env python
"""Score a trained net on its own test data, as `caffe test` does: every batch, then the means."""

import argparse
import sys

from pycaffe_compat.errors import CaffeError
from pycaffe_compat.solver.commands import test
from pycaffe_compat.solver.runner import AMP

EPILOG = """
examples:
  %(prog)s --model train_val.prototxt --weights net_iter_10000.caffemodel --iterations 100
                           100 batches of the net's TEST phase; batch_size times 100 should be the size of the data
  %(prog)s --model train_val.prototxt --weights net_iter_10000.caffemodel.h5 --gpu 1
"""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", "-model", required=True, metavar="FILE", help="the net's prototxt, with data layers")
    parser.add_argument("--weights", "-weights", required=True, metavar="A,B", help="its weights")
    parser.add_argument("--iterations", "-iterations", type=int, default=50, metavar="N", help="batches (default: 50)")
    parser.add_argument("--gpu", "-gpu", default="", metavar="ID", help="GPU number (default: one if there is one)")
    parser.add_argument("--cpu", action="store_true", help="use no GPU")
    parser.add_argument("--level", "-level", type=int, help="level of the net's state")
    parser.add_argument("--stage", "-stage", default="", metavar="A,B", help="stages of the net's state")
    parser.add_argument("--amp", nargs="?", const="bfloat16", choices=sorted(AMP), help="compute in mixed precision")
    args = vars(parser.parse_args())
    args["stages"] = [stage for stage in args.pop("stage").split(",") if stage]
    try:
        test(args.pop("model"), args.pop("weights"), **args)
    except CaffeError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
