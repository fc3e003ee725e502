"""Draw the filters of a net's first layer, for several caffemodels side by side, with their differences."""

from __future__ import annotations

from ..swwae.filters import change, filters_figure, read_filters
from .options import Parser, command

EPILOG = """
examples:
  %(prog)s VGG_ILSVRC_16_layers.caffemodel filters.png
  %(prog)s vgg.caffemodel runs/first/step4_swwae_all/snapshot_iter_100000.caffemodel filters.png
                           before and after the augmentation, and the difference
  %(prog)s a.caffemodel b.caffemodel c.caffemodel filters.png --layer conv1_1

The layer must look at pictures: filters of 1 channel are drawn grey, of 3 (BGR) in colour. 0 is mid-grey.
"""


def run(argv: list[str]) -> None:
    """Run the command with these arguments."""
    parser = Parser(__doc__, EPILOG)
    parser.add_argument(
        "weights", nargs="+", metavar="WEIGHTS", help="caffemodels; the others are compared with the first"
    )
    parser.add_argument("picture", metavar="PICTURE", help="the file to write; the ending chooses the format")
    parser.add_argument(
        "--layer", default="", metavar="NAME", help="the layer (default: the first with filters of 1 channel or 3)"
    )
    args = parser.parse_args(argv)
    before, *after = [read_filters(path, args.layer, path) for path in args.weights]
    filters_figure(args.picture, before, after)
    for each in after:
        print(f"{each.title}: {each.layer} differs from {before.title} by {change(before, each):.2%} of its norm")
    print(f"{args.picture}: {len(before.values)} filters of {before.layer}")


main = command("draw_filters", run)
