import logging

import numpy as np
import pytest

from pycaffe_compat.data.annotations import annotation_groups, class_numbers, read_annotation
from pycaffe_compat.errors import CaffeError, DataError, ParseError

CLASSES = {"dog": 3, "cat": 1, "18": 9}
VOC = """<annotation>
  <size><width>{width}</width><height>50</height><depth>3</depth></size>
  <object><name>dog</name><difficult>0</difficult><bndbox>
    <xmin>1</xmin><ymin>2</ymin><xmax>30</xmax><ymax>40</ymax></bndbox>
    <part><name>head</name><bndbox><xmin>5</xmin><ymin>6</ymin><xmax>7</xmax><ymax>8</ymax></bndbox></part></object>
  <object><name> cat </name><bndbox><ymax>{ymax}</ymax><ymin>2</ymin><xmax>30</xmax><xmin>{xmin}</xmin></bndbox>
    <difficult>1</difficult></object>
  <object><name>dog</name><bndbox><xmin>10</xmin><ymin>2</ymin><xmax>30</xmax><ymax>40</ymax></bndbox></object>
</annotation>"""


def groups(tmp_path, content: str, kind: str = "xml", height: int = 50, width: int = 100):
    path = tmp_path / f"a.{kind}"
    path.write_text(content)
    return annotation_groups(str(path), read_annotation(str(path), kind, CLASSES), height, width)


def boxes(found) -> list:
    return [
        (group.group_label, each.instance_id, each.bbox.difficult, each.bbox.xmin, each.bbox.ymin, each.bbox.xmax, each.bbox.ymax)
        for group in found
        for each in group.annotation
    ]  # fmt: skip


def test_voc(tmp_path) -> None:
    found = boxes(groups(tmp_path, VOC.format(width=100, ymax=40, xmin=20)))
    want = [(3, 0, False, 1, 2, 30, 40), (3, 1, False, 10, 2, 30, 40), (1, 0, True, 20, 2, 30, 40)]
    pixels = np.array([100, 50, 100, 50], np.float32)
    for got, (*first, x1, y1, x2, y2) in zip(found, want, strict=True):
        assert got[:3] == tuple(first)
        np.testing.assert_array_equal(np.array(got[3:], np.float32), np.array([x1, y1, x2, y2], np.float32) / pixels)


def test_coco(tmp_path) -> None:
    text = """{"image": {"height": 50, "width": 100}, "annotation": [
      {"category_id": 18, "bbox": [10.5, 5, 20.25, 30], "iscrowd": 1}, {"category_id": "cat", "bbox": [0, 0, 1, 1]}]}"""
    found = boxes(groups(tmp_path, text, "json"))
    np.testing.assert_allclose(found, [(9, 0, 1, 0.105, 0.1, 0.3075, 0.7), (1, 0, 0, 0, 0, 0.01, 0.02)], rtol=1e-6)


def test_plain_text(tmp_path) -> None:
    found = boxes(groups(tmp_path, "2 1.5 2 30 40\n\n2 0 0 50 25\n7 0 0 1 1\n", "txt"))
    np.testing.assert_allclose(
        found,
        [(2, 0, 0, 0.015, 0.04, 0.3, 0.8), (2, 1, 0, 0, 0, 0.5, 0.5), (7, 0, 0, 0, 0, 0.01, 0.02)],
        rtol=1e-6,
    )


def test_the_log_tells_of_what_makes_little_sense_and_nothing_is_changed(tmp_path, caplog) -> None:
    with caplog.at_level(logging.WARNING):
        found = boxes(groups(tmp_path, VOC.format(width=20, ymax=1.9, xmin=-4)))
    np.testing.assert_allclose(found[2], (1, 0, 1, -0.2, 0.04, 1.5, 0.02), rtol=1e-6)
    assert "is for a picture of 50 × 20 (height × width), but the picture has 50 × 100" in caplog.text
    assert "3 of 3 boxes extend beyond the image" in caplog.text and "1 of 3 boxes have no area" in caplog.text
    assert "object 2 (cat): ymax is 1.9, read as 1: edges are whole pixels (SSD's Caffe reads 0)" in caplog.text


def test_the_picture_tells_its_size_where_the_annotation_does_not(tmp_path, caplog) -> None:
    found = boxes(groups(tmp_path, VOC.format(width="?", ymax=40, xmin=20), width=200))
    assert found[0][5] == pytest.approx(30 / 200) and "does not give the image's size" in caplog.text


@pytest.mark.parametrize(
    ("kind", "content", "message"),
    [
        ("xml", "<annotation><object>", r"a\.xml is not XML: no element found"),
        ("xml", "<annotations/>", "its outermost element is <annotations>; expected <annotation>"),
        (
            "xml",
            "<annotation><object><name>dgo</name><bndbox/></object></annotation>",
            r"object 1 \(dgo\): xmin is \"\"",
        ),
        ("xml", "<annotation><object/></annotation>", "object 1 has no name"),
        ("xml", "<annotation><object><name>dog</name></object></annotation>", r"object 1 \(dog\) has no bndbox"),
        ("xml", VOC.format(width=0, ymax=4, xmin=2), r"gives its image 50 × 0 pixels"),
        ("xml", VOC.format(width=9, ymax=4, xmin="1e99"), 'xmin is "1e99"; expected a number of pixels'),
        (
            "xml",
            VOC.replace(">dog<", ">dgo<").format(width=9, ymax=4, xmin=2),
            r'"dgo" is not in the label map .*mean dog',
        ),
        ("json", "{", r"a\.json is not JSON: "),
        ("json", "[" * 100_000, r"a\.json is not JSON: "),
        ("json", "[]", 'has no list "annotation"'),
        ("json", '{"annotation": [{}]}', 'object 1 has no "category_id"'),
        (
            "json",
            '{"annotation": [{"category_id": 18, "bbox": [1, 2, 3]}]}',
            r'its "bbox" is \[1, 2, 3\]; expected \[left',
        ),
        ("json", '{"annotation": [{"category_id": 5, "bbox": [1, 2, 3, 4]}]}', '"5" is not in the label map'),
        ("txt", "1 2 3 4 5\n1 2 3 4\n", r'a\.txt:2: "1 2 3 4"; expected "LABEL LEFT TOP RIGHT BOTTOM"'),
        ("txt", "-1 2 3 4 5", r"a\.txt:1: "),
        ("txt", "dog 2 3 4 5", r"a\.txt:1: "),
        ("txt", "1 2 3 4 1e50", r"a\.txt:1: "),
        ("txt", "99999999999 2 3 4 5", r"a\.txt:1: "),
    ],
)
def test_what_cannot_be_read_is_one_error(tmp_path, kind, content, message) -> None:
    with pytest.raises(DataError, match=message):
        groups(tmp_path, content, kind)


def test_label_maps(tmp_path) -> None:
    path = tmp_path / "map.prototxt"
    path.write_text(
        'item { name: "a" label: 1 display_name: "A" } item { name: "b" label: 1 } item { name: "a" label: 2 }'
    )
    assert class_numbers(path) == {"a": 2, "b": 1}
    for text, check, message, error in (
        (path.read_text(), True, 'has the name "a" twice', DataError),
        ("", False, "has no item", DataError),
        ('item { name: "a" }', False, 'item "a": has no label; expected one from 0 on', DataError),
        ('item { name: "a" label: -1 }', False, 'item "a": has label: -1', DataError),
        ("items { }", False, "items", ParseError),
    ):
        path.write_text(text)
        with pytest.raises(error, match=message):
            class_numbers(path, check)
    with pytest.raises(CaffeError, match="label map not found"):
        class_numbers(tmp_path / "none")
