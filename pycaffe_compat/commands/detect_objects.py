"""Detect objects in images with SSD, YOLO or a similar net: print boxes with labels and scores, and draw them."""

from __future__ import annotations

import colorsys
import json
import os
import sys
from typing import NamedTuple

import cv2
import numpy as np
import torch

from ..data.image_list import read_image
from ..errors import DataError, NetError, require_file
from ..export.preprocess import Preprocessing, picture_files, read_means, read_picture
from ..files import atomic_path
from ..forks.ssd.detection_output import DetectionOutput
from ..forks.ssd.label_map import read_label_map
from ..forks.yolo.detection_output import GridDetections
from ..net import CaffeModule
from ..proto.text import read_bytes
from ..solver.run import one_device
from ..tables import dims, format_table
from .options import Parser, add_device, add_reading, command, reading

EPILOG = """
examples:
  %(prog)s deploy.prototxt VGG_VOC0712_SSD_300x300.caffemodel street.jpg --labels labelmap_voc.prototxt --out drawn/
  %(prog)s mobilenet_yolov3_lite_deploy.prototxt mobilenet_yolov3_lite.caffemodel dog.jpg --mean 127.5 --scale 0.007843
  %(prog)s MobileNetSSD_deploy.prototxt MobileNetSSD_deploy.caffemodel photos/ --mean 127.5 --scale 0.007843 --json

--labels is a label map (item { name: "cat" label: 8 display_name: "cat" } …), or a text file with one name per line. The
first name is that of label 0, usually the background; it may be left out.

The net must take one image at a time and end in SSD's DetectionOutput, or in YOLO's YoloDetectionOutput or
Yolov3DetectionOutput. Images are resized to its input. Boxes are printed in pixels: left, top, right, bottom.
"""
SSD_MEAN = "104,117,123"
COLUMNS = ("picture", "label", "score", "left", "top", "right", "bottom")
WIDTHS = ((7,), (12,), (15,))  # of rows of detections; TextBoxes++ puts slanted boxes after the upright ones


class Found(NamedTuple):
    """One object: the number and the name of its label, its score, and its box in pixels."""

    label: int
    name: str
    score: float
    box: tuple[float, float, float, float]


class ObjectDetector:
    """A net that finds objects, with what must be done to pictures and the names of its labels.

    Raises:
        NetError: the net does not take one picture, or does not give detections.
    """

    def __init__(self, net: CaffeModule, how: Preprocessing, labels: str = "") -> None:
        """``labels`` is the file of their names, if there is one."""
        if len(net.inputs) != 1:
            raise NetError(f"the net has the inputs {', '.join(net.inputs) or '(none)'}, but must have one, an image")
        self._input = net.inputs[0]
        self._shape = net.blob_shapes[self._input][1:]
        shapes = {name: net.blob_shapes[name] for name in net.outputs}
        outputs = [name for name, shape in shapes.items() if shape[:2] == (1, 1) and shape[3:] in WIDTHS]
        if len(outputs) != 1:
            every = ", ".join(f"{name} ({dims(net.blob_shapes[name])})" for name in net.outputs)
            raise NetError(
                f"the net gives {every}, but must give one output of detections, 1×1×K×7, like a DetectionOutput layer's"
            )
        self._output = outputs[0]
        self._net, self._how = net, how
        net.reshape({self._input: (1, *self._shape)})
        self._names = read_labels(labels, _classes(net)) if labels else {}

    def detect(self, path: str, threshold: float) -> list[Found]:
        """The objects in a picture file with scores of at least ``threshold``, the highest first.

        Raises:
            DataError: it is no picture.
        """
        pixels = read_picture(path, self._shape, self._how.order)
        height, width = read_image(path).shape[:2]
        made = (pixels - self._how.means(len(pixels))[:, None, None]) * np.float32(self._how.scale)
        with torch.no_grad():
            rows = self._net(**{self._input: torch.from_numpy(made[None]).to(self._net.device)})[self._output]
        rows = rows[0, 0].cpu()
        rows = rows[(rows[:, 1] >= 0) & (rows[:, 2] >= threshold)]
        found = []
        for row in rows[rows[:, 2].argsort(descending=True, stable=True)].tolist():
            label = int(row[1])
            left, top, right, bottom = np.clip(row[3:7], 0, 1) * (width, height, width, height)
            found.append(Found(label, self._names.get(label, str(label)), row[2], (left, top, right, bottom)))
        return found


def _classes(net: CaffeModule) -> int | None:
    """The number of the net's classes, the background among them; None if it is not known."""
    for layer in reversed(net.layers.values()):
        if isinstance(layer, DetectionOutput):
            return layer.classes
        if isinstance(layer, GridDetections):
            return layer.classes + 1
    return None


def read_labels(path: str, classes: int | None) -> dict[int, str]:
    """The names of labels in a label map or a text file with a name on each line.

    Args:
        classes: the number of the net's classes, the background among them, if it is known: a text file has as many lines, or
            one less, where it does not name the background.

    Raises:
        MissingFileError, ParseError, DataError: the file is missing, no such file, or of another number of labels.
    """
    text = read_bytes(path, "file of labels").decode("utf-8", "replace")
    if "{" in text:
        return {number: label.shown for number, label in read_label_map(path).items()}
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if classes is not None and len(lines) not in (classes, classes - 1):
        raise DataError(
            f"{path} has {len(lines)} lines, but the net has {classes} classes; give a name for each, or for all but label 0"
        )
    return dict(enumerate(lines, start=1 if classes is not None and len(lines) < classes else 0))


