"""Show how trained decoders reconstruct images from each layer, and measure the quality: a grid, curves, a page."""

from __future__ import annotations

import math
import re
import shlex
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..data.mean import read_mean
from ..errors import DataError
from ..solver.run import one_device
from ..swwae.gallery import PAGE, prepare_folder, write_gallery
from ..swwae.pictures import Pictures
from ..swwae.reconstruct import Options, reconstruct
from ..swwae.trained import Trained, curves_of, in_release, in_run, pair
from .images import read_array
from .options import Parser, add_device, command

EPILOG = """
examples:
  %(prog)s photos/ --run runs/first --out look
                           every variant that caffe-train-stages trained in runs/first, with its training curves
  %(prog)s demo/test_lmdb --limit 100 --crop 32 --out look \\
           --net prototxt/demo/sae_all_train_val.prototxt demo/sae_all_iter_400.caffemodel \\
           --net prototxt/demo/swwae_all_train_val.prototxt demo/swwae_all_iter_400.caffemodel
  %(prog)s cat.jpg dog.jpg --release recon-dec/vggnet/recon --out look
                           the authors' released models, by their file names: layer5_deploy.prototxt, layer5.caffemodel
  %(prog)s photos/ --run pool1 --run pool2 --run pool3 --crop 128 --out look
                           decoders that were each trained for one layer, on crops of 128x128

It writes into the folder --out: report.html (all in one file), grid.png (rows pictures, columns what is made of them from each
layer), quality.png (PSNR and SSIM over depth), quality.csv (a row a layer), pictures.csv (a row a picture and layer), and with
--run curves.png.

A net that also reconstructs activations (all, layerwise) decodes from each of them, with its stages stacked. A net that
reconstructs only the image (first) decodes from the layer it was trained from. Nets of one kind that decode from different layers
share a group of columns. Mean and scale come from the net's data layers; a deploy net for colour images gets VGG's mean.
"""


def mean(text: str) -> object:
    """Return the numbers of ``"104,117,123"``, or the mean image of a file."""
    if text.endswith((".binaryproto", ".npy")):
        return read_mean(text) if text.endswith(".binaryproto") else read_array(text, "mean file")
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        raise DataError(f'--mean: "{text}" is neither numbers with commas nor a file .binaryproto or .npy') from None
    if not all(map(math.isfinite, numbers)):
        raise DataError(f"--mean: {text} is not finite")
    return np.array(numbers, np.float32)


def size(text: str) -> tuple[int, int]:
    """Return height and width of ``"128"`` or ``"96x128"``."""
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", text)
    if match is None:
        raise DataError(f'--crop: "{text}" is neither a number nor height and width, such as 96x128')
    return int(match[1]), int(match[2] or match[1])


def run(argv: list[str]) -> None:
    """Run the command with these arguments."""
    parser = _parser()
    args = parser.parse_args(argv)
    if not (args.net or args.run or args.release):
        parser.error("which nets? Give --net NET WEIGHTS, --run RUN or --release DIR")
    options = _options(args)
    device = one_device(args.gpu, args.cpu)
    nets = _nets(args)
    pictures = _pictures(args)
    prepare_folder(args.out, args.overwrite)
    result = reconstruct(nets, pictures, options, device=device)
    for kind, count in result.converted.items():
        print(f"note: {count} pictures are {kind} and were converted to what the nets take", file=sys.stderr)
    curves = {folder: curves_of(folder) for folder in args.run}
    write_gallery(args.out, result, shlex.join(["caffe-reconstruct", *argv]), curves)
    for each in result.columns:
        ssim = "" if each.ssim is None else f", SSIM {each.ssim.mean():.3f}"
        print(f"{each.title} from {each.source.label}: PSNR {each.psnr.mean():.2f} dB{ssim}")
    print(f"{len(result.names)} pictures; look at {args.out}/{PAGE}")


def _parser() -> Parser:
    parser = Parser(__doc__, EPILOG)
    parser.add_argument("pictures", nargs="+", metavar="PICTURE", help="image files, folders of them, LMDBs")
    parser.add_argument("--out", required=True, metavar="DIR", help="the folder to write to; new or empty")
    parser.add_argument(
        "--net",
        nargs=2,
        action="append",
        default=[],
        metavar=("NET", "WEIGHTS"),
        help="a net with a decoder (train_val or deploy) and its caffemodels, A,B; can be repeated",
    )
    parser.add_argument(
        "--run", action="append", default=[], metavar="RUN", help="a run folder of caffe-train-stages; can be repeated"
    )
    parser.add_argument(
        "--release", action="append", default=[], metavar="DIR", help="the authors' released tree, or a folder of it"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N pictures (default: all)")
    parser.add_argument("--rows", type=int, default=8, metavar="N", help="pictures in the grid (default: %(default)s)")
    parser.add_argument(
        "--crop",
        metavar="N|HxW",
        help="the size to cut from the centre of each image (default: the nets' input size)",
    )
    parser.add_argument(
        "--edge",
        type=int,
        metavar="N",
        help="resize pictures so that the shorter edge has N pixels (default: larger files until the crop just fits, "
        "LMDBs not at all)",
    )
    parser.add_argument(
        "--mean",
        metavar="M",
        help="the mean to subtract: a number, one per channel (BGR) with commas, or a mean file",
    )
    parser.add_argument("--scale", type=float, metavar="X", help="the factor applied after the mean")
    parser.add_argument("--image", default="", metavar="BLOB", help="the blob of the images (default: found)")
    parser.add_argument("--batch", type=int, default=8, metavar="N", help="pictures at a time (default: %(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="replace the files of an earlier call")
    add_device(parser)
    return parser


def _options(args: Any) -> Options:
    return Options(
        image=args.image,
        crop=size(args.crop) if args.crop else None,
        edge=args.edge,
        mean=None if args.mean is None else mean(args.mean),
        scale=args.scale,
        rows=args.rows,
        batch=args.batch,
    )


def _nets(args: Any) -> list[Trained]:
    """The trained nets that are named, found in runs, and found in releases."""
    nets = [pair(*given) for given in args.net]
    for folder in args.run:
        nets += in_run(folder)
    for folder in args.release:
        found, without = in_release(folder)
        nets += found
        if without:
            print(f"note: no weights for {_some(without, 5)}", file=sys.stderr)
    return nets


def _pictures(args: Any) -> Pictures:
    pictures = Pictures(args.pictures, args.limit)
    if out := pictures.left_out:
        what = "files are no pictures by their names and are left out"
        print(f"note: {len(out)} {what}: {_some(out, 3)}", file=sys.stderr)
    return pictures


def _some(names: Sequence[str], most: int) -> str:
    """The first names, and whether there are more."""
    return f"{', '.join(names[:most])}{' …' if len(names) > most else ''}"


main = command("reconstruct", run, "nothing was written")
