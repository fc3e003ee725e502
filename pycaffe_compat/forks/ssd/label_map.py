"""Files that say what SSD's labels and test pictures are called: label maps, and lists of names and sizes."""

from __future__ import annotations

from typing import NamedTuple

from ...errors import DataError
from ...files import PathLike, encoding_of
from ...proto import caffe_pb2
from ...proto.text import read_bytes, read_text


class Label(NamedTuple):
    """A label's name in files of results, and the one that people are shown."""

    name: str
    shown: str


def read_label_map(path: PathLike) -> dict[int, Label]:
    """Read a ``LabelMap`` in prototxt, such as ``labelmap_voc.prototxt``: its labels by number.

    Raises:
        MissingFileError, ParseError: there is no such file, or it is no label map.
        DataError: a number has two names, or there is none at all.
    """
    labels: dict[int, Label] = {}
    for item in read_text(path, caffe_pb2.LabelMap, "label map").item:
        if item.label in labels:
            raise DataError(
                f'label map {path}: label {item.label} is both "{labels[item.label].name}" and "{item.name}"; '
                "give each label once"
            )
        labels[item.label] = Label(item.name, item.display_name or item.name)
    if not labels:
        raise DataError(
            f'label map {path} has no labels; expected item {{ name: "cat" label: 8 display_name: "cat" }} for each'
        )
    return labels


def read_name_sizes(path: PathLike) -> list[tuple[str, int, int]]:
    """Read a file with a line ``NAME HEIGHT WIDTH`` for each test picture: names, heights and widths.

    Raises:
        MissingFileError, ParseError: there is no such file, or it cannot be read.
        DataError: a line is not of that form.
    """
    pictures = []
    content = read_bytes(path, "list of names and sizes")
    for number, line in enumerate(content.decode(encoding_of(content), "replace").splitlines(), 1):
        words = line.split()
        if not words:
            continue
        if len(words) != 3 or not all(word.isdecimal() and int(word) > 0 for word in words[1:]):
            raise DataError(f'{path}:{number}: "{line.strip()[:60]}" is not NAME HEIGHT WIDTH, such as 000001 500 353')
        pictures.append((words[0], int(words[1]), int(words[2])))
    return pictures
