"""Pictures and the boxes in them, as MS-CNN's and Cascade R-CNN's window files list them.

Sources: zhaoweicai/mscnn, image_gt_data_layer.cpp, and zhaoweicai/cascade-rcnn, detection_data_layer.cpp.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ...data.window_file import Tokens
from ...errors import DataError, require_file
from ...files import open_text
from ...proto.kinds import LISTS, told_apart

Size = tuple[int, int]  # height, width

log = logging.getLogger(__name__)


class Scene(NamedTuple):
    """A picture and its boxes, of corners, float32.

    Attributes:
        size: height and width, as the file says.
        boxes: (n, 4) with their ``labels``, and which are ``ignored`` or ``difficult``, (n,) each.
        others: (m, 4), regions where nothing is to be learned.
    """

    image: str
    size: Size
    boxes: np.ndarray
    labels: np.ndarray
    ignored: np.ndarray
    difficult: np.ndarray
    others: np.ndarray


def read_scenes(path: str | os.PathLike[str], root: str, has_difficult: bool) -> list[Scene]:
    """Read a window file of pictures with boxes.

    For each picture, the file has ``# INDEX``, path, channels, height, width, the number of boxes, for each
    ``LABEL IGNORE X1 Y1 X2 Y2``, the number of regions to leave alone, and for each ``X1 Y1 X2 Y2``.

    Args:
        path: the file.
        root: a prefix of every picture's path; text, not a folder.
        has_difficult: boxes are ``LABEL IGNORE DIFFICULT X1 Y1 X2 Y2``.

    Raises:
        MissingFileError, DataError: the file is missing, malformed or of another kind; the message names file and line.
    """
    name = require_file(path, "window file")
    form = f"LABEL IGNORE {'DIFFICULT ' if has_difficult else ''}X1 Y1 X2 Y2"
    with told_apart(name, LISTS, f"a window file: a text file of pictures and boxes, {form}"):
        with open_text(name) as file:
            tokens = Tokens.of(name, file)
            scenes = []
            while (mark := tokens.next(None)) is not None:
                if mark != "#":
                    raise tokens.error(f'"{mark}", where "#" and the index of a picture should be; a box is {form}')
                tokens.number("the index of a picture", int)
                image = root + tokens.text("the path of a picture")
                channels, height, width = (tokens.number(what, int) for what in ("channels", "height", "width"))
                if channels != 3 or min(height, width) < 1:
                    raise tokens.error(
                        f"{channels} channels, height {height} and width {width}; pictures have 3 channels, and a size"
                    )
                boxes = _rows(tokens, "boxes", form.split())
                others = _rows(tokens, "regions to leave alone", ["X1", "Y1", "X2", "Y2"])
                if (boxes[:, 0] < 1).any():
                    raise tokens.error(f"label {boxes[:, 0].min()} of a box of {image}; labels are from 1 on")
                difficult = boxes[:, 2] != 0 if has_difficult else np.zeros(len(boxes), bool)
                scenes.append(
                    Scene(
                        image,
                        (height, width),
                        boxes[:, -4:].astype(np.float32),
                        boxes[:, 0].astype(np.float32),
                        boxes[:, 1] != 0,
                        difficult,
                        others.astype(np.float32),
                    )
                )
        if not scenes:
            raise DataError(f"window file {name} has no pictures")
    _warn_of_lost(name, scenes)
    return scenes


def _warn_of_lost(name: str, scenes: list[Scene]) -> None:
    """Say if boxes are inside out or lie outside of their pictures: the forks keep them, and they teach nothing right."""
    lost = []
    for scene in scenes:
        low, high = scene.boxes[:, :2], scene.boxes[:, 2:]
        outside = (low > np.minimum(high, scene.size[::-1])) | (high < 0)
        lost += [(box, scene.image) for box in scene.boxes[outside.any(1)]]
    if lost:
        box, image = lost[0]
        sides = " ".join(f"{side:g}" for side in box)
        words = "window file %s: %d boxes have no area within their pictures, such as %s (X1 Y1 X2 Y2) of %s"
        log.warning(words, name, len(lost), sides, image)


def _rows(tokens: Tokens, what: str, form: Sequence[str]) -> np.ndarray:
    number = tokens.number(f"the number of {what}", int)
    if number < 0:
        raise tokens.error(f"the number of {what} is {number}; it must be 0 or more")
    return np.array([[tokens.number(word, int) for word in form] for _ in range(number)], np.int64).reshape(
        -1, len(form)
    )
