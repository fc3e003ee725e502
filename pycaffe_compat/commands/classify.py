"""Classify images: write the class scores of an image, a folder of images or an array to a .npy file."""

from __future__ import annotations

import glob
import os
import time

import numpy as np

from ..errors import DataError, require_file
from ..files import refuse_overwriting
from ..pycaffe import Classifier, io
from .images import add_net, array_path, net_options, numbers, read_array, report_gaps, write_array
from .options import Parser, command

EPILOG = """
examples:
  %(prog)s cat.jpg scores.npy --model_def deploy.prototxt --pretrained_model net.caffemodel --mean_file mean.npy
  %(prog)s photos/ scores.npy --ext png --model_def deploy.prototxt --pretrained_model net.caffemodel --center_only
                           one row for each photos/*.png, in alphabetical order

Scores are averaged over ten crops of each image, resized to --images_dim: its corners, its centre, and their mirror images.
"""


def load_inputs(path: str, extension: str = "jpg") -> list[np.ndarray]:
    """Return the images at ``path``: height×width×channels, RGB, in [0, 1]; those of an array are unchanged.

    Args:
        path: an image, a folder, or a ``.npy`` file with an N×H×W×C array.
        extension: which files of a folder to read.

    Raises:
        MissingFileError, DataError: the path does not exist, or is not an image.
    """
    require_file(path, "input")
    if path.endswith(".npy"):
        array = read_array(path, "input")
        if array.ndim != 4:
            raise DataError(f"input {path} holds an array of shape {array.shape}; expected images, N×H×W×C")
        return list(array)
    if os.path.isdir(path):
        files = sorted(glob.glob(os.path.join(glob.escape(path), f"*.{extension}")))
        if not files:
            raise DataError(
                f"input {path}: the folder has no files that end in .{extension}; --ext chooses another ending"
            )
        return [io.load_image(file) for file in files]
    return [io.load_image(path)]


def run(argv: list[str]) -> None:
    """Run the command with these arguments."""
    parser = Parser(__doc__, EPILOG)
    parser.add_argument("input_file", metavar="INPUT", help="an image, a folder of images, or a .npy file (N×H×W×C)")
    parser.add_argument("output_file", metavar="OUTPUT", help="the .npy file to write: one row of scores per image")
    add_net(parser)
    parser.add_argument("--center_only", action="store_true", help="use one crop, from the centre, instead of ten")
    parser.add_argument(
        "--images_dim",
        default="256,256",
        metavar="H,W",
        help="resize images to this before cropping (default: 256,256)",
    )
    parser.add_argument(
        "--ext", default="jpg", metavar="ENDING", help="ending of the files to read from a folder (default: jpg)"
    )
    args = vars(parser.parse_args(argv))
    size = numbers(args["images_dim"], "--images_dim")
    if len(size) != 2 or min(size) < 1:
        raise DataError(f"--images_dim: {args['images_dim']} must be a height and a width, such as 256,256")
    files = (args["input_file"], args["model_def"], args["pretrained_model"], args["mean_file"])
    refuse_overwriting(array_path(args["output_file"]), *filter(None, files))
    classifier = Classifier(image_dims=size, **net_options(args))
    report_gaps(classifier)
    print(f"Loading {args['input_file']}")
    images = load_inputs(args["input_file"], args["ext"])
    print(f"Classifying {len(images)} inputs.")
    start = time.perf_counter()
    predictions = classifier.predict(images, oversample=not args["center_only"])
    print(f"Done in {time.perf_counter() - start:.2f} s.")
    print(f"Saving results into {write_array(args['output_file'], predictions)}")


main = command("classify", run)