def draw(picture: np.ndarray, found: list[Found]) -> np.ndarray:
    """Return a copy of ``picture`` (H×W×3, BGR, ``uint8``) with the boxes in it, each label in a colour of its own."""
    drawn = picture.copy()
    edge = max(drawn.shape[:2])
    line, size = max(1, round(edge / 300)), max(0.4, edge / 1000)
    for each in reversed(found):  # the highest score on top
        colour = tuple(round(255 * part) for part in colorsys.hsv_to_rgb(each.label * 0.618034 % 1, 0.9, 0.85))
        left, top, right, bottom = map(round, each.box)
        cv2.rectangle(drawn, (left, top), (right - 1, bottom - 1), colour, line)
        words = f"{each.name} {each.score:.2f}"
        (width, height), below = cv2.getTextSize(words, cv2.FONT_HERSHEY_SIMPLEX, size, line)
        base = max(top - below, height + 1)
        left = max(0, min(left, drawn.shape[1] - width))
        cv2.rectangle(drawn, (left, base - height - 1), (left + width, base + below), colour, cv2.FILLED)
        cv2.putText(drawn, words, (left, base), cv2.FONT_HERSHEY_SIMPLEX, size, (255, 255, 255), line, cv2.LINE_AA)
    return drawn


def run(argv: list[str]) -> None:
    """Run the command with these arguments."""
    parser = Parser(__doc__, EPILOG)
    parser.add_argument("net", metavar="NET", help="the detector's deploy prototxt")
    parser.add_argument("weights", metavar="WEIGHTS", help="its caffemodel")
    parser.add_argument("pictures", nargs="+", metavar="PICTURE", help="image files, or folders of them")
    parser.add_argument("--labels", default="", metavar="FILE", help="names of the labels (default: their numbers)")
    parser.add_argument(
        "--threshold", type=float, default=0.5, metavar="X", help="the minimum score of a detection (default: 0.5)"
    )
    parser.add_argument(
        "--out", default="", metavar="DIR", help="write copies of the images with the boxes drawn into this folder"
    )
    parser.add_argument("--json", action="store_true", help="print a line of JSON for each image instead of the table")
    parser.add_argument(
        "--mean",
        default=SSD_MEAN,
        metavar="M",
        help=f"mean to subtract: numbers, a .binaryproto or a .npy file (default: {SSD_MEAN}, SSD's)",
    )
    parser.add_argument(
        "--scale", type=float, default=1.0, metavar="S", help="scale of the input images, after the mean (default: 1)"
    )
    parser.add_argument(
        "--channel-order",
        type=str.upper,
        choices=("BGR", "RGB"),
        default="BGR",
        help="channel order of the net (default: BGR)",
    )
    add_device(parser)
    add_reading(parser)
    args = vars(parser.parse_args(argv))
    reading(args)
    pictures = picture_files(args["pictures"])
    targets = _targets(pictures, args["out"])
    device = one_device(args["gpu"], args["cpu"])
    net = CaffeModule(args["net"], "TEST", weights=require_file(args["weights"], "weights"), device=device)
    if gaps := net.load_report.gaps():
        print(f"note: {gaps}", file=sys.stderr)
    how = Preprocessing(read_means(args["mean"]), args["scale"], args["channel_order"])
    detector = ObjectDetector(net, how, args["labels"])
    rows = []
    for path in pictures:
        found = detector.detect(path, args["threshold"])
        if args["out"]:
            with atomic_path(targets[path]) as temporary:
                cv2.imwrite(temporary, draw(read_image(path), found))
        if args["json"]:
            print(json.dumps({"picture": path, "objects": [_rounded(each) for each in found]}), flush=True)
        rows += [
            (path, each.name, f"{each.score:.3f}", *(str(round(side)) for side in each.box)) for each in found
        ] or [(path, "nothing")]
    if not args["json"]:
        print(format_table(COLUMNS, rows, right=(2, 3, 4, 5, 6)))


def _targets(pictures: list[str], folder: str) -> dict[str, str]:
    """Where each picture is drawn to: a file of its name in ``folder``, which is made."""
    if not folder:
        return {}
    targets = {path: os.path.join(folder, os.path.basename(path)) for path in pictures}
    for path, target in targets.items():
        if not cv2.haveImageWriter(target):
            targets[path] = os.path.splitext(target)[0] + ".png"
    twice = next((path for path in targets if list(targets.values()).count(targets[path]) > 1), None)
    if twice is not None:
        raise DataError(f"--out: two images would be drawn to {targets[twice]}; give images with different names")
    own = next(
        (path for path, target in targets.items() if os.path.exists(target) and os.path.samefile(path, target)), None
    )
    if own is not None:
        raise DataError(f"--out: {own} would be written over; give another folder")
    os.makedirs(folder, exist_ok=True)
    return targets


def _rounded(found: Found) -> dict[str, object]:
    return {**found._asdict(), "score": round(found.score, 6), "box": [round(side, 2) for side in found.box]}


main = command("detect_objects", run)
