"""Files of detections for the scoring programs of VOC, COCO and ILSVRC (DetectionOutput's ``save_output_param``)."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from ...errors import LayerError, MissingFileError
from ...files import atomic_path
from ...layers.base import Layer
from . import boxes as bx
from .label_map import Label, read_label_map, read_name_sizes

log = logging.getLogger(__name__)
NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?")


class Detection(NamedTuple):
    """A detection as the files have it: the box as xmin, ymin, width and height in pixels, to a hundredth."""

    picture: str
    label: int
    score: float
    box: list[float]

    @property
    def line(self) -> str:
        """Score and corners, in whole pixels."""
        left, top, width, height = map(int, self.box)
        return f"{self.score:.6g} {left} {top} {left + width} {top + height}"


class Results:
    """Gathers the detections of a test set, whose pictures come in the order of ``name_size_file``, and writes them.

    Files are written when the detections of all pictures are there, and again after each further pass over the test set.
    Where the label map or the list of pictures does not exist, a warning says so once and nothing is written.
    """

    def __init__(self, options: Any, labels: list[int], error: Callable[[str], LayerError]) -> None:
        """``options`` is the ``SaveOutputParameter``, ``labels`` all but the background, ``error`` the layer's."""
        self._options, self._labels, self._error = options, labels, error
        self._write = {"VOC": self._write_voc, "COCO": self._write_coco, "ILSVRC": self._write_ilsvrc}.get(
            options.output_format
        )
        if self._write is None:
            raise error(
                f'save_output_param.output_format: "{options.output_format}" is not one of VOC, COCO and ILSVRC'
            )
        if options.HasField("resize_param") and not (options.resize_param.height and options.resize_param.width):
            raise error("save_output_param.resize_param needs height and width above 0")
        self._resize = options.resize_param if options.HasField("resize_param") else None
        self._pictures: list[tuple[str, int, int]] | None = None
        self._names: dict[int, Label] = {}
        self._off = False
        self._seen = 0
        self._detections: list[Detection] = []

    def add(self, rows: Tensor, images: int) -> None:
        """Take the detections ``rows`` (K, 7) of the next ``images`` pictures.

        Raises:
            CaffeError: there are more pictures than names, a label has no name, or a file cannot be read or written.
        """
        if self._pictures is None and not self._off:
            self._open()
        if self._off or self._pictures is None:
            return
        rows = rows.detach().float().cpu()
        for image in range(images):
            name, height, width = self._pictures[self._seen]
            own = rows[rows[:, 0] == image]
            corners, _ = bx.in_picture(own[:, 3:], height, width, self._resize)
            corners[:, 2:] -= corners[:, :2]
            hundredths = (corners * 100).double()
            # half a hundredth goes away from 0, as with C's round
            box = ((hundredths.abs() + 0.5).floor().copysign(hundredths) / 100).float()
            for row, sides in zip(own.numpy(), box.numpy(), strict=True):
                self._detections.append(Detection(name, int(row[1]), _short(row[2]), [_short(side) for side in sides]))
            self._seen += 1
            if self._seen == len(self._pictures):
                assert self._write is not None
                self._write()
                self._seen, self._detections = 0, []

    def _open(self) -> None:
        options = self._options
        try:
            self._names = read_label_map(options.label_map_file)
            pictures = read_name_sizes(options.name_size_file)
        except MissingFileError as error:
            log.warning("%s", self._error(f"save_output_param: detections are not saved: {error}"))
            self._off = True
            return
        number = options.num_test_image if options.HasField("num_test_image") else len(pictures)
        if not 0 < number <= len(pictures):
            raise self._error(
                f"save_output_param.num_test_image: {number} must be above 0 and at most {len(pictures)}, the pictures in "
                f"{options.name_size_file}"
            )
        for label in self._labels:
            if label not in self._names:
                raise self._error(f"label {label} is not in {options.label_map_file}, but is one of num_classes")
        try:
            os.makedirs(options.output_directory, exist_ok=True)
        except OSError as error:
            raise self._error(
                f'save_output_param.output_directory: "{options.output_directory}" cannot be made: {error.strerror}'
            ) from error
        self._pictures = pictures[:number]

    def _save(self, name: str, text: str) -> None:
        path = os.path.join(self._options.output_directory, self._options.output_name_prefix + name)
        with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
            file.write(text)

    def _write_voc(self) -> None:
        for label in self._labels:
            lines = [f"{each.picture} {each.line}\n" for each in self._detections if each.label == label]
            self._save(f"{self._names[label].name}.txt", "".join(lines))

    def _write_ilsvrc(self) -> None:
        self._save(".txt", "".join(f"{each.picture} {each.label} {each.line}\n" for each in self._detections))

    def _write_coco(self) -> None:
        rows = [
            {
                "image_id": _as_number(each.picture),
                "category_id": _as_number(self._names[each.label].name),
                "bbox": each.box,
                "score": each.score,
            }
            for each in self._detections
        ]
        self._save(".json", "[" + ",\n".join(json.dumps(row) for row in rows) + "]\n")


def results_of(layer: Layer, options: Any, labels: list[int]) -> Results | None:
    """The files that a layer with the ``DetectionOutputParameter`` ``options`` writes; None where it writes none."""
    saved = options.save_output_param
    if not saved.output_directory:
        return None
    for field in ("label_map_file", "name_size_file"):
        if not getattr(saved, field):
            log.warning("%s", layer.error(f"save_output_param: detections are not saved, for it has no {field}"))
            return None
    return Results(saved, labels, layer.error)


def _short(value: np.float32) -> float:
    """A float32 as the shortest decimal that stands for it."""
    return float(str(value))


def _as_number(name: str) -> Any:
    """COCO's names of pictures and categories are numbers."""
    return json.loads(name) if NUMBER.fullmatch(name) else name
