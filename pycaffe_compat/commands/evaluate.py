"""Score a classifier as in the paper: top-1 and top-5 errors for the centre crop or for the whole image."""

from __future__ import annotations

import torch

from ..errors import CaffeError
from ..swwae.evaluate import MODES, evaluate
from ..swwae.pictures import EDGE
from .options import Parser, command

EPILOG = """
examples:
  %(prog)s --model prototxt/vgg16_deploy.prototxt --weights VGG_ILSVRC_16_layers.caffemodel --data data/ilsvrc12/val_lmdb
  %(prog)s --model prototxt/swwae_all_deploy.prototxt --weights swwae_all_iter_100000.caffemodel \\
           --data data/ilsvrc12/val_lmdb --mode convolution
  %(prog)s --model prototxt/demo/swwae_all_train_val.prototxt --weights demo/swwae_all_iter_400.caffemodel \\
           --data demo/test_lmdb --edge 36 --image-shape 1 32 32

modes:
  crop          resize the shorter edge to 256 and score the 224x224 pixels in the centre
  convolution   turn the fully connected layers into convolutions, score the whole image, average over all positions

A decoder is ignored. Mean and scale come from the net's data layers (from a mean image, the mean of each channel); a net
without data layers gets those of VGG.
"""


def run(argv: list[str]) -> None:
    """Run the command with these arguments."""
    parser = Parser(__doc__, EPILOG)
    parser.add_argument("--model", required=True, metavar="NET", help="the net's prototxt, augmented or not")
    parser.add_argument("--weights", required=True, metavar="FILE", help="its caffemodel")
    parser.add_argument("--data", required=True, metavar="LMDB", help="an LMDB of images with labels")
    parser.add_argument("--mode", default=MODES[0], choices=MODES, help="explained below (default: %(default)s)")
    parser.add_argument(
        "--edge",
        type=int,
        default=EDGE,
        metavar="N",
        help="pixels of the shorter edge (default: %(default)s)",
    )
    parser.add_argument(
        "--batch", type=int, default=32, metavar="N", help="images per batch in mode crop (default: %(default)s)"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N images")
    parser.add_argument(
        "--image-shape",
        type=int,
        nargs=3,
        metavar=("C", "H", "W"),
        help="shape of one input image, if the net does not give it",
    )
    parser.add_argument(
        "--device",
        default="cuda" if torch.cuda.is_available() else "cpu",
        help="cpu, cuda, cuda:1 … (default: cuda if there is a GPU)",
    )
    args = parser.parse_args(argv)
    try:
        torch.empty(0, device=args.device)
    except (RuntimeError, AssertionError) as error:
        raise CaffeError(f"--device {args.device} is not available: {str(error).splitlines()[0]}") from error
    shape = tuple(args.image_shape) if args.image_shape else None
    options = {"edge": args.edge, "batch": args.batch, "limit": args.limit, "device": args.device, "shape": shape}
    errors = evaluate(args.model, args.weights, args.data, args.mode, **options)
    print(f"{errors.images} images, {args.mode}: top-1 error {errors.top1:.2f}%, top-5 error {errors.top5:.2f}%")


main = command("evaluate", run)
