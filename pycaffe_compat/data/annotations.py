"""Files that say what is in a picture and where: VOC's XML, COCO's JSON, plain text.

They become the ``annotation_group`` of an ``AnnotatedDatum`` as in SSD's Caffe (weiliu89/caffe, branch ssd: ``io.cpp``): one
group for each class, in the order of the file, and the objects of a class numbered from 0.
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np

from ..errors import DataError, nearest
from ..files import encoding_of
from ..proto import caffe_pb2
from ..proto.text import read_bytes, read_text
from .image_list import LABEL, NUMBER

log = logging.getLogger(__name__)


class Thing(NamedTuple):
    """An object in a picture: its class, left, top, right and bottom in pixels, and whether it is difficult."""

    label: int
    corners: tuple[float, float, float, float]
    difficult: bool = False


class Annotation(NamedTuple):
    """What a file says: the size of the picture, if it does, and the objects."""

    size: tuple[int, int] | None
    things: list[Thing]


def class_numbers(path: str | os.PathLike[str], check: bool = False) -> dict[str, int]:
    """Read a ``LabelMap`` in prototxt, such as ``labelmap_voc.prototxt``: the number of each class by its name.

    Args:
        path: the file.
        check: refuse a name that stands there twice; otherwise the last one counts, as in SSD's Caffe.

    Raises:
        MissingFileError, ParseError: there is no such file, or it is not a ``LabelMap``.
        DataError: a name stands there twice, or has no label from 0 on; or there is none.
    """
    numbers: dict[str, int] = {}
    for item in read_text(path, caffe_pb2.LabelMap, "label map").item:
        if not item.HasField("label") or item.label < 0:
            had = f"label: {item.label}" if item.HasField("label") else "no label"
            raise DataError(f'label map {os.fspath(path)}, item "{item.name}": has {had}; expected one from 0 on')
        if check and item.name in numbers:
            raise DataError(f'label map {os.fspath(path)} has the name "{item.name}" twice')
        numbers[item.name] = item.label
    if not numbers:
        raise DataError(f'label map {os.fspath(path)} has no item {{ name: "…" label: … }}')
    return numbers


def read_annotation(path: str, kind: str, classes: Mapping[str, int]) -> Annotation:
    """Read a file of a ``kind`` that :data:`KINDS` names.

    Args:
        path: the file.
        kind: ``"xml"`` (VOC, ILSVRC), ``"json"`` (COCO) or ``"txt"`` (lines ``LABEL LEFT TOP RIGHT BOTTOM``).
        classes: the number of each class by its name (XML), or by its ``category_id`` (JSON).

    Raises:
        MissingFileError, ParseError, DataError: it is missing, cannot be read or parsed, or an object lacks something. The
            message names both.
    """
    return KINDS[kind](path, read_bytes(path, "annotation"), classes)


def annotation_groups(path: str, annotation: Annotation, height: int, width: int) -> list[Any]:
    """Return the ``AnnotationGroup`` messages of an annotation; the log warns of implausible boxes.

    Boxes are stored as they are, as in SSD's Caffe: what reads them clips them to the picture and drops what has no area.

    Args:
        path: its file, for messages.
        height, width: of the picture as it is in its file. The size in the annotation counts, if there is one.

    Raises:
        DataError: a size of 0 or less.
    """
    rows, columns = annotation.size or (height, width)
    if rows < 1 or columns < 1:
        raise DataError(f"annotation {path}: gives its image {rows} × {columns} pixels (height × width)")
    if (rows, columns) != (height, width):
        log.warning(
            "annotation %s is for a picture of %d × %d (height × width), but the picture has %d × %d",
            *(path, rows, columns, height, width),
        )
    outside = sum(
        min(x1, y1, x2, y2) < 0 or max(x1, x2) > columns or max(y1, y2) > rows
        for x1, y1, x2, y2 in _corners(annotation)
    )
    empty = sum(x1 >= x2 or y1 >= y2 for x1, y1, x2, y2 in _corners(annotation))
    if outside:
        log.warning("annotation %s: %d of %d boxes extend beyond the image", path, outside, len(annotation.things))
    if empty:
        log.warning("annotation %s: %d of %d boxes have no area", path, empty, len(annotation.things))
    groups: dict[int, Any] = {}
    for thing in annotation.things:
        group = groups.setdefault(thing.label, caffe_pb2.AnnotationGroup(group_label=thing.label))
        x1, y1, x2, y2 = np.array(thing.corners, np.float32) / np.array([columns, rows] * 2, np.float32)
        box = caffe_pb2.NormalizedBBox(xmin=x1, ymin=y1, xmax=x2, ymax=y2, difficult=thing.difficult)
        group.annotation.add(instance_id=len(group.annotation), bbox=box)
    return list(groups.values())


def _corners(annotation: Annotation) -> Iterator[tuple[float, float, float, float]]:
    return (thing.corners for thing in annotation.things)


def _from_xml(path: str, content: bytes, classes: Mapping[str, int]) -> Annotation:
    try:
        root = ElementTree.fromstring(content)
    except ElementTree.ParseError as error:
        raise DataError(f"annotation {path} is not XML: {error}") from error
    except (LookupError, ValueError) as error:  # an encoding that does not exist
        raise DataError(f"annotation {path} cannot be read: {error}") from error
    if root.tag != "annotation":
        raise DataError(f"annotation {path}: its outermost element is <{root.tag}>; expected <annotation>, as in VOC")
    things = []
    for number, element in enumerate(root.findall("object"), 1):
        name = _text(element, "name")
        where = f"annotation {path}, object {number}{f' ({name})' if name else ''}"
        if not name:
            raise DataError(f"{where} has no name")
        box = element.find("bndbox")
        if box is None:
            raise DataError(f"{where} has no bndbox")
        corners = [_pixels(_text(box, edge), f"{where}: {edge}") for edge in ("xmin", "ymin", "xmax", "ymax")]
        label = _number_of(name, classes, where)
        things.append(
            Thing(label, (corners[0], corners[1], corners[2], corners[3]), _text(element, "difficult") == "1")
        )
    sides = [_text(root, f"size/{side}") for side in ("height", "width")]
    return Annotation(_size(path, sides), things)


def _text(element: ElementTree.Element, path: str) -> str:
    return (element.findtext(path) or "").strip()


def _pixels(text: str, where: str) -> float:
    """Return an edge: whole pixels. SSD's Caffe takes 0 for a fraction; here it loses what follows the point."""
    if (whole := _whole(text)) is not None:
        return float(whole)
    if not NUMBER.fullmatch(text) or not abs(float(text)) < 2**31:
        raise DataError(f'{where} is "{text}"; expected a number of pixels')
    log.warning("%s is %s, read as %d: edges are whole pixels (SSD's Caffe reads 0)", where, text, float(text))
    return float(math.trunc(float(text)))


