"""Score a classifier as the paper does: top-1 and top-5 errors of the centre crop, or of the whole image."""

from __future__ import annotations

import torch

from ..errors import CaffeError
from ..swwae.evaluate import EDGE, MODES, evaluate
from .options import Parser, command

EPILOG = """
examples:
  %(prog)s --model prototxt/vgg16_deploy.prototxt --weights VGG_ILSVRC_16_layers.caffemodel --data data/ilsvrc12/val_lmdb
  %(prog)s --model prototxt/swwae_all_deploy.prototxt --weights swwae_all_iter_100000.caffemodel \\
           --data data/ilsvrc12/val_lmdb --mode convolution
  %(prog)s --model prototxt/demo/swwae_all_train_val.prototxt --weights demo/swwae_all_iter_400.caffemodel \\
           --data demo/test_lmdb --edge 36 --image-shape 1 32 32

crop: the shorter edge is brought to 256, the centre 224x224 is scored. convolution: the fully connected layers become
convolutions, the whole image is scored, the scores are averaged over the positions. A decoder is left out. The mean and scale
are those of the net's data layers (of a mean image, the mean of each channel); those of VGG where it has none.
"""


def run(argv: list[str]) -> None:
    """Do what the arguments say."""
    parser = Parser(__doc__, EPILOG)
    parser.add_argument("--model", required=True, metavar="NET", help="the net's prototxt, augmented or not")
    parser.add_argument("--weights", required=True, metavar="FILE", help="its caffemodel")
    parser.add_argument("--data", required=True, metavar="LMDB", help="images with their labels")
    parser.add_argument("--mode", default=MODES[0], choices=MODES, help="see below (default: %(default)s)")
    parser.add_argument(
        "--edge",
        type=int,
        default=EDGE,
        metavar="N",
        help="length of the shorter edge in pixels (default: %(default)s)",
    )
    parser.add_argument(
        "--batch", type=int, default=32, metavar="N", help="images at a time, for crops (default: %(default)s)"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N images")
    parser.add_argument(
        "--image-shape", type=int, nargs=3, metavar=("C", "H", "W"), help="what the net takes, if it does not say"
    )
    parser.add_argument(
        "--device",
        default="cuda" if torch.cuda.is_available() else "cpu",
        help="cpu, cuda, cuda:1 … (default: cuda if any)",
    )
    args = parser.parse_args(argv)
    try:
        torch.empty(0, device=args.device)
    except (RuntimeError, AssertionError) as error:
        raise CaffeError(f"--device {args.device} is not here: {str(error).splitlines()[0]}") from error
    shape = tuple(args.image_shape) if args.image_shape else None
    options = {"edge": args.edge, "batch": args.batch, "limit": args.limit, "device": args.device, "shape": shape}
    errors = evaluate(args.model, args.weights, args.data, args.mode, **options)
    print(f"{errors.images} images, {args.mode}: top-1 error {errors.top1:.2f}%, top-5 error {errors.top5:.2f}%")


main = command("evaluate", run)
