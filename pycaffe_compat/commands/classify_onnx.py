"""Classify images with an exported net, in onnxruntime or OpenCV, from nothing but the ONNX file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from ..errors import CaffeError, DataError, require_file
from ..export.preprocess import Preprocessing, picture_files, read_means, read_picture
from ..packages import require_package
from ..proto.text import read_bytes
from ..tables import dims, format_table
from .options import Parser, command

EPILOG = """
examples:
  %(prog)s net.onnx cat.jpg dog.jpg --labels synset_words.txt
  %(prog)s net.onnx photos/ --engine opencv --top 1
  %(prog)s net.onnx cat.jpg --mean 104,117,123
                           for a model that does not record its preprocessing

caffe-export-net writes mean, scale and channel order into the model's metadata, or with --preprocess the preprocessing itself;
this command uses either. --labels is a text file with one class name per line. --engine opencv reads the model with OpenCV's own
importer, without any other runtime.
"""
Engine = Callable[[np.ndarray], np.ndarray]


def run(argv: list[str]) -> None:
    """Run the command with these arguments."""
    parser = Parser(__doc__, EPILOG)
    parser.add_argument("model", metavar="MODEL.onnx", help="what caffe-export-net wrote")
    parser.add_argument("pictures", metavar="PICTURE", nargs="+", help="images, or folders of them")
    parser.add_argument("--labels", default="", metavar="FILE", help="names of classes, one on each line")
    parser.add_argument("--top", type=int, default=5, metavar="N", help="classes to show for each image (default: 5)")
    parser.add_argument("--output", default="", metavar="BLOB", help="the scores, if the model has several outputs")
    parser.add_argument(
        "--engine", choices=("onnxruntime", "opencv"), default="onnxruntime", help="what runs the model"
    )
    parser.add_argument("--mean", default="", metavar="M", help="instead of the model's: numbers, .binaryproto or .npy")
    parser.add_argument("--scale", type=float, metavar="S", help="instead of the model's")
    parser.add_argument("--channel-order", type=str.upper, choices=("BGR", "RGB"), help="instead of the model's")
    args = parser.parse_args(argv)
    if args.top < 1:
        parser.error(f"--top {args.top} must be at least 1")
    names = read_bytes(args.labels, "file of labels").decode("utf-8", "replace").splitlines() if args.labels else []
    shape, how, engine = open_model(args)
    rows = []
    for path in picture_files(args.pictures):
        pixels = read_picture(path, shape, how.order)
        made = (pixels - how.means(len(pixels))[:, None, None]) * np.float32(how.scale)
        scores = engine(made[None].astype(np.float32)).reshape(-1)
        if names and len(names) != len(scores):
            raise DataError(f"{args.labels} has {len(names)} names, but the model {len(scores)} classes")
        for place in np.argsort(-scores, kind="stable")[: args.top]:
            rows.append([path, names[place] if names else str(place), f"{scores[place]:.4f}"])
    print(format_table(["picture", "class", "score"], rows, right=(2,)))


def open_model(args: Any) -> tuple[tuple[int, ...], Preprocessing, Engine]:
    """Return the shape of a picture (channels, height, width), what is done to it, and what computes its scores.

    Raises:
        MissingFileError, CaffeError: no such file, no model, or none that takes one picture and gives scores.
    """
    path = require_file(args.model, "model")
    onnx = require_package("onnx", "reading ONNX models needs the package onnx", "pycaffe_compat[onnx]")
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's errors have no common base of their own
        raise CaffeError(f"{path} is not an ONNX model: {error}") from error
    outputs = [each.name for each in model.graph.output]
    if len(model.graph.input) != 1:
        raise CaffeError(f"{path} takes {len(model.graph.input)} inputs, but must take one, an image")
    shape = tuple(axis.dim_value for axis in model.graph.input[0].type.tensor_type.shape.dim)[1:]
    if len(shape) != 3 or 0 in shape:
        raise CaffeError(f"{path} takes an input of shape N×{dims(shape)}, not pictures of a fixed size")
    if not args.output and len(outputs) > 1:
        raise CaffeError(f"{path} has several outputs; name the one with the scores: --output {'|'.join(outputs)}")
    if args.output and args.output not in outputs:
        raise CaffeError(f"{path} has no output {args.output}; valid: {', '.join(outputs)}")
    said = Preprocessing.of_metadata({each.key: each.value for each in model.metadata_props}, path)
    how = Preprocessing(
        read_means(args.mean) if args.mean else said.mean,
        said.scale if args.scale is None else args.scale,
        args.channel_order or said.order,
    )
    names = (model.graph.input[0].name, args.output or outputs[0])
    return shape, how, (_opencv if args.engine == "opencv" else _onnxruntime)(path, *names)


def _onnxruntime(path: str, source: str, output: str) -> Engine:
    onnxruntime = require_package(
        "onnxruntime", "onnxruntime is not installed", "pycaffe_compat[onnx], or --engine opencv"
    )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda batch: np.asarray(session.run([output], {source: batch})[0])


def _opencv(path: str, source: str, output: str) -> Engine:
    try:
        net = cv2.dnn.readNetFromONNX(path)
    except cv2.error as error:
        raise CaffeError(f"{path}: OpenCV {cv2.__version__} cannot read it: {error.err}") from error

    def compute(batch: np.ndarray) -> np.ndarray:
        net.setInput(batch, source)
        return np.asarray(net.forward(output))

    return compute


main = command("classify_onnx", run)
