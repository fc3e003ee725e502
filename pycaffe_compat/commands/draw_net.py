"""Draw the layers and blobs of a net, as a picture or as Graphviz text."""

from __future__ import annotations

from ..proto import caffe_pb2, read_net
from ..pycaffe import draw
from .options import Parser, command

PHASES = {"ALL": None, "TRAIN": caffe_pb2.TRAIN, "TEST": caffe_pb2.TEST}
EPILOG = """
examples:
  %(prog)s prototxt/vgg16_train_val.prototxt vgg16.svg --phase TEST --rankdir TB
  %(prog)s deploy.prototxt deploy.dot          # text: needs no Graphviz

Graphviz's program dot draws the pictures, in any format that it supports.
"""


def run(argv: list[str]) -> None:
    """Run the command with these arguments."""
    parser = Parser(__doc__, EPILOG)
    parser.add_argument("input_net_proto_file", metavar="NET", help="the net's prototxt")
    parser.add_argument("output_image_file", metavar="PICTURE", help="the file to write; the ending chooses the format")
    parser.add_argument(
        "--rankdir",
        default="LR",
        type=str.upper,
        choices=draw.RANKDIRS,
        help="direction of the graph (default: LR, left to right)",
    )
    parser.add_argument(
        "--phase", default="ALL", type=str.upper, choices=PHASES, help="draw the layers of this phase (default: ALL)"
    )
    parser.add_argument("--display_lrm", action="store_true", help="show the learning-rate multipliers of each layer")
    args = parser.parse_args(argv)
    net = read_net(args.input_net_proto_file)
    print(f"Drawing net to {args.output_image_file}")
    draw.draw_net_to_file(net, args.output_image_file, args.rankdir, PHASES[args.phase], args.display_lrm)


main = command("draw_net", run)
