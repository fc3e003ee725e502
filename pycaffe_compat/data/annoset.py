"""Making databases of pictures with boxes, as ``convert_annoset`` of SSD's Caffe does; and lists of the sizes of pictures."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..errors import DataError, MissingFileError
from ..files import atomic_path
from ..proto import caffe_pb2
from .annotations import KINDS, annotation_groups, class_numbers, read_annotation
from .image_list import Entry, read_image, read_list
from .imageset import ConvertOptions, folder, in_threads, store, store_image
from .label_maps import read_pairs

log = logging.getLogger(__name__)
_SHOWN = 3  # missing files that a message names


@dataclass(frozen=True)
class AnnosetOptions(ConvertOptions):
    """Options of :func:`convert_annoset`, named like SSD's flags; and those of ``convert_imageset``.

    Attributes:
        anno_type: ``"detection"`` for lines ``IMAGE ANNOTATION``, ``"classification"`` for lines ``IMAGE LABEL``.
        label_type: what annotations are: ``"xml"``, ``"json"`` or ``"txt"``.
        label_map_file: a ``LabelMap`` in prototxt, which numbers the classes; ``"txt"`` has numbers itself.
        check_label: refuse a ``LabelMap`` with a name that stands there twice.
    """

    anno_type: str = "classification"
    label_type: str = "xml"
    label_map_file: str = ""
    check_label: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.anno_type not in ("classification", "detection"):
            raise DataError(f'anno_type is "{self.anno_type}"; expected classification or detection')
        if self.label_type not in KINDS:
            raise DataError(f'label_type is "{self.label_type}"; expected {", ".join(KINDS)}')
        if self.anno_type == "detection" and self.label_type != "txt" and not self.label_map_file:
            raise DataError(
                f"label_map_file is not given; annotations in {self.label_type} need it to number the classes"
            )


class Pair(NamedTuple):
    """A line of a list for detection."""

    path: str
    annotation: str


def convert_annoset(root: str, list_file: str, database: str, options: AnnosetOptions, progress: bool = False) -> int:
    """Write the pictures of a list file and their boxes into a new LMDB; return their number.

    Keys are ``%08d_PATH``, numbered in list order, and values are AnnotatedDatums, as in SSD's Caffe. A picture whose annotation
    is missing has no boxes, and the log says so.

    Args:
        root: the folder that the listed paths start from.
        list_file: lines of the form ``IMAGE ANNOTATION``, or ``IMAGE LABEL`` for classification.
        database: the folder to make.
        options: what to make.
        progress: show a progress bar.

    Raises:
        MissingFileError, DataError, ParseError: the list, the label map, a picture or an annotation cannot be used; all
            annotations are missing; ``database`` exists.
        CaffeError: ``database`` cannot be written.
    """
    root = folder(root)
    if options.anno_type == "classification":

        def labelled(entry: Entry) -> tuple[Any, tuple[int, ...]]:
            datum, shape, _ = store_image(root + entry.path, entry.label, options)
            return caffe_pb2.AnnotatedDatum(datum=_sized(datum, shape)), shape

        return store(root, list_file, read_list(list_file), labelled, database, options, progress, "convert_annoset")
    classes = class_numbers(options.label_map_file, options.check_label) if options.label_map_file else {}
    pairs = [Pair(*map(str, words)) for words in read_pairs(list_file, "IMAGE ANNOTATION")]
    _check_annotations(root, pairs, list_file)

    def annotated(pair: Pair) -> tuple[Any, tuple[int, ...]]:
        datum, shape, (height, width) = store_image(root + pair.path, -1, options)
        record = caffe_pb2.AnnotatedDatum(datum=_sized(datum, shape), type=caffe_pb2.AnnotatedDatum.BBOX)
        path = root + pair.annotation
        if os.path.exists(path):
            annotation = read_annotation(path, options.label_type, classes)
            record.annotation_group.extend(annotation_groups(path, annotation, height, width))
        return record, shape

    return store(root, list_file, pairs, annotated, database, options, progress, "convert_annoset")


def _sized(datum: Any, shape: tuple[int, ...]) -> Any:
    """Say in an encoded Datum how large its picture is, as SSD's Caffe does."""
    datum.channels, datum.height, datum.width = shape
    return datum


def _check_annotations(root: str, pairs: list[Pair], list_file: str) -> None:
    missing = [root + pair.annotation for pair in pairs if not os.path.isfile(root + pair.annotation)]
    if not missing:
        return
    shown = ", ".join(missing[:_SHOWN]) + (", …" if len(missing) > _SHOWN else "")
    words = f"{len(missing)} of the {len(pairs)} annotations of {list_file} are not there: {shown}"
    if len(missing) == len(pairs):
        raise MissingFileError(f'{words}; is the root folder right? It is "{root}"')
    log.warning("%s; their images have no boxes", words)


def write_image_sizes(root: str, list_file: str, output: str, name_id_file: str = "") -> int:
    """Write ``NAME HEIGHT WIDTH`` for each picture of a list, as ``get_image_size`` of SSD's Caffe does; return their number.

    Args:
        root: the folder that the listed paths start from.
        list_file: lines ``IMAGE ANNOTATION`` or ``IMAGE LABEL``.
        output: the file to write: the ``name_size_file`` of ``DetectionOutput`` and ``DetectionEvaluate``.
        name_id_file: lines ``NAME ID``; the ids are written instead of the names.

    Raises:
        MissingFileError, DataError: a list or a picture cannot be used, or a picture has no id.
        CaffeError: ``output`` cannot be written.
    """
    root = folder(root)
    pairs = [Pair(*map(str, words)) for words in read_pairs(list_file, "IMAGE ANNOTATION")]
    ids: dict[str, int] = {}
    for name, number in read_list(name_id_file) if name_id_file else ():
        if name in ids:
            raise DataError(f'{name_id_file} has the name "{name}" twice')
        ids[name] = number

    def line(pair: Pair) -> str:
        name = os.path.splitext(os.path.basename(pair.path))[0]
        if name_id_file and name not in ids:
            raise DataError(f'picture {root}{pair.path}: {name_id_file} has no "{name}"')
        try:
            height, width = read_image(root + pair.path).shape[:2]
        except DataError as error:
            raise DataError(f"{root}{pair.path}: {error}") from error
        return f"{ids.get(name, name)} {height} {width}\n"

    lines = list(in_threads(line, pairs))
    with atomic_path(output) as path, open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.writelines(lines)
    return len(lines)