def _size(path: str, sides: list[Any]) -> tuple[int, int] | None:
    height, width = (_whole(str(side)) for side in sides)
    if height is None or width is None:
        log.warning("annotation %s does not give the image's size; it is taken from the image", path)
        return None
    return height, width


def _whole(text: str) -> int | None:
    """Return a 32-bit integer; None if the text is not one."""
    number = int(text) if LABEL.fullmatch(text) and len(text) < 12 else None
    return number if number is not None and abs(number) < 2**31 else None


def _number_of(name: str, classes: Mapping[str, int], where: str) -> int:
    if name not in classes:
        raise DataError(f'{where}: "{name}" is not in the label map{nearest(name, classes)}')
    return classes[name]


def _from_json(path: str, content: bytes, classes: Mapping[str, int]) -> Annotation:
    try:
        root = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"annotation {path} is not JSON: {error}") from error
    objects = root.get("annotation") if isinstance(root, dict) else None
    if not isinstance(objects, list):
        raise DataError(
            f'annotation {path}: has no list "annotation"; expected {{"image": {{…}}, "annotation": [{{…}}, …]}}'
        )
    things = []
    for number, each in enumerate(objects, 1):
        where = f"annotation {path}, object {number}"
        if not isinstance(each, dict) or "category_id" not in each:
            raise DataError(f'{where} has no "category_id"')
        box = each.get("bbox")
        if not isinstance(box, list) or len(box) != 4 or not all(_is_number(value) for value in box):
            raise DataError(f'{where}: its "bbox" is {json.dumps(box)}; expected [left, top, width, height]')
        left, top, width, height = np.array(box, np.float32)
        crowd = each.get("iscrowd", 0)
        if not isinstance(crowd, int):
            raise DataError(f'{where}: its "iscrowd" is {json.dumps(crowd)}; expected 0 or 1')
        label = _number_of(str(each["category_id"]), classes, where)
        things.append(Thing(label, (float(left), float(top), float(left + width), float(top + height)), bool(crowd)))
    image = root.get("image")
    sides = [image.get(side, "") if isinstance(image, dict) else "" for side in ("height", "width")]
    return Annotation(_size(path, sides), things)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 2**31


def _from_text(path: str, content: bytes, classes: Mapping[str, int]) -> Annotation:
    things = []
    for number, line in enumerate(content.decode(encoding_of(content), "replace").splitlines(), 1):
        words = line.split()
        if not words:
            continue
        label = _whole(words[0])
        if (
            len(words) != 5
            or label is None
            or label < 0
            or not all(NUMBER.fullmatch(word) and abs(float(word)) < 2**31 for word in words[1:])
        ):
            raise DataError(f'{path}:{number}: "{line.strip()}"; expected "LABEL LEFT TOP RIGHT BOTTOM", in pixels')
        left, top, right, bottom = map(float, words[1:])
        things.append(Thing(label, (left, top, right, bottom)))
    return Annotation(None, things)


KINDS: dict[str, Callable[[str, bytes, Mapping[str, int]], Annotation]] = {
    "xml": _from_xml,
    "json": _from_json,
    "txt": _from_text,
}
